"""Find out what stops packets to a port on this node."""

import socket
from dataclasses import dataclass

from cnictl.core.cidr import format_address, parse_address
from cnictl.node import hint
from cnictl.node.hint import Hint
from cnictl.node.host import connections
from cnictl.probe import trace
from cnictl.probe.cells.cell import Asked
from cnictl.probe.drop_hint import for_drop
from cnictl.probe.failure import FailureCause
from cnictl.probe.host import Host
from cnictl.probe.ports import TCP

_NUMBERS = {True: socket.IPPROTO_TCP, False: socket.IPPROTO_UDP}


def dropped(host: Host, source: str, asked: Asked) -> FailureCause | None:
    """Return the rule of this node that drops or rejects requests from `source`, or their answers."""
    drop = trace.find_drop(source, asked.to, asked.send, (asked.protocol, asked.port))
    if drop is None:
        return None
    words = f"{asked.protocol.upper()} to {asked.place} does not pass: dropped on this node by {drop.words}"
    return FailureCause("dropped-here", words, _accept(host, source, drop))


def _accept(host: Host, source: str, drop: trace.Drop) -> Hint:
    """Return the hint for a rule that drops: `cnictl apply` if one of cnictl's accept rules is missing."""
    if host.differs("forward/", "firewalld/"):
        return hint.command("cnictl apply")
    return for_drop(drop, source)


@dataclass(frozen=True)
class SentOn:
    """Where the kernel forwards a connection to."""

    address: str
    port: int


def sent_on(source: str, asked: Asked) -> SentOn | None:
    """Return where destination NAT sent the requests of `source`; None if they were not translated."""
    target, wanted = parse_address(asked.to), parse_address(source)
    sent = None
    try:
        for entry in connections.connections(sent_on=True):
            if (entry.protocol, entry.source, entry.target, entry.port) == (
                _NUMBERS[asked.protocol == TCP], wanted, target, asked.port,
            ) and entry.answering not in (target, b""):  # fmt: skip
                sent = SentOn(format_address(entry.answering), entry.answering_port)
    except OSError:
        return None
    return sent
