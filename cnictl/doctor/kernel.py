"""Check the kernel settings and tables that pods' traffic depends on."""

import os
import shlex
from collections.abc import Iterable, Iterator

from cnictl.core import durable, sysctl
from cnictl.core.errors import Problem
from cnictl.core.paths import NODE_FILE
from cnictl.doctor.before import of_a_node
from cnictl.doctor.check import Check, Finding, HostFault, Remedy, command_action
from cnictl.doctor.facts import Facts, counters, in_order, per_cpu
from cnictl.node import hint
from cnictl.node.hint import Hint
from cnictl.node.preflight import host
from cnictl.node.runs import converge
from cnictl.node.spec.node_spec import is_ipv6

_SYSCTL_DIRS = ("/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d")
"""A file hides files of the same name in later folders (sysctl.d(5))."""
_SYSCTL_CONF = "/etc/sysctl.conf"
"""procps' `sysctl --system` reads it after the folders."""
_FULL = 0.8


def settled_at_boot(name: str) -> tuple[str, str]:
    """Return the value that `name`, such as `net.ipv4.ip_forward`, gets at boot, and the file that sets it."""
    value, source = "", ""
    for path in [*in_order(_SYSCTL_DIRS), _SYSCTL_CONF]:
        for key, assigned in _assignments(path):
            if key == name.replace(".", "/"):
                value, source = assigned, path
    return value, source


def _assignments(path: str) -> Iterator[tuple[str, str]]:
    try:
        lines = durable.contents(path).decode("utf-8", "replace").splitlines()
    except OSError:
        return
    for line in lines:
        key, equals, value = line.strip().removeprefix("-").partition("=")
        if equals and not key.startswith(("#", ";")):
            yield key.strip().replace(".", "/"), value.strip()


def _no_node(facts: Facts) -> Iterable[HostFault]:
    if facts.spec is not None:
        return
    if converge.lost_its_file():
        yield HostFault(
            NODE_FILE,
            "is missing on a host that was set up as a node: most checks did not run",
            hint.command("cnictl init-node", "restores the last file; cnictl reset-node removes the node"),
        )
    else:
        yield HostFault(
            NODE_FILE,
            "this host is not set up as a cnictl node: most checks did not run",
            hint.advice(
                f"set it up: {converge.NO_NODE[1]}",
                because="only the operator knows which addresses its pods may have",
            ),
        )


def _forwarding_at_boot(facts: Facts) -> Iterable[HostFault]:
    if facts.spec is None:
        return
    families = {is_ipv6(subnet) for subnet in facts.spec.subnets}
    for name in ("net.ipv6.conf.all.forwarding" if six else "net.ipv4.ip_forward" for six in sorted(families)):
        value, source = settled_at_boot(name)
        if value == "0":
            yield HostFault(source, f"turns {name} off at boot", _without_line(source, name))


def _without_line(path: str, name: str) -> Hint:
    """Return the command that comments out a kernel setting in a file and applies the node's settings."""
    key = name.replace(".", "[./]")
    edit = f"/^[[:space:]]*-?[[:space:]]*{key}[[:space:]]*=/s/^/# /"
    note = "an update of its package may restore it" if path.startswith("/usr/lib/") else ""
    return hint.command(f"sed -i -E {shlex.quote(edit)} {shlex.quote(path)}; cnictl apply", note)


def _strict_reverse_path(facts: Facts) -> Iterable[HostFault]:
    dropped = counters("/proc/net/netstat", "TcpExt").get("IPReversePathFilter", 0)
    if facts.spec is None or not dropped:
        return
    everywhere = sysctl.read("net/ipv4/conf/all/rp_filter")
    for name in dict.fromkeys((*facts.others, facts.spec.bridge)):
        own = sysctl.read(f"net/ipv4/conf/{name}/rp_filter")
        if name and max(everywhere, own) == "1":
            yield HostFault(
                name,
                f"drops packets whose replies would take another link: {dropped} since boot",
                hint.command(
                    f"sysctl -w {hint.sysctl_name('net', 'ipv4', 'conf', name, 'rp_filter')}=2", "and in /etc/sysctl.d"
                ),
            )


def _loosen(facts: Facts, finding: Finding) -> Remedy:  # noqa: ARG001
    return Remedy(actions=(command_action("sysctl", "-qw", f"net/ipv4/conf/{finding.subject}/rp_filter=2"),))


def _conntrack_full(facts: Facts) -> Iterable[HostFault]:  # noqa: ARG001
    count, most = sysctl.read("net/netfilter/nf_conntrack_count"), sysctl.read("net/netfilter/nf_conntrack_max")
    if not count or not most or most == "0" or int(count) < _FULL * int(most):
        return
    stat = per_cpu("/proc/net/stat/nf_conntrack")
    lost = stat.get("drop", 0) + stat.get("early_drop", 0)
    yield HostFault(
        "net.netfilter.nf_conntrack_max",
        f"{count} of {most} connections are tracked, {lost} were dropped: new ones fail",
        hint.command(f"sysctl -w net.netfilter.nf_conntrack_max={2 * int(most)}", "and in /etc/sysctl.d"),
        os.access("/proc/sys/net/netfilter/nf_conntrack_max", os.W_OK),
    )


