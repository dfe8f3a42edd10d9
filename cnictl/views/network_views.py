"""Collect what `bridge show` and `nat show` print: the state of the kernel, with its meaning for the node."""

import re
from collections.abc import Sequence
from typing import Any

from cnictl.core.bridge import has_bridge_netfilter
from cnictl.core.cidr import Cidr
from cnictl.core.counted import first_of
from cnictl.core.errors import Problem
from cnictl.core.masquerade import rule_set
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Netlink
from cnictl.core.process import run
from cnictl.node.addresses import lease_list
from cnictl.node.addresses.lease_list import Row
from cnictl.node.host import firewall
from cnictl.node.resources.bridge import OWNER_MARK, Address, Bridge
from cnictl.node.resources.bridge_netfilter import BridgeNetfilter
from cnictl.node.resources.masquerade import Masquerade
from cnictl.node.spec.node_spec import NodeSpec, by_family, is_ipv6
from cnictl.node.spec.peers import is_link_local
from cnictl.node.spine import Plan

_COUNTED = re.compile(r"^-A .* -c (\d+) (\d+) ")


def bridge(spec: NodeSpec, rows: Sequence[Row] = ()) -> dict[str, Any] | None:
    """Return the bridge and its ports; None if the link does not exist. `rows` tell which pod a port belongs to."""
    with Netlink() as netlink:
        link = rtnetlink.get_link(netlink, spec.bridge)
        if link is None:
            return None
        ports = [other for other in rtnetlink.all_links(netlink) if other.master == link.index]
        cidrs = [Cidr(*address) for address in rtnetlink.addresses(netlink, link.index)]
        addresses = [str(cidr) for cidr in cidrs if not is_link_local(cidr.packed)]
    by_veth: dict[str, list[Row]] = {}
    for row in rows:
        by_veth.setdefault(row.host_veth, []).append(row)
    netfilter = BridgeNetfilter(spec).observe()
    return {
        "name": link.name,
        "kind": link.kind,
        "up": link.up,
        "mac": link.mac,
        "mtu": link.mtu,
        "addresses": addresses,
        "made_by": "cnictl" if link.alias.startswith(OWNER_MARK) else "another (adopted, kept at a reset)",
        "iptables_sees_bridged": bool(netfilter and netfilter["nf_call_iptables"]) if has_bridge_netfilter() else None,
        "ports": [_port(port, by_veth.get(port.name, [])) for port in ports],
    }


def mtu_note(spec: NodeSpec, done: Plan) -> str:
    """Return a note that names the pods whose MTU exceeds the bridge's after a run lowered it; empty if none."""
    change = next((change for change in done.changes if change.resource == f"bridge/{spec.bridge}"), None)
    if change is None or not change.before or not change.after or change.before["mtu"] <= change.after["mtu"]:
        return ""
    shown = bridge(spec, lease_list.listing_of(spec.name, spec).rows)
    ports = shown["ports"] if shown is not None else []
    pods = [str(port["pod"] or port["name"]) for port in ports if shown is not None and port["mtu"] > shown["mtu"]]
    if not pods:
        return ""
    return (
        f"the pods' MTU is now {change.after['mtu']}; restart the pods that still have a larger MTU: "
        f"{first_of(pods, 10)}"
    )


def bridge_faults(spec: NodeSpec) -> list[str]:
    """Return how the bridge differs from the spec, in words, or why it could not be read."""
    faults = []
    for resource in (Bridge(spec), Address(spec)):
        try:
            now, wanted = resource.observe(), resource.desired(spec)
        except (Problem, OSError) as problem:
            faults.append(f"{resource.id} could not be checked: {problem}")
            continue
        if now is not None and now.get("kind", "bridge") != "bridge":
            kind = now["kind"] or "plain device"
            faults.append(f"{spec.bridge} is a {kind}, not a bridge: remove or rename that link, then: cnictl apply")
            return faults
        if now != wanted:
            faults.append(
                f"{resource.id} differs from the node file: cnictl plan shows the difference, cnictl apply repairs it"
            )
    return faults


