"""Check the firewall rules of other programs that affect pods' packets."""

import glob
import re
import socket
from collections.abc import Iterable

from cnictl.core import attachments
from cnictl.core.cidr import Cidr, format_address, parse_address, parse_cidr
from cnictl.core.leases.lease import folder_networks
from cnictl.core.leases.lease_store import Store
from cnictl.core.netlink import conntrack
from cnictl.core.paths import NETWORKS_DIR
from cnictl.doctor.check import Action, Check, Finding, HostFault, Remedy, command_action
from cnictl.doctor.facts import Facts, per_cpu
from cnictl.node import hint
from cnictl.node.host import connections, own_host
from cnictl.node.host.verdicts import model
from cnictl.node.resources import forward_off
from cnictl.node.spec.node_spec import NodeSpec, by_family, is_ipv6
from cnictl.probe.failure import gateway_of

_CHAIN_OWNER = re.compile(r'name: "(?P<name>[^"]*)" id: "(?P<id>[^"]+)"')
_SOURCE_NAT = ("MASQUERADE", "SNAT")
_HINTS = {
    forward_off.SWITCHED_OFF: hint.command("cnictl init-node --forward", "or let that firewall accept them"),
    forward_off.OWNED: hint.advice(
        "have the program that owns the table accept them", because="nobody else can change its table"
    ),
}


def _forward_off(facts: Facts) -> Iterable[HostFault]:
    """Report drops that cnictl does not fix: `forward` is false, or only the table's owner may change it."""
    spec = facts.spec
    if spec is None:
        return
    for chain, drop, why in forward_off.dropped(spec):
        yield HostFault(chain, f"drops pods' packets ({drop}), and {why}", _HINTS[why])


def _own_host(facts: Facts) -> Iterable[HostFault]:
    """Report rules that drop all packets between pods and their own node, whatever the port."""
    for drop in own_host.dropped(facts.spec) if facts.spec is not None else ():
        if not drop.chosen:
            yield HostFault(drop.chain, drop.words, drop.allow)


def _remnant_chains(facts: Facts) -> Iterable[HostFault]:
    """Report masquerade chains left behind for this node's pod addresses; skip chains of other networks."""
    spec = facts.spec
    if spec is None:
        return
    holders = {record.container for record in facts.records}
    for network in {*folder_networks(NETWORKS_DIR), *attachments.networks()}:
        holders |= {lease.container for lease in Store(network).all()}
    for node in by_family(spec):
        family = "ip6" if is_ipv6(node.subnet) else "ip"
        for words in facts.rules("nat", family):
            named = _CHAIN_OWNER.search(" ".join(words))
            if words[:2] != ["-A", "POSTROUTING"] or named is None or not words[-1].startswith("CNI-"):
                continue
            source = _option(words, "-s")
            if source and _subnet(source).overlaps(_subnet(node.subnet)) and not _is_known(named["id"], holders):
                yield HostFault(
                    words[-1],
                    f"masquerades {source} for container {named['id'][:12]} of {named['name']}, which is gone: the "
                    "next pod with this address is masqueraded too",
                    hint.command("; ".join(action.command for action in _removal(family, words))),
                )


def _is_known(container: str, holders: set[str]) -> bool:
    """Return whether a container holds a lease, or its runtime keeps the result of its ADD (libcni's cache)."""
    cached = (glob.glob(f"/var/lib/cni/{folder}/*{glob.escape(container)}*") for folder in ("results", "cache/results"))
    return container in holders or any(cached)


def _removal(family: str, words: list[str]) -> tuple[Action, ...]:
    program, chain = ("iptables" if family == "ip" else "ip6tables"), words[-1]
    return (
        command_action(program, "-w", "-t", "nat", "-D", *words[1:]),
        command_action(program, "-w", "-t", "nat", "-F", chain),
        command_action(program, "-w", "-t", "nat", "-X", chain),
    )


def _remove_remnant_chain(facts: Facts, finding: Finding) -> Remedy:
    for family in ("ip", "ip6"):
        for words in facts.rules("nat", family):
            if words[:2] == ["-A", "POSTROUTING"] and words[-1] == finding.subject:
                return Remedy(actions=_removal(family, words))
    return Remedy()


def _option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1] if name in words else ""


