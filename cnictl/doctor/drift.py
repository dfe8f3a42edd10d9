"""Report differences between the node and its node file. The spine's plan finds them, and applying it fixes them."""

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

from cnictl.core.errors import Problem
from cnictl.doctor.check import Check, Finding, HostFault, Remedy, Severity
from cnictl.doctor.facts import Facts
from cnictl.node import hint
from cnictl.node.resources import placed_rules
from cnictl.node.resources.forward import FilterTable, IptablesForward
from cnictl.node.spine import Change, Plan


class _Part(NamedTuple):
    id: str
    row: int
    severity: Severity
    resources: tuple[str, ...]
    """The ids of the part's resources, or prefixes of ids."""
    wrong: str
    """What a difference in the part means."""
    looks_at: str
    why: str
    by_hand: str
    behind: tuple[str, ...] = ()


_PARTS = (
    _Part(
        "forwarding", 1, "error", ("sysctl/net.ipv4.ip_forward", "sysctl/net.ipv6.conf.all.forwarding"),
        "forwarding is off", "/proc/sys/net/ipv4/ip_forward, /proc/sys/net/ipv6/conf/all/forwarding",
        "A host that doesn't forward drops everything between its pods and other hosts.",
        "sysctl net.ipv4.ip_forward          # 0: off\nsysctl -w net.ipv4.ip_forward=1",
        ("forwarding-at-boot",),
    ),
    _Part(
        "sysctl-file", 1, "warning", ("file/etc/sysctl.d/",),
        "forwarding would be off after a reboot", "/etc/sysctl.d/99-cnictl.conf",
        "A setting that is only in the kernel is lost at the next boot.",
        "cat /etc/sysctl.d/99-cnictl.conf\ncnictl apply",
    ),
    _Part(
        "bridge-hooks", 3, "error", ("netfilter/",),
        "bridged packets bypass iptables", "IFLA_BR_NF_CALL_IPTABLES of the bridge, /proc/sys/net/bridge/",
        "A pod that reaches a Service whose endpoint is on its own node gets replies from an unexpected address.",
        "ip -d link show cni0 | grep -o 'nf_call_iptables .'\nip link set cni0 type bridge nf_call_iptables 1",
        ("bridge",),
    ),
    _Part(
        "router-advertisements", 5, "error", ("sysctl/net.ipv6.accept_ra",),
        "the host forwards packets, so it ignores the router that announced its default route",
        "net.ipv6.conf.UPLINK.accept_ra, routes of protocol ra",
        "With forwarding on, the kernel drops the default route that a router announced unless accept_ra is 2.",
        "ip -6 route show proto ra\nsysctl net.ipv6.conf.eth0.accept_ra\nsysctl -w net.ipv6.conf.eth0.accept_ra=2",
    ),
    _Part(
        "two-iptables", 12, "error", ("forward/iptables-legacy", "forward/ip6tables-legacy"),
        "iptables-legacy drops pods' packets",
        "/proc/net/ip_tables_names; iptables-legacy -S FORWARD",
        "Each packet passes both kinds of iptables, and an accept rule in one does not help in the other.",
        "iptables-legacy -S FORWARD; iptables-nft -S FORWARD\n"
        "iptables-legacy -A FORWARD -s 10.244.0.0/24 -i cni0 -j ACCEPT",
    ),
    _Part(
        "forward-drop", 9, "error", ("forward/iptables", "forward/ip6tables"),
        "no rule accepts pods' packets before FORWARD drops them",
        "iptables -S FORWARD, DOCKER-USER and CNICTL-FORWARD",
        "Docker, firewalld and ufw drop forwarded packets, and an accept rule helps only in the chain that drops them.",
        "iptables -S FORWARD                # policy DROP, or a rule that drops all of pods' packets\n"
        "iptables -A FORWARD -j CNICTL-FORWARD   # or -I, directly before that rule",
    ),
    _Part(
        "forward-drop-nft", 4, "error", ("forward/nft",),
        "a chain drops pods' packets", "nft -j list ruleset: base chains hooked at forward, families inet, ip, bridge",
        "Packets traverse every base chain at forward, and a drop in one is final, even between two pods of a node.",
        "nft -a list ruleset | grep -B3 -A8 'hook forward'\n"
        "nft add rule inet filter forward iifname cni0 accept   # policy drop; else: nft insert rule … handle …",
        ("firewalld",),
    ),
    _Part(
        "firewalld", 10, "error", ("firewalld/",),
        "firewalld does not trust pods", "firewall-cmd --get-active-zones; cnictl.xml, cnictl-pods.xml",
        "firewalld rejects what no zone accepts, and each reload removes other programs' accept rules.",
        "firewall-cmd --get-active-zones\nfirewall-cmd --zone=trusted --change-interface=cni0\ncnictl apply",
    ),
    _Part(
        "masquerade", 15, "error", ("masquerade/",),
        "pods' packets leave with the pod's own address, so replies can't return",
        "table inet cnictl, or CNICTL- chains",
        "Hosts outside the cluster have no route back to a pod's address.",
        "nft list table inet cnictl         # is missing, or has other rules\ncnictl nat enable",
    ),
    _Part(
        "bridge", 19, "error", ("bridge/",),
        "the bridge is missing, down or misconfigured",
        "IFLA_INFO_KIND, IFF_UP, IFLA_MTU of the bridge; /sys/class/net/cni0/addr_assign_type (3: fixed MAC)",
        "All pods' traffic passes through the bridge, and pods know their gateway by its MAC.",
        "ip -d link show cni0; cat /sys/class/net/cni0/addr_assign_type\ncnictl bridge up",
    ),
    _Part(
        "bridge-ipv6", 19, "error", ("sysctl/net.ipv6.conf.",),
        "the bridge's IPv6 is off or misconfigured", "net.ipv6.conf.cni0.disable_ipv6, accept_ra",
        "Without IPv6 on the bridge no pod has an IPv6 gateway.",
        "sysctl net.ipv6.conf.cni0.disable_ipv6\ncnictl bridge up", ("bridge",),
    ),
    _Part(
        "bridge-address", 18, "error", ("address/",),
        "the bridge does not have the pods' gateway address", "RTM_GETADDR of the bridge",
        "Pods send to the gateway address; if no link has it, no packet leaves the node.",
        "ip address show dev cni0\nip address add 10.244.0.1/24 broadcast + dev cni0", ("bridge", "bridge-ipv6"),
    ),
    _Part(
        "port-off", 23, "error", ("ports/",),
        "pods are cut off", "IFLA_MASTER and IFF_UP of each attachment's host veth",
        "A pod whose port is down or not on the bridge reaches nothing, and nothing in the pod shows why.",
        "ip -br link show type veth; bridge link\nip link set veth1a2b3c4d5e6 master cni0 up", ("bridge",),
    ),
    _Part(
        "stale-route", 32, "warning", (), "a cnictl route leads to no peer's pods",
        "RTM_GETROUTE, protocol 67, against the peers in node.toml",
        "A route that outlives its peer misdirects packets for the next owner of that pod CIDR.",
        "ip route show proto 67\nip route del 10.244.9.0/24 proto 67",
    ),
    _Part(
        "peer-route", 31, "error", ("route/", "routes/"), "the route to a peer's pods is missing or wrong",
        "RTM_GETROUTE of each peer's pod CIDR in the main table",
        "Without this route, pods' packets to the peer's pods take the default route and are lost.",
        "ip route show 10.244.1.0/24\nip route add 10.244.1.0/24 via 10.0.10.51 proto 67",
        ("peer-link", "uplink-down"),
    ),
    _Part(
        "plugin", 41, "error", ("plugin",), "the plugin that runtimes call is missing, broken or has another version",
        "each runtime's bin dir, the version the launcher starts, and the one that node.toml names",
        "Without the plugin, no pod can start or stop.",
        "cnictl plugin list\ncnictl apply             # puts the chosen version into use", ("runtime-folders",),
    ),
    _Part(
        "cni-conf", 40, "error", ("cni-conf",), "the conf that makes runtimes call the plugin is missing or changed",
        "10-cnictl.conflist in each runtime's conf dir",
        "Without this conf, the node is not ready, or pods get no network.",
        "ls /etc/cni/net.d\ncnictl apply", ("runtime-folders",),
    ),
    _Part(
        "network-manager", 20, "warning", ("file/etc/NetworkManager/",),
        "NetworkManager would change the bridge and its ports", "/etc/NetworkManager/conf.d/99-cnictl.conf",
        "NetworkManager changes the configuration of every link that it manages.",
        "nmcli device                       # the bridge and veths are not `unmanaged`\ncnictl apply",
    ),
    _Part(
        "networkd-links", 21, "warning", ("file/etc/systemd/network/00-cnictl.network",),
        "systemd-networkd would change the bridge and its ports if any .network file matches them",
        "/etc/systemd/network/00-cnictl.network",
        "A .network file for `*` removes host veths from the bridge, and the bridge's address.",
        "networkctl                         # the bridge and veths are not `unmanaged`\ncnictl apply",
    ),
    _Part(
        "networkd-routes", 21, "warning", ("file/etc/systemd/networkd.conf.d/", "file/etc/systemd/network/"),
        "systemd-networkd would delete the routes to peers when it restarts",
        "/etc/systemd/networkd.conf.d/99-cnictl.conf, 99-cnictl.conf beside the .network file of the links to peers",
        "When systemd-networkd starts, it deletes other programs' routes, directly or by removing a link's addresses.",
        "networkctl status eth0; ip route show proto 67\ncnictl apply",
    ),
    _Part(
        "boot-unit", 1, "warning", ("boot/", "program/"), "the node would not come back after a reboot",
        "/etc/systemd/system/cnictl.service, whether it is enabled, and the copy of cnictl that it starts",
        "A reboot removes the bridge, routes and rules.", "systemctl status cnictl\ncnictl apply",
    ),
)  # fmt: skip


