"""Find the firewall rule that drops a packet, with nftables' packet trace.

While one request is sent, our own tables mark it for tracing (`meta nftrace set 1`). The kernel then reports each
rule and policy that decides on it, including rules of iptables-nft. Packets between two pods of a node stay on the
bridge, where only a table of the bridge family sees them. Sources: linux/netfilter/nf_tables.h, nft(8) "monitor".
"""

import json
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cnictl.core.errors import Problem
from cnictl.core.process import run
from cnictl.node.spec.node_spec import is_ipv6
from cnictl.probe.rule_words import RuleWords, rule_words
from cnictl.probe.trace_events import RULE, Event, read_event

_NETLINK_NETFILTER, _NFNLGRP_NFTRACE, _SOL_NETLINK, _ADD_MEMBERSHIP = 12, 9, 270, 1
TABLE = "cnictl-probe"
"""The name of our own tables, in the families inet and bridge."""
_BUFFER = 1 << 22
_WAIT, _PAUSE = 5.0, 0.02
_LISTEN = 0.3
"""Seconds to listen for messages once the request is sent."""


@dataclass(frozen=True)
class Drop:
    """The place where a packet is dropped."""

    table: str
    chain: str
    rule: str
    """The rule as nft or iptables prints it; empty for the chain's policy."""
    delete: str = ""
    """The command that deletes the rule; empty for a policy, or if the rule is not found."""

    @property
    def words(self) -> str:
        """The place in words: `rule "ip daddr 10.244.1.0/24 drop" of chain ip filter FORWARD`."""
        dropper = f'rule "{self.rule}"' if self.rule else "the policy drop"
        return f"{dropper} of chain {self.table} {self.chain}"


def find_drop(
    source: str, destination: str, send: Callable[[], object], port: tuple[str, int] | None = None
) -> Drop | None:
    """Return the rule or policy that drops the echo request that `send` sends from `source` to `destination`.

    The reply is traced too. With `port` (protocol and number), a connection's first packets and their answers are
    traced instead. None if no nftables rule drops a packet, or if the kernel or nft can't trace.
    """
    for event in traced(_tables(source, destination, port, answers=True), send):
        if event.drops:
            return drop_of(event)
    return None


def drop_of(event: Event) -> Drop:
    """Return the place of a decision to drop."""
    rule = rule_words(*event.place, event.handle) if event.handle else RuleWords("", "")
    return Drop(f"{event.family} {event.table}", event.chain, rule.text, rule.delete)


def rules_met(
    source: str, destination: str, send: Callable[[], object], port: tuple[str, int] | None = None
) -> list[str]:
    """Return each rule that such a request or its reply matched, in order: `ip filter FORWARD: counter accept`.

    With `port` (protocol and number), a connection's first packets are traced instead, without the replies.
    Empty if no rule matched, or if the kernel or nft can't trace.
    """
    matched = [
        (*event.place, event.handle)
        for event in traced(_tables(source, destination, port), send)
        if event.kind == RULE and event.handle and event.table != TABLE
    ]
    return [f"{family} {table} {chain}: {rule_text(family, table, chain, handle)}"
            for family, table, chain, handle in dict.fromkeys(matched)]  # fmt: skip


def traced(tables: Sequence[str], send: Callable[[], object]) -> Iterator[Event]:
    """Yield the kernel's decisions on the packets that `tables` mark while `send` runs; none if it can't trace.

    `tables` are texts for `nft -f`. The first must load; others are skipped if the kernel lacks their family.
    """
    listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    with _alone(_WAIT), listener:
        try:
            listener.bind((0, 0))  # the kernel sends its broadcasts only to sockets that have a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            listener.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _NFNLGRP_NFTRACE)
            run(["nft", "-f", "-"], tables[0])
            for table in tables[1:]:
                run(["nft", "-f", "-"], table, check=False)
        except (OSError, Problem):
            clean()
            return
        try:
            send()
            deadline = time.monotonic() + _LISTEN
            while (left := deadline - time.monotonic()) > 0:
                listener.settimeout(left)
                try:
                    event = read_event(listener.recv(1 << 16))
                except TimeoutError:
                    return
                if event is not None:
                    yield event
        finally:
            clean()