def _pods_masqueraded(facts: Facts) -> Iterable[HostFault]:
    """Report rules that masquerade pod-to-pod packets. With `nat`, cnictl's rules come first and keep the source."""
    spec = facts.spec
    if spec is None or spec.nat:
        return
    for node in by_family(spec):
        family = "ip6" if is_ipv6(node.subnet) else "ip"
        for words in facts.rules("nat", family):
            if words[:2] != ["-A", "POSTROUTING"] or _option(words, "-j") not in _SOURCE_NAT:
                continue
            if _covers(words, node) and not _returned_before(facts.rules("nat", family), words, node):
                program = "ip6tables" if family == "ip6" else "iptables"
                yield HostFault(
                    f"{program} nat: {' '.join(words[1:])}",
                    "masquerades packets to pods of other nodes: they see this node's address instead of the pod's",
                    hint.command(_keep_source(node, _position(facts, family, words)).command),
                )


def _is_of_pods(words: list[str], node: NodeSpec) -> bool:
    """Return whether a rule may match packets from pods."""
    source = _option(words, "-s")
    return not source or _subnet(source).overlaps(_subnet(node.subnet))


def _covers(words: list[str], node: NodeSpec) -> bool:
    """Return whether a rule matches packets from pods to other nodes' pods."""
    out = _option(words, "-o")
    if not _is_of_pods(words, node):
        return False
    negated_destination = "-d" in words and words[words.index("-d") - 1] == "!"
    destination = _option(words, "-d")
    if negated_destination and _subnet(destination).covers(_subnet(node.network)):
        return False
    if destination and not negated_destination and not _subnet(destination).overlaps(_subnet(node.network)):
        return False
    return not (out == node.bridge and words[words.index("-o") - 1] != "!") and "--mark" not in words


def _returned_before(rules: list[list[str]], rule: list[str], node: NodeSpec) -> bool:
    for words in rules:
        if words == rule:
            return False
        left_alone = words[:2] == ["-A", "POSTROUTING"] and _option(words, "-j") in ("RETURN", "ACCEPT")
        if left_alone and (_option(words, "-s"), _option(words, "-d")) == (node.subnet, node.network):
            return True
    return False


def _subnet(text: str) -> Cidr:
    """Return the subnet of a rule's `-s` or `-d`; all addresses if the mask is not a prefix length."""
    return model.network(text) or Cidr(bytes(16 if ":" in text else 4), 0)


def _position(facts: Facts, family: str, rule: list[str]) -> int:
    """Return the number of a rule in POSTROUTING, as `iptables -I` takes it."""
    return [words for words in facts.rules("nat", family) if words[:2] == ["-A", "POSTROUTING"]].index(rule) + 1


def _keep_source(node: NodeSpec, position: int) -> Action:
    """Return the step that excludes pod-to-pod packets from the rule at `position`, after the rules before it."""
    program = "ip6tables" if is_ipv6(node.subnet) else "iptables"
    mark = ("-m", "comment", "--comment", f"cnictl:{node.name}", "-j", "RETURN")
    where = ("-I", "POSTROUTING", str(position))
    return command_action(program, "-w", "-t", "nat", *where, "-s", node.subnet, "-d", node.network, *mark)


def _keep_sources(facts: Facts, finding: Finding) -> Remedy:
    if facts.spec is None:
        return Remedy()
    program, _, rule = finding.subject.partition(" nat: ")
    family = "ip6" if program == "ip6tables" else "ip"
    named = [words for words in facts.rules("nat", family) if " ".join(words[1:]) == rule]
    nodes = [node for node in by_family(facts.spec) if is_ipv6(node.subnet) == (family == "ip6")]
    return Remedy(
        actions=tuple(_keep_source(node, _position(facts, family, words)) for node in nodes for words in named[:1])
    )


def _port_race(facts: Facts) -> Iterable[HostFault]:
    failed = per_cpu("/proc/net/stat/nf_conntrack").get("insert_failed", 0)
    if facts.spec is None or not failed:
        return
    for node in by_family(facts.spec):
        family = "ip6" if is_ipv6(node.subnet) else "ip"
        for words in facts.rules("nat", family):
            if _option(words, "-j") == "MASQUERADE" and "--random-fully" not in words and _is_of_pods(words, node):
                yield HostFault(
                    " ".join(words[1:]),
                    f"assigns source ports in order: {failed} connections failed because two got the same port",
                    hint.advice(
                        "add --random-fully to that rule, or leave the masquerade to cnictl: cnictl nat enable",
                        because="the rule belongs to the program that made it, which would add it again",
                    ),
                    False,
                )


