"""`cnictl test-connectivity`: what a pod of this node reaches, and why not."""

import json
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Annotated

import typer
from rich.console import Console

from cnictl.cli.output import Format, OutputOption, print_json, print_table, say, working
from cnictl.cli.steps import require_root
from cnictl.core.cidr import AddressError, format_address, parse_address, parse_cidr
from cnictl.core.errors import Problem, UsageProblem
from cnictl.node.host import runtimes
from cnictl.node.spec import node_file, pod_names
from cnictl.node.spec.addressing import check, parse_list
from cnictl.node.spec.node_spec import NodeSpec, Peer, is_ipv6
from cnictl.node.spec.peers import parse_peer
from cnictl.probe import matrix, pods, trace
from cnictl.probe.chain import BIN_DIRS, CONF_FILE, Chain, load_chain
from cnictl.probe.checks import Report, run_checks
from cnictl.probe.existing import existing_pod, known_as, neighbour_of
from cnictl.probe.failure import gateway_of
from cnictl.probe.icmp import echo_socket
from cnictl.probe.pods import answer, probe_pods
from cnictl.probe.ports import SERVED_PORT, Listener
from cnictl.probe.targets import Wanted

_SERVED = "10m"


def test_connectivity(
    pod: Annotated[
        list[str] | None,
        typer.Option(
            metavar="IP|NAME|CONTAINER", help="A pod to ping, on another host by its address; may be repeated."
        ),
    ] = None,
    external: Annotated[
        list[str] | None, typer.Option(metavar="IP", help="Address outside the cluster to ping; one a family.")
    ] = None,
    source: Annotated[
        str, typer.Option("--from", metavar="IP|NAME|CONTAINER", help="Check from this pod, not from a probe pod.")
    ] = "",
    serve: Annotated[bool, typer.Option("--serve", help="Keep a pod up for another host to ping.")] = False,
    duration: Annotated[str, typer.Option("--for", metavar="TIME", help="How long to serve: 90s, 10m, 1h.")] = _SERVED,
    peer: Annotated[
        list[str] | None,
        typer.Option(metavar="CIDR=VIA", help="Check this peer too, though node.toml hasn't it; may be repeated."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=100, help="Echo requests a check.")] = 3,
    timeout: Annotated[float, typer.Option(min=0.05, max=60, help="Seconds to wait for each answer.")] = 1.0,
    conf: Annotated[str, typer.Option(metavar="FILE", help="The CNI conf to make probe pods by.")] = "",
    bin_dir: Annotated[
        list[str] | None, typer.Option(metavar="DIR", help="Where its plugins are; may be repeated.")
    ] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Ping from a pod to all that a pod should reach, and name the cause of each failure.

    Two short-lived pods are made through the installed plugin, as a runtime would, and taken away again. From the
    first, real ICMP echo goes to this host, the second pod, each peer's node address, a pod on each peer, and the
    outside, in each address family that the node has. Each failure is looked into: routes, forwarding, firewall,
    neighbours, masquerade, the peer's side; and the command that mends it is printed. Exit status 1 if any check
    fails.

    A pod on the other host has to be named, for its gateway answers even where its firewall drops what it forwards:

    \b
      other host$ cnictl test-connectivity --serve
      10.244.1.7
      this host$  cnictl test-connectivity --pod 10.244.1.7
      this host$  cnictl test-connectivity --from 10.244.0.12     # as an existing pod sees it
    """
    seconds = _seconds(duration)
    _check_together(serve, duration, {"--pod": pod, "--external": external, "--from": source, "--peer": peer})
    pods_named, externals = parse_list(pod or []), parse_list(external or [])
    spec, added = _spec(peer or [], externals)
    pods_named = tuple(address for text in pods_named for address in _addresses_of(text))
    _check_in_network(pods_named, spec.networks)
    _check_no_gateway(pods_named, [*spec.subnets, *(one.pod_cidr for one in (*spec.peers, *added))])
    require_root("test-connectivity", "enters the network namespaces of pods")
    for name in pods.sweep():
        say(f"cleaned up {name}, which an earlier run left")
    if serve:
        _serve(_chain(conf, bin_dir or []), seconds, output)
        return
    trace.clean()
    wanted = Wanted(count, timeout, tuple(map(_canonical, pods_named)), tuple(map(_canonical, externals)), added)
    report = _from_pod(spec, source, wanted) if source else _from_probe(spec, _chain(conf, bin_dir or []), wanted)
    if output is Format.JSON:
        print_json(report.as_json())
    else:
        _show(report)
    if report.overall == "failed":
        raise typer.Exit(1)


def _from_pod(spec: NodeSpec, text: str, wanted: Wanted) -> Report:
    pod = existing_pod(text)
    with working() as tell:
        return run_checks(spec, pod, neighbour_of(pod, spec.name), wanted, tell)


def _from_probe(spec: NodeSpec, chain: Chain, wanted: Wanted) -> Report:
    with working(f"making two pods through {' → '.join(chain.types)}") as tell:
        with probe_pods(chain, 2) as (first, second):
            report = run_checks(spec, first, second, wanted, tell)
            tell("taking the pods away")
        return report


def _serve(chain: Chain, seconds: float, output: Format) -> None:
    """Keep one pod up; its addresses on stdout at once, who pings it on stderr. Ends by time or signal, status 0."""
    try:
        with probe_pods(chain, 1) as (pod,), ExitStack() as stack:
            families = dict.fromkeys(map(is_ipv6, pod.addresses))
            ears = [stack.enter_context(echo_socket(pod.netns, ipv6)) for ipv6 in families]
            listeners = [Listener(pod.netns, address, SERVED_PORT) for address in pod.addresses]
            for listener in listeners:
                stack.callback(listener.close)
            both = {"address": pod.address, "addresses": list(pod.addresses)}
            as_json = {**both, "pod": pod.name, "netns": pod.netns, "seconds": seconds}
            print(json.dumps(as_json) if output is Format.JSON else "\n".join(pod.addresses), flush=True)
            say(f"pod {' '.join(pod.addresses)} answers for {seconds:g} s; Ctrl-C ends it")
            for source in answer(pod, seconds, ears, listeners):
                say(f"pinged by {source}")
    except KeyboardInterrupt:
        return


def _chain(conf: str, bin_dirs: list[str]) -> Chain:
    if not bin_dirs:
        named = [folder for runtime in runtimes.find() for folder in runtime.bin_dirs]
        bin_dirs = list(dict.fromkeys([*named, *BIN_DIRS]))
    return load_chain(conf or CONF_FILE, bin_dirs)


def _spec(peers: list[str], externals: tuple[str, ...]) -> tuple[NodeSpec, tuple[Peer, ...]]:
    """This node's spec, and those of `peers` that it does not name. Raises UsageProblem, for `externals` too."""
    spec = node_file.load()
    if spec is None:
        raise Problem("this host is no node yet: there is no /etc/cnictl/node.toml", "cnictl init-node")
    added = tuple(one for one in map(parse_peer, peers) if one not in spec.peers)
    check(replace(spec, peers=spec.peers + added, externals=externals))
    return check(spec), added


def _addresses_of(text: str) -> list[str]:
    """The addresses that `--pod` names: one, or those of a pod of this node. Raises UsageProblem, Problem."""
    packed = pod_names.address_in(text)
    if packed:
        return [format_address(packed)]
    if text.strip("0123456789./") and ":" not in text:
        require_root("test-connectivity", "looks up the pods of this node")
        if known_as(text):
            return list(existing_pod(text).addresses)
        raise UsageProblem(f"--pod {text}: no pod of this node is called so; name one elsewhere by its address")
    try:
        return [format_address(parse_address(text))]
    except AddressError as error:
        raise UsageProblem(str(error)) from None


def _canonical(text: str) -> str:
    return format_address(parse_address(text))


def _check_in_network(pods: Sequence[str], networks: Sequence[str]) -> None:
    """Refuse as a pod what lies outside the pod networks. Raises UsageProblem."""
    for address in pods:
        if not any(parse_cidr(network).holds(parse_address(address)) for network in networks):
            named = " and ".join(networks)
            raise UsageProblem(f"--pod {address} lies outside the pod network {named}; for others: --external")


def _check_no_gateway(pods: Sequence[str], pod_cidrs: list[str]) -> None:
    """Refuse a gateway named as a pod: it answers where no pod is reached. Raises UsageProblem."""
    for cidr in pod_cidrs:
        if gateway_of(cidr) in map(_canonical, pods):
            raise UsageProblem(
                f"--pod {gateway_of(cidr)} is the gateway of {cidr}, no pod: it answers where nothing is forwarded"
            )


def _check_together(serve: bool, duration: str, of_checks: dict[str, object]) -> None:
    """Refuse options that the run would pass over in silence. Raises UsageProblem."""
    given = [option for option, value in of_checks.items() if value]
    if serve and given:
        raise UsageProblem(f"--serve keeps a pod up and checks nothing: it has no use for {', '.join(given)}")
    if not serve and duration != _SERVED:
        raise UsageProblem("--for says how long to --serve, and --serve is not given")


def _seconds(text: str) -> float:
    """A time such as `90s`, `10m`, `1h` (a bare number is seconds). Raises UsageProblem."""
    units = {"s": 1, "m": 60, "h": 3600}
    number, factor = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    try:
        seconds = float(number) * factor
    except ValueError:
        seconds = -1
    if not 0 < seconds < 1e9:
        raise UsageProblem(f"--for {text!r}: not a time such as 90s, 10m or 1h")
    return seconds


def _show(report: Report) -> None:
    if not sys.stdout.isatty():
        columns, rows = matrix.lines(report)
        print_table(columns, rows)
        return

    Console().print(matrix.matrix([(socket.gethostname(), report)]))