def _part_of(change: Change) -> str:
    """Return the id of the part that a difference belongs to."""
    if change.resource.startswith("route/") and change.after is None:
        return "stale-route"
    return _part_of_resource(change.resource)


def _part_of_resource(resource: str) -> str:
    return next((part.id for part in _PARTS for prefix in part.resources if resource.startswith(prefix)), "")


def harmless(facts: Facts) -> list[Change]:
    """Return the differences that no check reports: they cut off no pod now, but `status` calls them drift.

    Empty if the node could not be compared; then the checks could not run either, and say so.
    """
    try:
        return [change for change in facts.drift if not _part_of(change) or not _counts(facts, change)]
    except (Problem, OSError):
        return []


def _find(part: _Part, facts: Facts) -> Iterable[HostFault]:
    unknown = tuple(step for step in facts.unknown if _part_of_resource(step.resource.id) == part.id)
    Plan(unknown).refuse_unknown()
    for change in facts.drift:
        if _part_of(change) != part.id or not _counts(facts, change):
            continue
        wrong = _TOO_EARLY if _is_ahead(change) else part.wrong
        yield HostFault(change.resource, f"{wrong}: {change.summary}", hint.command("cnictl apply"))


_FORWARD = ("forward-drop", "two-iptables")
_TOO_EARLY = "cnictl's accept rule comes before another program's drop rule and bypasses it"


def _is_ahead(change: Change) -> bool:
    """Return whether one of cnictl's rules comes before another program's drop of particular packets."""
    return change.resource.startswith("forward/") and placed_rules.any_ahead(change.before or {})


def _counts(facts: Facts, change: Change) -> bool:
    """Return whether a difference affects packets; a missing jump does not if nothing drops packets.

    The current rules are read, because other programs may have rewritten them since the difference was found.
    """
    if _part_of(change) not in _FORWARD:
        return True
    program = change.resource.removeprefix("forward/")
    family = "ip6" if program.startswith("ip6") else "ip"
    resource = IptablesForward(family, facts.spec, program.endswith("-legacy"))
    if facts.spec is None or _is_ahead(change) or not resource.works():
        return True
    return bool(FilterTable(resource.program, family, facts.spec).fresh_needs())


def _fix(facts: Facts, finding: Finding) -> Remedy:  # noqa: ARG001
    return Remedy(resources=(finding.subject,))


CHECKS = tuple(
    Check(
        part.id, part.row, part.severity, part.looks_at, part.why, part.by_hand, partial(_find, part), _fix,
        part.behind,
    )
    for part in _PARTS
)  # fmt: skip