def _stale_connections(facts: Facts) -> Iterable[HostFault]:
    for address in sorted(_unleased(facts)):
        six = "-f ipv6 " if is_ipv6(address) else ""
        yield HostFault(
            address,
            "the kernel tracks connections to it, but no pod has this address: packets of old flows are lost",
            hint.command("cnictl doctor --fix --only stale-connection", f"or: conntrack -D {six}-r {address}"),
        )


def _unleased(facts: Facts) -> set[str]:
    """Return addresses of the pod subnets that tracked connections lead to and that no pod has."""
    spec = facts.spec
    if spec is None:
        return set()
    subnets = [parse_cidr(subnet) for subnet in spec.subnets]
    held = {str(lease.address) for lease in Store(spec.name).all()}
    held |= {address for record in facts.records for address in record.addresses} | set(map(gateway_of, spec.subnets))
    # NAT forwards these flows: the address that answers is not the one that the request was sent to
    udp = [flow for flow in connections.connections(sent_on=True) if flow.protocol == socket.IPPROTO_UDP]
    answering = {flow.answering for flow in udp if flow.answering and flow.answering != flow.target}
    of_pods = {format_address(packed) for packed in answering if any(subnet.holds(packed) for subnet in subnets)}
    return of_pods - held


def _forget(facts: Facts, finding: Finding) -> Remedy:  # noqa: ARG001
    packed = parse_address(finding.subject)
    return Remedy(actions=(Action(f"conntrack -D -r {finding.subject}", lambda: conntrack.forget([packed])),))


CHECKS = (
    Check(
        "forward-off", 9, "error",
        "base chains at forward (nftables, iptables) if node.toml says forward = false; tables with owners",
        "If cnictl adds no accept rules, the host's own rules have to accept pods' packets.",
        "nft -a list ruleset; iptables -S FORWARD\n"
        "sed -i 's/^forward = false/forward = true/' /etc/cnictl/node.toml; cnictl apply",
        _forward_off,
    ),
    Check(
        "own-host", 9, "error",
        "base chains at prerouting, input and output (nftables, iptables INPUT and OUTPUT): TCP and UDP of pods' "
        "addresses on the bridge",
        "Pods use DNS, published ports and agents on their node, and the node probes its pods. A ping tests none of "
        "these.",
        "iptables -S INPUT; nft -a list ruleset | grep -A8 'hook input'\n"
        "iptables -I INPUT -i cni0 -s 10.244.0.0/24 -j ACCEPT",
        _own_host,
    ),
    Check(
        "leaked-chain", 13, "error",
        "iptables -t nat -S POSTROUTING: chains CNI-… whose comment names a container that holds no lease",
        "After a late DEL, the reference plugin's masquerade chain remains and affects the address's next pod.",
        "iptables -t nat -S POSTROUTING | grep CNI-\n"
        "iptables -t nat -D POSTROUTING …; iptables -t nat -F CNI-…; iptables -t nat -X CNI-…",
        _remnant_chains, _remove_remnant_chain,
    ),
    Check(
        "pods-masqueraded", 14, "error",
        "iptables -t nat -S POSTROUTING: MASQUERADE or SNAT that matches pod network to pod network",
        "Pods of different nodes have to see each other's own addresses.",
        "iptables -t nat -S POSTROUTING\n"
        "iptables -t nat -I POSTROUTING 1 -s 10.244.0.0/24 -d 10.244.0.0/20 -j RETURN   # 1: the number of that rule",
        _pods_masqueraded, _keep_sources, ("leaked-chain",),
    ),
    Check(
        "port-race", 16, "warning",
        "insert_failed in /proc/net/stat/nf_conntrack; MASQUERADE rules for pods without --random-fully",
        "If two connections take the same source port at the same moment, the first packet of the second is dropped.",
        "conntrack -S | grep insert_failed\niptables -t nat -S POSTROUTING | grep MASQUERADE",
        _port_race,
    ),
    Check(
        "stale-connection", 17, "warning",
        "tracked UDP flows (ctnetlink) that NAT sends to an address of the pod subnet without a lease",
        "A UDP flow to a host port or Service stays bound to the old pod as long as packets arrive.",
        "conntrack -L -r 10.244.0.7\nconntrack -D -r 10.244.0.7",
        _stale_connections, _forget,
    ),
)  # fmt: skip