def _widen(facts: Facts, finding: Finding) -> Remedy:  # noqa: ARG001
    most = int(sysctl.read(finding.subject.replace(".", "/")))
    return Remedy(actions=(command_action("sysctl", "-qw", f"{finding.subject}={2 * most}"),))


def _neighbours_full(facts: Facts) -> Iterable[HostFault]:  # noqa: ARG001
    for family, name in (("ipv4", "arp"), ("ipv6", "ndisc")):
        path, key = f"/proc/net/stat/{name}_cache", f"net.{family}.neigh.default.gc_thresh3"
        table = per_cpu(path)
        most = sysctl.read(key.replace(".", "/"))  # readable only in the host's own network namespace
        entries = table.get("entries", 0) // (os.cpu_count() or 1)  # each CPU's line has the total
        if table.get("table_fulls") and (not most or entries >= _FULL * int(most)):
            yield HostFault(
                key,
                f"{entries} of {most or 'unknown'} neighbour entries are in use; "
                f"the table was full {table['table_fulls']} times",
                _more_neighbours(key, int(most or 0)),
                False,
            )


def _more_neighbours(key: str, now: int) -> Hint:
    """Return the command that doubles the neighbour table's limit."""
    most = max(8192, 2 * now)
    half = f"{key.removesuffix('3')}2={most // 2}"  # from here on the kernel removes old entries
    return hint.command(f"sysctl -w {key}={most} {half}", "and in /etc/sysctl.d")


def _kernel_lacks(facts: Facts) -> Iterable[HostFault]:
    if facts.spec is None:
        return
    if os.geteuid() != 0:
        raise Problem("only root can try the kernel's features")
    for finding in (*host.firewall_tool(facts.spec, facts.spec), *host.kernel(facts.spec, facts.spec)):
        yield HostFault(finding.subject, finding.message, of_a_node(finding.hint), False)


CHECKS = (
    Check(
        "no-node", 0, "error", "/etc/cnictl/node.toml",
        "Without a node file, nothing defines what the host should look like, so it can't be called healthy.",
        "ls -l /etc/cnictl/node.toml\ncnictl init-node --subnet POD_CIDR --network POD_NETWORK", _no_node,
    ),
    Check(
        "forwarding-at-boot", 1, "error",
        "sysctl.d in the boot's order (/etc, /run, /usr/lib by name, then /etc/sysctl.conf): the last value of "
        "net.ipv4.ip_forward and net.ipv6.conf.all.forwarding",
        "A file that sorts after cnictl's wins at every boot and at every `sysctl --system`.",
        "sysctl --system | grep -e '^\\*' -e forward\nrm or edit the file; cnictl apply",
        _forwarding_at_boot,
    ),
    Check(
        "reverse-path", 2, "warning",
        "max(net.ipv4.conf.all.rp_filter, net.ipv4.conf.LINK.rp_filter) of the bridge and of the links to other hosts, "
        "TcpExt IPReversePathFilter in /proc/net/netstat",
        "The strict filter silently drops a packet if the reply would take a different link.",
        "nstat -az TcpExtIPReversePathFilter\nsysctl -w net.ipv4.conf.eth0.rp_filter=2",
        _strict_reverse_path, _loosen,
    ),
    Check(
        "conntrack-full", 6, "error",
        "net.netfilter.nf_conntrack_count against nf_conntrack_max; drop and early_drop in /proc/net/stat/nf_conntrack",
        "When the table is full, the kernel drops the first packet of every new connection.",
        "sysctl net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max\n"
        "sysctl -w net.netfilter.nf_conntrack_max=524288",
        _conntrack_full, _widen,
    ),
    Check(
        "neighbours-full", 7, "error",
        "table_fulls in /proc/net/stat/arp_cache and ndisc_cache; net.ipv4.neigh.default.gc_thresh3",
        "When the table is full, the kernel learns no new neighbours, so some hosts and pods can't be reached.",
        "sysctl net.ipv4.neigh.default.gc_thresh3; ip neigh | wc -l\n"
        "sysctl -w net.ipv4.neigh.default.gc_thresh3=8192",
        _neighbours_full,
    ),
    Check(
        "kernel-lacks", 8, "error",
        "whether a bridge, a veth pair and the masquerade rule set can be created in a scratch network namespace",
        "Pods need all of these kernel features.",
        "unshare -n ip link add b type bridge\nmodprobe bridge veth nf_nat",
        _kernel_lacks,
    ),
)  # fmt: skip
