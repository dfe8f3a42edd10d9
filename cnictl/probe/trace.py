"""Find the firewall rule that drops a packet, with nftables' packet trace.

During one ping, a table of our own marks one pod's echo messages for tracing (`meta nftrace set 1`). The kernel then
reports each rule and policy that decides on them, including rules of iptables-nft.
Sources: linux/netfilter/nf_tables.h, nft(8) "monitor".
"""

import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from cnictl.core.errors import Problem
from cnictl.core.netlink.rtnetlink import attributes
from cnictl.core.process import run
from cnictl.node.spec.node_spec import is_ipv6

_NETLINK_NETFILTER, _NFNLGRP_NFTRACE, _SOL_NETLINK, _ADD_MEMBERSHIP = 12, 9, 270, 1
_TRACE_TABLE, _TRACE_CHAIN, _TRACE_HANDLE, _TRACE_TYPE, _TRACE_VERDICT = 1, 2, 3, 4, 5
_TRACE_POLICY = 16
_TYPE_POLICY, _TYPE_RULE = 1, 3
_NF_DROP = 0
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_TABLE = "cnictl-probe"
_NETLINK_HEADER = 16
_NFGENMSG = 4


@dataclass(frozen=True)
class Drop:
    """The place where a packet is dropped."""

    table: str
    chain: str
    rule: str
    """The rule as nft prints it; empty for the chain's policy."""

    @property
    def words(self) -> str:
        """The place in words: `rule "ip daddr 10.244.1.0/24 drop" of chain ip filter FORWARD`."""
        dropper = f'rule "{self.rule}"' if self.rule else "the policy drop"
        return f"{dropper} of chain {self.table} {self.chain}"


def find_drop(
    source: str, destination: str, send: Callable[[], None], port: tuple[str, int] | None = None
) -> Drop | None:
    """Return the rule or policy that drops the echo request that `send` sends from `source` to `destination`.

    The reply is traced too. With `port` (protocol and number), a connection's first packets and their answers are
    traced instead. None if no nftables rule drops a packet, or if the kernel or nft can't trace.
    """
    for message in _traced(source, destination, send, port, answers=True):
        drop = read_drop(message)
        if drop is not None:
            family, table, chain, handle = drop
            return Drop(f"{family} {table}", chain, _rule_text(family, table, chain, handle) if handle else "")
    return None


def rules_met(
    source: str, destination: str, send: Callable[[], None], port: tuple[str, int] | None = None
) -> list[str]:
    """Return each rule that such a request or its reply matched, in order: `ip filter FORWARD: counter accept`.

    With `port` (protocol and number), a connection's first packets are traced instead, without the replies.
    Empty if no rule matched, or if the kernel or nft can't trace.
    """
    matched = []
    for message in _traced(source, destination, send, port):
        parts = attributes(message, _NETLINK_HEADER + _NFGENMSG)
        handle = int.from_bytes(parts.get(_TRACE_HANDLE, b""), "big")
        if struct.unpack("!I", parts.get(_TRACE_TYPE, bytes(4)))[0] != _TYPE_RULE or not handle:
            continue
        family = _FAMILIES.get(message[_NETLINK_HEADER], "inet")
        table, chain = (parts.get(key, b"").rstrip(b"\0").decode() for key in (_TRACE_TABLE, _TRACE_CHAIN))
        if table != _TABLE:
            matched.append((family, table, chain, handle))
    return [f"{family} {table} {chain}: {_rule_text(family, table, chain, handle)}"
            for family, table, chain, handle in dict.fromkeys(matched)]  # fmt: skip


def _traced(
    source: str,
    destination: str,
    send: Callable[[], None],
    port: tuple[str, int] | None = None,
    answers: bool = False,
) -> Iterator[bytes]:
    """Yield the kernel's trace messages for the packets that `send` sends and for their replies; none on error."""
    listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    with listener:
        try:
            listener.bind((0, 0))  # the kernel sends its broadcasts only to sockets that have a port
            listener.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _NFNLGRP_NFTRACE)
            run(["nft", "-f", "-"], _table_text(source, destination, port, answers))
        except (OSError, Problem):
            return
        try:
            send()
            deadline = time.monotonic() + 0.3
            while (left := deadline - time.monotonic()) > 0:
                listener.settimeout(left)
                try:
                    yield listener.recv(1 << 16)
                except TimeoutError:
                    return
        finally:
            clean()


