"""Check where the kernel sends pods' packets: policy rules, other tables, more specific routes."""

from collections.abc import Iterable, Sequence

from cnictl.core.cidr import format_address
from cnictl.core.counted import counted
from cnictl.doctor import echo
from cnictl.doctor.check import Check, Finding, HostFault, Remedy, command_action
from cnictl.doctor.facts import Facts
from cnictl.node import hint
from cnictl.node.host import pod_routes, route_lookup
from cnictl.node.host.pod_routes import Diversion
from cnictl.node.host.policy_rules import TO_TABLE, table_name
from cnictl.node.host.route_lookup import Packet
from cnictl.node.resources.bridge import gateways
from cnictl.node.spec.node_spec import by_family, is_ipv6, of_family

_NAMED = 3


def _diverted(facts: Facts) -> Iterable[HostFault]:
    """Report diverted packets. Packets to external addresses may use another table if an answer comes back."""
    if facts.spec is None:
        return
    for diversions in pod_routes.causes(facts.route_findings.diversions):
        lost = [diversion for diversion in diversions if diversion.certain or not _is_answered(facts, diversion)]
        if lost:
            rule = lost[0].rule
            subject = f"rule {rule.priority}" if rule is not None else lost[0].route.destination or "route"
            yield HostFault(subject, _message(lost), pod_routes.hint_for(lost), False)


def _message(diversions: Sequence[Diversion]) -> str:
    first = diversions[0]
    rule = first.rule
    table = f" (table {table_name(rule.table)})" if rule is not None and rule.action == TO_TABLE else ""
    packets = list(dict.fromkeys(diversion.packets for diversion in diversions))
    unnamed = (
        f" and {counted(len(packets) - _NAMED, 'more kind of packets', 'more kinds of packets')}"
        if packets[_NAMED:]
        else ""
    )
    return f"{', '.join(packets[:_NAMED])}{unnamed} {first.fate}, {first.by}{table}"


def _is_answered(facts: Facts, diversion: Diversion) -> bool:
    """Return whether an echo request on the diversion's route is answered.

    It is sent from the bridge's address if that takes the same route; otherwise through the route's link, and only if
    the route has no gateway.
    """
    if facts.spec is None:
        return False
    target = diversion.question.packet.target
    sources = [format_address(gateway.packed) for gateway in gateways(facts.spec)]
    for source in sources:
        if is_ipv6(source) == is_ipv6(target):
            same = (
                route_lookup.look_up(Packet(target, source, mark=diversion.question.packet.mark)).hops
                == diversion.route.hops
            )
            if same and not diversion.question.packet.mark:
                return echo.answers(target, source)
    return not diversion.route.gateway and echo.answers(target, diversion.route.dev)


def _unforwarded(facts: Facts) -> Iterable[HostFault]:
    for name in facts.route_findings.unforwarded:
        yield HostFault(
            name, "is 0: pods' packets that arrive on this link are not forwarded", pod_routes.switch_on(name)
        )


def _forward(facts: Facts, finding: Finding) -> Remedy:  # noqa: ARG001
    return Remedy(actions=(command_action(*pod_routes.switch_on(finding.subject).split()),))


def _without_default_route(facts: Facts) -> Iterable[HostFault]:
    """Report each family whose packets to the outside are masqueraded and have no route."""
    if facts.spec is None or not facts.spec.nat:
        return
    for node in by_family(facts.spec):
        target = of_family((*node.externals, *pod_routes.OUTSIDE), node.subnet)
        own = route_lookup.look_up(Packet(target))
        if not own.errno and own.kind == route_lookup.UNICAST:
            continue
        family = "IPv6" if is_ipv6(node.subnet) else "IPv4"
        yield HostFault(
            family,
            f"this host has no default route: pods can't reach hosts outside its own networks, such as {target}",
            hint.advice(
                f"ip {'-6 ' if is_ipv6(target) else ''}route add default via GATEWAY; on a host that is isolated on "
                "purpose: cnictl doctor --skip no-default-route",
                because="the host's own network configuration sets its routes to the outside",
            ),
        )


CHECKS = (
    Check(
        "link-forwarding", 1, "error", "net.ipv4.conf.LINK.forwarding of the bridge and of the links to other hosts",
        "The kernel forwards no packets from a link whose own setting is 0, whatever ip_forward is.",
        "sysctl net.ipv4.conf.cni0.forwarding\nsysctl -w net.ipv4.conf.cni0.forwarding=1",
        _unforwarded, _forward, ("forwarding", "forwarding-at-boot"),
    ),
    Check(
        "no-default-route", 34, "warning",
        "RTM_GETROUTE to an address outside the cluster, if node.toml says nat = true",
        "Setting a link down and up again deletes the default route, and nothing on the host adds it again by itself.",
        "ip route show default\nip route add default via 10.0.0.1", _without_default_route,
        behind=("uplink-down", "router-advertisements", "pod-routing"),
    ),
    Check(
        "pod-routing", 31, "error",
        "RTM_GETROUTE with a pod's source, the bridge as RTA_IIF and kube-proxy's mark, to each peer's pods and node "
        "and to outside hosts, and back; RTM_GETRULE; routes of every table inside a pod CIDR",
        "Policy rules come before the main table, and more specific routes before a peer's, so a VPN may divert pods' "
        "packets.",
        "ip rule; ip route get 10.244.1.2 from 10.244.0.2 iif cni0\n"
        "ip rule add to 10.244.0.0/20 lookup main priority 5269   # before the rule that diverts them",
        _diverted,
        behind=("forwarding", "link-forwarding", "bridge", "bridge-address", "uplink-down", "peer-link", "peer-route",
                "overlap"),
    ),
)  # fmt: skip