def _port(link: rtnetlink.Link, rows: list[Row]) -> dict[str, Any]:
    """Return a port and its pod. `rows` are the port's addresses.

    A pod without a name is shown as the beginning of its container's id.
    """
    return {
        "name": link.name,
        "up": link.operstate == 6,  # IF_OPER_UP, RFC 2863
        "mtu": link.mtu,
        "pod": (rows[0].pod or rows[0].container[:13]) if rows else "",
        "addresses": [row.address for row in rows if row.address],
    }


def nat(spec: NodeSpec) -> list[dict[str, Any]]:
    """Return each rule of the masquerade rule set in evaluation order, with its counters."""
    rules = []
    if firewall.has_command("nft"):
        rules += _nft_rules(spec)
    if firewall.has_command("iptables"):
        rules += _iptables_rules(spec)
    return rules


def nat_is_right(spec: NodeSpec) -> bool:
    """Return whether the masquerade rules match the spec."""
    resource = Masquerade(spec)
    return resource.observe() == resource.desired(spec)


def _nft_rules(spec: NodeSpec) -> list[dict[str, Any]]:
    owner, rules = f"cnictl:{spec.name} ", []
    for entry in firewall.ruleset():
        rule = entry.get("rule", {})
        if (rule.get("family"), rule.get("table")) != ("inet", rule_set.TABLE):
            continue
        if not str(rule.get("comment", "")).startswith(owner):
            continue
        counter: dict[str, int] = next((part["counter"] for part in rule["expr"] if "counter" in part), {})
        keeps = rule["chain"].startswith("identity")
        six = _is_ipv6_rule(rule)
        own = next((part for part in by_family(spec) if is_ipv6(part.subnet) == six), spec)
        rules.append(
            {
                "backend": "nft",
                "where": f"inet {rule_set.TABLE} {rule['chain']}",
                "source": own.subnet,
                "destination": f"{own.network} without {own.subnet}" if keeps else f"all but {own.network}",
                "effect": "pods of other nodes see the pod's own address" if keeps else "others see the node's address",
                "packets": counter.get("packets", 0),
                "bytes": counter.get("bytes", 0),
            }
        )
    return rules


def _is_ipv6_rule(rule: dict[str, Any]) -> bool:
    """Return whether a rule of the `inet` table matches IPv6 addresses."""
    matches = [part["match"]["left"] for part in rule["expr"] if "match" in part]
    return any(
        left["payload"].get("protocol") == "ip6" for left in matches if isinstance(left, dict) and "payload" in left
    )


_IPTABLES_EFFECTS = {
    "MASQUERADE": "others see the node's address",
    "NETMAP": "pods of other nodes see the pod's own address",
    "RETURN": "left alone",
}


def _iptables_rules(spec: NodeSpec) -> list[dict[str, Any]]:
    rules = []
    for part in by_family(spec):
        program = "ip6tables" if is_ipv6(part.subnet) else "iptables"
        if firewall.has_command(program):
            rules += _iptables_rules_of(part, program)
    return rules


def _iptables_rules_of(spec: NodeSpec, program: str) -> list[dict[str, Any]]:
    rules, chain = [], rule_set.chain(spec.name)
    for line in run([program, "-w", "-t", "nat", "-v", "-S", chain], check=False).stdout.splitlines():
        counted = _COUNTED.search(line)  # only this chain: iptables can't list a table with a native nft rule
        if counted is None:
            continue
        words = line.split()
        target = words[words.index("-j") + 1]
        destination = words[words.index("-d") + 1] if "-d" in words else "all else"
        if "--dst-type" in words:
            destination = "the node itself"
        if "--mark" in words:
            destination += " marked for masquerade by kube-proxy or portmap"
        rules.append(
            {
                "backend": "iptables",
                "where": f"nat {chain}",
                "source": spec.subnet,
                "destination": destination,
                "effect": _IPTABLES_EFFECTS.get(target, target),
                "packets": int(counted[1]),
                "bytes": int(counted[2]),
            }
        )
    return rules