def clean() -> None:
    """Remove the tracing table, including one that a killed command left."""
    try:
        run(["nft", "delete", "table", "inet", _TABLE], check=False)
    except Problem:
        return  # without nft there is no table


def _table_text(source: str, destination: str, port: tuple[str, int] | None = None, answers: bool = False) -> str:
    """Return the tracing table's text. It comes before conntrack (-200), so no NAT has changed the reply's source."""
    ip, icmp = ("ip6", "icmpv6") if is_ipv6(source) else ("ip", "icmp")
    requests = f"{ip} saddr {source} {ip} daddr {destination} {icmp} type echo-request"
    replies = f"{ip} saddr {destination} {icmp} type echo-reply"
    if port is not None:
        requests = f"{ip} saddr {source} {ip} daddr {destination} {port[0]} dport {port[1]}"
        if answers:
            replies = f"{ip} saddr {destination} {ip} daddr {source} {port[0]} sport {port[1]}"
    # where bridged packets pass ip6tables, neighbour solicitations pass it too
    solicitations = f"  ip6 saddr {source} icmpv6 type nd-neighbor-solicit meta nftrace set 1\n" if ip == "ip6" else ""
    return (
        f"add table inet {_TABLE}\n"
        f"delete table inet {_TABLE}\n"
        f"table inet {_TABLE} {{\n"
        f" chain marks {{ type filter hook prerouting priority -350; policy accept;\n"
        f"  {requests} meta nftrace set 1\n"
        f"  {replies} meta nftrace set 1\n"
        f"{solicitations}"
        " }\n"
        " chain answers { type filter hook output priority -350; policy accept;\n"
        f"  {replies} meta nftrace set 1\n"
        " }\n"
        "}\n"
    )


def read_drop(message: bytes) -> tuple[str, str, str, int] | None:
    """Return family, table, chain and rule handle (0: the policy) of a trace message for a drop; None for others."""
    parts = attributes(message, _NETLINK_HEADER + _NFGENMSG)
    kind = struct.unpack("!I", parts.get(_TRACE_TYPE, bytes(4)))[0]
    family = _FAMILIES.get(message[_NETLINK_HEADER], "inet")
    table, chain = (parts.get(key, b"").rstrip(b"\0").decode() for key in (_TRACE_TABLE, _TRACE_CHAIN))
    if kind == _TYPE_POLICY and _TRACE_POLICY in parts:
        dropped = struct.unpack("!I", parts[_TRACE_POLICY])[0] == _NF_DROP
        return (family, table, chain, 0) if dropped else None
    if kind == _TYPE_RULE and _TRACE_VERDICT in parts:
        code = attributes(parts[_TRACE_VERDICT]).get(1, b"\xff" * 4)
        if struct.unpack("!I", code)[0] == _NF_DROP:
            return family, table, chain, struct.unpack("!Q", parts[_TRACE_HANDLE])[0]
    return None


def _rule_text(family: str, table: str, chain: str, handle: int) -> str:
    """Return the rule as `nft -a` lists it, without its counter's values."""
    listed = run(["nft", "-a", "-s", "list", "chain", family, table, chain], check=False).stdout
    for line in listed.splitlines():
        rule, _, number = line.strip().rpartition(" # handle ")
        if number == str(handle):
            return rule
    return f"with handle {handle}"


def forward_policies(ipv6: bool = False) -> list[Drop]:
    """Return a family's base chains at the forward hook with policy drop, the suspects where the trace is empty."""
    listed = run(["nft", "-j", "list", "chains"], check=False)
    dropping = []
    for entry in json.loads(listed.stdout or "{}").get("nftables", []):
        chain: dict[str, Any] = entry.get("chain", {})
        judged = chain.get("family") in ("inet", "ip6" if ipv6 else "ip")
        if judged and chain.get("hook") == "forward" and chain.get("policy") == "drop":
            dropping.append(Drop(f"{chain['family']} {chain['table']}", chain["name"], ""))
    program = "ip6tables-legacy" if ipv6 else "iptables-legacy"
    legacy = run([program, "-S", "FORWARD"], check=False) if _legacy_filter(ipv6) else None
    if legacy and "-P FORWARD DROP" in legacy.stdout:
        dropping.append(Drop("legacy filter", "FORWARD", ""))
    return dropping


def _legacy_filter(ipv6: bool) -> bool:
    try:
        with open(f"/proc/net/{'ip6' if ipv6 else 'ip'}_tables_names", encoding="ascii") as file:
            return "filter" in file.read().split()
    except (FileNotFoundError, PermissionError):
        return False