@contextmanager
def _alone(seconds: float) -> Iterator[bool]:
    """Wait up to `seconds` until no other command in this network namespace traces; yield whether none does.

    The lock is the name of an abstract socket (unix(7)): the kernel keeps it for one namespace, and frees it when the
    process ends.
    """
    deadline = time.monotonic() + seconds
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as lock:
        alone = False
        while not alone:
            try:
                lock.bind(f"\0{TABLE}")
                alone = True
            except OSError:
                if time.monotonic() >= deadline:
                    break
                time.sleep(_PAUSE)
        yield alone


def sweep() -> None:
    """Remove the tracing tables that a killed command left."""
    with _alone(0) as alone:
        if alone:
            clean()


def clean() -> None:
    """Remove the tracing tables."""
    try:
        for family in ("inet", "bridge"):
            run(["nft", "delete", "table", family, TABLE], check=False)
    except Problem:
        return  # without nft there is no table


def table_text(family: str, chains: str) -> str:
    """Return the text that loads a tracing table with these chains, replacing an older one."""
    return f"add table {family} {TABLE}\ndelete table {family} {TABLE}\ntable {family} {TABLE} {{\n{chains}}}\n"


def base_chain(name: str, hook: str, priority: int, rules: Sequence[str] = ()) -> str:
    """Return the text of a chain that accepts everything."""
    lines = "".join(f"  {rule}\n" for rule in rules)
    return f" chain {name} {{ type filter hook {hook} priority {priority}; policy accept;\n{lines} }}\n"


def _tables(
    source: str, destination: str, port: tuple[str, int] | None = None, answers: bool = False
) -> tuple[str, str]:
    """Return the tables that mark requests and, with ping or `answers`, their replies.

    They come before conntrack (-200), so no NAT has changed the reply's source.
    """
    ip, icmp = ("ip6", "icmpv6") if is_ipv6(source) else ("ip", "icmp")
    requests = f"{ip} saddr {source} {ip} daddr {destination} {icmp} type echo-request"
    replies = f"{ip} saddr {destination} {icmp} type echo-reply"
    if port is not None:
        requests = f"{ip} saddr {source} {ip} daddr {destination} {port[0]} dport {port[1]}"
        if answers:
            replies = f"{ip} saddr {destination} {ip} daddr {source} {port[0]} sport {port[1]}"
    marked = [f"{requests} meta nftrace set 1", f"{replies} meta nftrace set 1"]
    if ip == "ip6":  # if bridged packets pass ip6tables, so do neighbour solicitations
        marked.append(f"ip6 saddr {source} icmpv6 type nd-neighbor-solicit meta nftrace set 1")
    first = base_chain("marks", "prerouting", -350, marked)
    return (
        table_text("inet", first + base_chain("sent", "output", -350, marked[:2])),
        table_text("bridge", first),
    )


def rule_text(family: str, table: str, chain: str, handle: int) -> str:
    """Return the rule with a handle, without its counter's values."""
    return rule_words(family, table, chain, handle).text


def forward_policies(ipv6: bool = False) -> list[Drop]:
    """Return a family's base chains at the forward hook with policy drop, the suspects if the trace is empty."""
    listed = run(["nft", "-j", "list", "chains"], check=False)
    dropping = []
    for entry in json.loads(listed.stdout or "{}").get("nftables", []):
        chain: dict[str, Any] = entry.get("chain", {})
        judged = chain.get("family") in ("inet", "ip6" if ipv6 else "ip")
        if judged and chain.get("hook") == "forward" and chain.get("policy") == "drop":
            dropping.append(Drop(f"{chain['family']} {chain['table']}", chain["name"], ""))
    program = "ip6tables-legacy" if ipv6 else "iptables-legacy"
    legacy = run([program, "-S", "FORWARD"], check=False) if "filter" in legacy_tables(ipv6) else None
    if legacy and "-P FORWARD DROP" in legacy.stdout:
        dropping.append(Drop("legacy filter", "FORWARD", ""))
    return dropping


def legacy_tables(ipv6: bool) -> list[str]:
    """Return the tables that iptables-legacy has loaded; the kernel's trace does not cover their rules."""
    try:
        with open(f"/proc/net/{'ip6' if ipv6 else 'ip'}_tables_names", encoding="ascii") as file:
            return file.read().split()
    except (FileNotFoundError, PermissionError):
        return []
