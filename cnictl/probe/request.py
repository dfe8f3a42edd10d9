"""Parse the options of `test-connectivity`, and refuse those that would prove nothing."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cnictl.core.cidr import AddressError, format_address, parse_address, parse_cidr
from cnictl.core.errors import Problem, UsageProblem
from cnictl.node import command_line
from cnictl.node.host import runtimes
from cnictl.node.runs import converge
from cnictl.node.spec import addressing, node_file, pod_names
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.node.spec.peers import parse_peer
from cnictl.probe import node_chain
from cnictl.probe.chain import BIN_DIRS, CONF_FILE, Chain, load_chain
from cnictl.probe.existing import existing_pod, known_as
from cnictl.probe.failure import gateway_of
from cnictl.probe.targets import Wanted

SERVED = "10m"
"""How long `--serve` runs without `--for`."""


@dataclass(frozen=True)
class Request:
    """What to check on which node."""

    spec: NodeSpec
    wanted: Wanted


def parse(pods: Sequence[str], externals: Sequence[str], peers: Sequence[str], count: int, timeout: float) -> Request:
    """Return what `test-connectivity` has to check. Raises UsageProblem; Problem on a host that is not a node.

    `pods` are addresses or, for pods of this node, names or container ids. `peers` have the form of `--peer`.
    """
    named, outside = addressing.parse_list(list(pods)), addressing.parse_list(list(externals))
    spec = converge.current_spec()
    added = tuple(peer for peer in map(parse_peer, peers) if peer not in spec.known_peers)
    addressing.check(replace(spec, peers=spec.peers + added, externals=outside))
    spec = addressing.check(spec)
    addresses = tuple(address for text in named for address in _addresses_of(text))
    _check_in_network(addresses, spec.networks)
    _check_no_gateway(addresses, [*spec.subnets, *(peer.pod_cidr for peer in (*spec.known_peers, *added))])
    return Request(spec, Wanted(count, timeout, addresses, tuple(map(_canonical, outside)), added))


def refuse_ineffective(serve: bool, duration: str, of_checks: dict[str, object]) -> None:
    """Refuse options that would have no effect. `of_checks` are the options of checks. Raises UsageProblem."""
    given = [option for option, value in of_checks.items() if value]
    if serve and given:
        raise UsageProblem(f"--serve checks nothing: leave out {', '.join(given)}")
    if not serve and duration != SERVED:
        raise UsageProblem("--for has no effect: --serve is not given")


def chain_of(conf: str, bin_dirs: list[str]) -> Chain:
    """Return the plugins that create a probe pod: those of `conf`, from `bin_dirs` or else the runtimes' folders."""
    if not bin_dirs:
        named = [folder for runtime in runtimes.find() for folder in runtime.bin_dirs]
        bin_dirs = list(dict.fromkeys([*named, *BIN_DIRS]))
    if conf:
        return load_chain(conf, bin_dirs)
    return node_chain.for_probes(load_chain(CONF_FILE, bin_dirs), node_file.load())


def seconds(text: str) -> float:
    """Return the seconds in a time such as `90s`, `10m`, `1h` (a bare number is seconds). Raises UsageProblem."""
    units = {"s": 1, "m": 60, "h": 3600}
    number, factor = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    try:
        duration = float(number) * factor
    except ValueError:
        duration = -1
    if not 0 < duration < 1e9:
        raise UsageProblem(f"--for {text!r}: not a time such as 90s, 10m or 1h")
    return duration


def _addresses_of(text: str) -> list[str]:
    """Return the addresses that `--pod` names: one, or those of a pod of this node. Raises UsageProblem, Problem."""
    packed = pod_names.address_in(text)
    if packed:
        return [format_address(packed)]
    if text.strip("0123456789./") and ":" not in text:
        if os.geteuid() != 0:
            message = "cnictl test-connectivity needs root: it looks up the pods of this node"
            raise Problem(message, command_line.as_root())
        if known_as(text):
            return list(existing_pod(text).addresses)
        raise UsageProblem(
            f"--pod {text}: no pod of this node has this name; name a pod on another node by its address"
        )
    try:
        return [_canonical(text)]
    except AddressError as error:
        raise UsageProblem(str(error)) from None


def _canonical(text: str) -> str:
    return format_address(parse_address(text))


def _check_in_network(pods: Sequence[str], networks: Sequence[str]) -> None:
    """Refuse addresses of pods outside the pod networks. Raises UsageProblem."""
    for address in pods:
        if not any(parse_cidr(network).holds(parse_address(address)) for network in networks):
            named = " and ".join(networks)
            raise UsageProblem(f"--pod {address} is outside the pod network {named}; use --external for it")


def _check_no_gateway(pods: Sequence[str], pod_cidrs: Sequence[str]) -> None:
    """Refuse gateways named as pods: a gateway answers even if its node forwards nothing. Raises UsageProblem."""
    for cidr in pod_cidrs:
        if gateway_of(cidr) in map(_canonical, pods):
            raise UsageProblem(
                f"--pod {gateway_of(cidr)} is the gateway of {cidr}, not a pod: its answer proves no forwarding"
            )
