"""Check that the host has what cnictl needs: root, a firewall tool, and a kernel with the features for the plugin.

The plugin's own code tries the kernel's features in a scratch namespace, because a list of modules proves nothing on a
monolithic kernel.
"""

import os
from typing import Any

from cnictl.core import programs
from cnictl.core.bridge import ensure_bridge
from cnictl.core.cidr import parse_cidr, parse_interface
from cnictl.core.errors import Problem
from cnictl.core.masquerade import backends
from cnictl.core.masquerade.rule_set import RuleSet
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Netlink
from cnictl.node import hint
from cnictl.node.hint import Hint
from cnictl.node.host import scratch
from cnictl.node.preflight.finding import PreflightFinding, error
from cnictl.node.spec.node_spec import NodeSpec, is_ipv6

_FORWARD = {False: "/proc/sys/net/ipv4/ip_forward", True: "/proc/sys/net/ipv6/conf/all/forwarding"}
_TRIED = {False: ("198.18.0.0/24", "198.18.0.0/16"), True: ("2001:2:0:1::/64", "2001:2::/48")}
"""Subnet and network for the trial, reserved for tests of network devices (RFC 2544, RFC 5180)."""

_TOOLS = {
    ("nft", False): ("nft",),
    ("nft", True): ("nft",),
    ("iptables", False): ("iptables", "iptables-restore"),
    ("iptables", True): ("ip6tables", "ip6tables-restore"),
}
"""The programs by backend and by whether the subnet is IPv6."""
_PACKAGES = {"nft": "nftables", "iptables": "iptables"}
_OTHER = {"nft": "iptables", "iptables": "nft"}
_AS_ROOT = hint.advice("run it with sudo", because="only the user can choose to become root")


def root(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:  # noqa: ARG001
    """Check that root runs the command."""
    if os.geteuid() == 0:
        return []
    return [error("root", "this user", f"user {os.geteuid()} is not root", _AS_ROOT)]


def firewall_tool(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:  # noqa: ARG001
    """Check that the programs of the masquerade backend are installed."""
    if not spec.nat:
        return []
    wanted = [tool for subnet in spec.subnets for tool in _TOOLS[spec.backend, is_ipv6(subnet)]]
    missing = [tool for tool in dict.fromkeys(wanted) if not programs.find(tool)]
    if not missing:
        return []
    other = _OTHER[spec.backend]
    usable = all(programs.find(tool) for subnet in spec.subnets for tool in _TOOLS[other, is_ipv6(subnet)])
    install = f"install {_PACKAGES[spec.backend]}"
    what_to_do = hint.advice(install, because="the distribution's package manager installs packages")
    if usable:
        what_to_do = hint.option(f"--backend {other}", f"or {install}")
    return [error("firewall-tool", missing[0], f"{' and '.join(missing)} not found in PATH", what_to_do)]


def kernel(spec: NodeSpec, previous: NodeSpec | None) -> list[PreflightFinding]:  # noqa: ARG001
    """Check that bridge, veth pair and masquerade work, and that forwarding can be switched on."""
    if os.geteuid() != 0:
        return []  # `root` reports it
    findings = []
    for path in dict.fromkeys(_FORWARD[is_ipv6(subnet)] for subnet in spec.subnets):
        if os.path.exists(path) and not os.access(path, os.W_OK):
            key = path.removeprefix("/proc/sys/").replace("/", ".")
            what_to_do = hint.advice("run it on the host, not in a container", because="a container can't leave itself")
            findings.append(error("kernel", key, "can't be written here", what_to_do))
    backend = spec.backend if spec.nat and not firewall_tool(spec, None) else ""
    tried = tuple(_TRIED[is_ipv6(subnet)] for subnet in spec.subnets)
    for subject, message in scratch.attempt(lambda: _try_features(backend, tried)):
        findings.append(error("kernel", subject, message, _of_the_kernel(subject, backend)))
    return findings


def _of_the_kernel(subject: str, backend: str) -> Hint:
    """Return the hint for a feature that the kernel refuses."""
    if subject == "masquerade":
        words = f"use a kernel with NAT for {backend}, or --backend {_OTHER[backend]}, or --no-nat"
    else:
        words = f"modprobe {subject}, or use a kernel with CONFIG_{subject.upper()}"
    return hint.advice(words, because="whether the kernel has that module is not known here")


def _try_features(backend: str, tried: tuple[tuple[str, str], ...]) -> list[Any]:
    """Return subject and message of each feature that the kernel refuses."""
    refused = []
    gateway = parse_interface("198.18.0.1/24")
    with Netlink() as netlink:
        try:
            index = ensure_bridge(netlink, "cnictl-try0", gateway).index
        except (Problem, OSError) as fault:
            return [["bridge", f"the kernel can't create a bridge: {fault}"]]
        try:
            _try_veth(netlink, index)
        except (Problem, OSError) as fault:
            refused.append(["veth", f"the kernel can't create a veth pair: {fault}"])
    if backend:
        subnets, networks = zip(*tried, strict=True)
        rules = RuleSet("cnictl-try", tuple(map(parse_cidr, subnets)), tuple(map(parse_cidr, networks)))
        try:
            backends.backend(backend).load(rules)
        except (Problem, OSError) as fault:
            refused.append(["masquerade", f"the rule set can't be loaded: {fault}"])
    return refused


def _try_veth(netlink: Netlink, bridge_index: int) -> None:
    with scratch.second_netns() as pod:
        namespace = os.open(pod, os.O_RDONLY | os.O_CLOEXEC)
        try:
            macs = (b"\x02\0\0\0\0\1", b"\x02\0\0\0\0\2")
            pair = ("cnictl-try1", macs[0], bridge_index, "eth0", macs[1], namespace, 1500)
            netlink.call(rtnetlink.add_veth_pair(*pair))
        finally:
            os.close(namespace)
