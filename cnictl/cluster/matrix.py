"""Combine the reports of all hosts into one matrix: the state of each pair, and each failure's cause and host.

Pure: reports in, values out. The state of a pair follows from two reports: the sender's, with the answers that it got,
and the receiver's, with the requests that its pod received.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cnictl.cluster.probing import HostReport
from cnictl.cluster.sample import EACH, Pairs
from cnictl.core.cidr import parse_cidr
from cnictl.node import hint
from cnictl.node.hint import NONE, Hint
from cnictl.node.spec.node_spec import is_ipv6, of_family
from cnictl.probe.failure import gateway_of
from cnictl.probe.pair_reports import NODE_POD, POD_EXTERNAL, POD_NODE, POD_POD, Ping, Ready

OK, LOSS, SKIPPED = "ok", "loss", "skipped"
SILENT, ONE_WAY, MASQUERADED = "no answer", "one-way", "masqueraded"
WRONG_HOST, NO_ADDRESS, NOT_REACHED, UNKNOWN = "wrong host", "no address", "not reached", "not known"
PASSING = (OK, LOSS, SKIPPED)
"""States that do not fail the test. A cell in any other state has failed."""

_UNCLAIMED = "unclaimed"
_WITHOUT_PEER = ("no-route", _UNCLAIMED)
"""Names of causes that a host finds on itself if it lacks a peer."""

_BACK = {POD_POD: POD_POD, NODE_POD: POD_NODE, POD_NODE: NODE_POD}
"""The check in the opposite direction, by check."""


@dataclass(frozen=True)
class CellCause:
    """Why a cell has failed, in one sentence."""

    name: str
    words: str
    host: str = ""
    """The host that has the fault; empty if that is not known."""
    hint: Hint = NONE


@dataclass(frozen=True)
class Cell:
    """One check from one host to another, in one family."""

    check: str
    family: str
    sender: str
    receiver: str
    """The receiving host; empty for an address outside the cluster."""
    state: str
    ping: Ping | None = None
    seen_as: tuple[str, ...] = ()
    """The source addresses that the receiving pod saw."""
    cause: CellCause | None = None

    @property
    def failed(self) -> bool:
        """Whether the cell fails the test."""
        return self.state not in PASSING

    def as_json(self) -> dict[str, Any]:
        """Return the cell as `-o json` prints it."""
        ping, cause = self.ping, self.cause
        rtt = ping.rtt_ms if ping else None
        return {
            "check": self.check,
            "family": self.family,
            "from": self.sender,
            "to": self.receiver or None,
            "from_address": (ping.source if ping else "") or None,
            "to_address": (ping.to if ping else "") or None,
            "state": self.state,
            "sent": ping.sent if ping else 0,
            "received": ping.received if ping else 0,
            "rtt_ms": dict(zip(("min", "avg", "max"), (round(time, 3) for time in rtt), strict=True)) if rtt else None,
            "seen_as": list(self.seen_as),
            "cause": {"name": cause.name, "text": cause.words, "host": cause.host or None} if cause else None,
            "hint": hint.as_json(cause.hint) if cause else None,
        }


@dataclass(frozen=True)
class Matrix:
    """The whole test."""

    hosts: tuple[HostReport, ...]
    pairs: Pairs
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()
    """Differences between hosts that do not fail a cell."""

    @property
    def not_reached(self) -> list[HostReport]:
        """The hosts whose test could not start or finish."""
        return [report for report in self.hosts if report.fault]

    @property
    def failed_cells(self) -> list[Cell]:
        """The cells that fail the test."""
        return [cell for cell in self.cells if cell.failed]

    @property
    def passed(self) -> bool:
        """Whether every host was reached, at least one pair was tested, and no cell has failed."""
        pairs = any(cell.check == POD_POD for cell in self.cells)
        return pairs and not self.failed_cells and not self.not_reached

    def as_json(self, seconds: float) -> dict[str, Any]:
        """Return the matrix as `-o json` prints it."""
        sample = None if self.pairs.seed is None else {"seed": self.pairs.seed, "each": EACH}
        return {
            "version": 1,
            "items": [cell.as_json() for cell in self.cells],
            "summary": {
                "passed": self.passed,
                "hosts": [_host_as_json(report) for report in self.hosts],
                "pairs": self.pairs.count,
                "sample": sample,
                "states": dict(Counter(cell.state for cell in self.cells)),
                "failed": len(self.failed_cells),
                "notes": list(self.notes),
                "seconds": round(seconds, 2),
            },
        }


def _host_as_json(report: HostReport) -> dict[str, Any]:
    ready = report.ready
    return {
        "name": report.name,
        "reached": not report.fault,
        "cause": report.fault or None,
        "hint": hint.as_json(report.hint),
        "release": ready.version if ready else None,
        "addresses": list(ready.node) if ready else [],
        "pod_cidrs": list(ready.pod_cidrs) if ready else [],
        "pod": list(ready.pod) if ready else [],
    }


def build(reports: Sequence[HostReport], pairs: Pairs) -> Matrix:
    """Return the matrix of the hosts' reports. `pairs` are the pairs of hosts whose pods were up."""
    reached = {report.name: report for report in reports if report.ready is not None}
    joining = _Joining(reached)
    cells: list[Cell] = []
    for sender in reached:
        for receiver in pairs.partners.get(sender, ()):
            cells += joining.of_pair(sender, receiver)
        cells += joining.outside(sender)
    for report in reports:
        if report.ready is None:
            # in a small cluster, fill the host's whole row and column of the table
            others = [other.name for other in reports if other is not report] if pairs.seed is None else []
            cells += _unreached(report, others)
    return Matrix(tuple(reports), pairs, tuple(cells), tuple(_notes(reached)))


def _unreached(report: HostReport, others: Iterable[str]) -> Iterator[Cell]:
    cause = CellCause("not-reached", f"{report.name} was not reached: {report.fault}", report.name, Hint(report.hint))
    for other in others:
        yield Cell(POD_POD, "", report.name, other, NOT_REACHED, cause=cause)
        yield Cell(POD_POD, "", other, report.name, NOT_REACHED, cause=cause)


def _notes(reached: Mapping[str, HostReport]) -> Iterator[str]:
    """Yield the values that should be the same on all hosts and are not."""
    for name_of_value, value_of in (
        ("cnictl's version", _version), ("the pod network", _networks), ("the bridge's MTU", _mtu),
    ):  # fmt: skip
        groups: dict[str, list[str]] = {}
        for name, report in reached.items():
            value = value_of(report.ready) if report.ready is not None else ""
            if value:
                groups.setdefault(value, []).append(name)
        if len(groups) > 1:
            values = "; ".join(f"{value} on {', '.join(names)}" for value, names in groups.items())
            yield f"{name_of_value} differs: {values}"


def _version(ready: Ready) -> str:
    return ready.version


def _networks(ready: Ready) -> str:
    return " and ".join(ready.networks)


def _mtu(ready: Ready) -> str:
    return str(ready.mtu) if ready.mtu else ""


class _Joining:
    """Combines the reports of senders and receivers."""

    def __init__(self, reached: Mapping[str, HostReport]) -> None:
        self._reports = reached
        self._ready = {name: report.ready for name, report in reached.items() if report.ready is not None}
        self._pings = {
            (name, ping.host, ping.check, ping.family): ping
            for name, report in reached.items()
            for ping in report.pings or ()
        }
        self._seen: dict[tuple[str, int], dict[str, tuple[str, ...]]] = {}
        """By token and series: the source addresses that each host's pod saw."""
        for name, report in reached.items():
            for seen in report.seen or ():
                self._seen.setdefault((seen.token, seen.series), {})[name] = seen.sources
        self._shared = _sharing(self._ready)
        self._addresses = {address: name for name, ready in self._ready.items() for address in ready.node}

    def of_pair(self, sender: str, receiver: str) -> Iterator[Cell]:
        """Yield the cells of one direction."""
        for cidr in self._ready[sender].pod_cidrs:
            if not of_family(self._ready[receiver].pod_cidrs, cidr):
                continue  # the other host does not have this address family
            family = "ipv6" if is_ipv6(cidr) else "ipv4"
            main = self._pods(sender, receiver, family, cidr)
            yield main
            for check in (NODE_POD, POD_NODE):
                ping = self._pings.get((sender, receiver, check, family))
                if ping is not None:
                    yield self._of_node(main, ping)

    def outside(self, sender: str) -> Iterator[Cell]:
        """Yield the cells of a host's pings to outside hosts."""
        for cidr in self._ready[sender].pod_cidrs:
            family = "ipv6" if is_ipv6(cidr) else "ipv4"
            ping = self._pings.get((sender, "", POD_EXTERNAL, family))
            if ping is None:
                continue
            cell = Cell(POD_EXTERNAL, family, sender, "", _answered(ping), ping)
            if ping.skipped:
                cell = replace(cell, state=SKIPPED, cause=CellCause("skipped", f"{sender}: {ping.skipped}"))
            elif cell.failed:
                cell = replace(cell, cause=self._cause_by(sender, "", ping) or _unexplained(cell, False))
            yield cell

    def _pods(self, sender: str, receiver: str, family: str, cidr: str) -> Cell:
        cell = Cell(POD_POD, family, sender, receiver, UNKNOWN)
        shared = self._shared_cidr(sender, receiver, family)
        if shared is not None:
            return replace(cell, state=WRONG_HOST, cause=shared)
        for name in (sender, receiver):
            if not of_family(self._ready[name].pod, cidr):
                kind = "IPv6" if family == "ipv6" else "IPv4"
                words = f"{name}'s pod got no {kind} address, but {name} has an {kind} pod CIDR"
                what_to_do = _hint_on(name, f"on {name}: cnictl apply rewrites the CNI conf")
                return replace(cell, state=NO_ADDRESS, cause=CellCause("no-address", words, name, what_to_do))
        ping = self._pings.get((sender, receiver, POD_POD, family))
        if ping is None:
            return replace(cell, cause=self._lost(sender))
        cell = replace(cell, ping=ping, state=_answered(ping))
        if self._reports[receiver].seen is None:
            if cell.failed:
                return replace(cell, cause=self._cause_of(cell))
            return replace(cell, state=UNKNOWN, cause=self._lost(receiver))
        cell = replace(cell, seen_as=self._sources(ping, sender, receiver))
        if cell.failed:
            cell = replace(cell, state=ONE_WAY if cell.seen_as else SILENT)
            return replace(cell, cause=self._cause_of(cell))
        if not cell.seen_as:
            return replace(cell, state=WRONG_HOST, cause=self._answered_by_another(cell))
        if foreign := [source for source in cell.seen_as if source not in self._ready[sender].pod]:
            return replace(cell, state=MASQUERADED, cause=self._masquerades(cell, foreign[0]))
        return cell

    def _of_node(self, main: Cell, ping: Ping) -> Cell:
        """Return the cell of a check from or to a node. If it and `main` fail, it has the cause of `main`."""
        cell = replace(main, check=ping.check, ping=ping, state=_answered(ping), seen_as=(), cause=None)
        if ping.check == NODE_POD:
            cell = replace(cell, seen_as=self._sources(ping, main.sender, main.receiver))
            if cell.failed and cell.seen_as:
                cell = replace(cell, state=ONE_WAY)
        if not cell.failed:
            return cell
        back = self._pings.get((main.receiver, main.sender, _BACK[ping.check], ping.family))
        cause = self._cause_by(main.sender, main.receiver, ping) or main.cause
        if cause is None and back is not None:
            cause = self._cause_by(main.receiver, main.sender, back)
        return replace(cell, cause=cause or _unexplained(cell, bool(cell.seen_as)))

    def _sources(self, ping: Ping, sender: str, receiver: str) -> tuple[str, ...]:
        token = self._ready[sender].token
        sources = (self._seen.get((token, series), {}).get(receiver, ()) for series in ping.series)
        return tuple(dict.fromkeys(source for each in sources for source in each))

    def _cause_of(self, cell: Cell) -> CellCause:
        """Return why a pod's request was not answered.

        A fault that a host found on itself takes precedence; of two such faults, the sender's does.
        """
        assert cell.ping is not None
        sender, receiver = cell.sender, cell.receiver
        back = self._pings.get((receiver, sender, POD_POD, cell.family))
        own = cell.ping.cause
        theirs = back.cause if back is not None else None
        if own is not None and own.here:
            return self._own(sender, receiver, cell.ping)
        if theirs is not None and theirs.here and back is not None:
            return self._own(receiver, sender, back)
        if cell.seen_as and back is not None and not back.received and not back.via:
            # requests may use another program's route, but cnictl knows no route for the replies
            return self._no_peer(receiver, sender, back, cell.ping)
        return self._cause_by(sender, receiver, cell.ping) or _unexplained(cell, bool(cell.seen_as))

    def _cause_by(self, host: str, other: str, ping: Ping) -> CellCause | None:
        """Return the cause that `host` found for its own failure. A fault that is not on `host` is on `other`."""
        if ping.cause is None or ping.cause.name == "unexplained":
            return None
        if ping.cause.here:
            return self._own(host, other, ping)
        # the next hop, or the host that refused the request, may be a router: the words then name its address
        may_be_router = ping.cause.name in ("neighbour-unresolved", "refused")
        named = {word.strip(",;:()") for word in ping.cause.words.split()}
        if not other or (may_be_router and not named.intersection((*self._ready[other].node, ping.via))):
            words, owner = f"{host}: {ping.cause.words}", ""
        else:
            words, owner = f"{other}, as {host} sees it: {ping.cause.words}", other
        return CellCause(ping.cause.name, words, owner, self._addressed(ping.cause.hint, host))

    def _own(self, host: str, other: str, ping: Ping) -> CellCause:
        """Return the fault that `host` found on itself."""
        assert ping.cause is not None
        if ping.cause.name in _WITHOUT_PEER and other and not ping.via:
            return self._no_peer(host, other, ping, None)
        return CellCause(ping.cause.name, f"{host}: {ping.cause.words}", host, self._addressed(ping.cause.hint, host))

    def _no_peer(self, host: str, other: str, ping: Ping, answer_of: Ping | None) -> CellCause:
        """Return the cause that `host` has no peer for the pods of `other`.

        The hint is that of the failed ping itself, or else that of `answer_of`, the ping in the other direction.
        """
        cidr = _cidr_of(self._ready[other], ping.family)
        words = f"{host} has no peer for {other}'s pod CIDR {cidr}"
        if ping.cause is not None and ping.cause.name == _UNCLAIMED:
            words += ": its source of peers says that no node has this pod CIDR"
        if ping.cause is not None:
            what_to_do = self._addressed(ping.cause.hint, host)
        else:
            what_to_do = self._addressed(answer_of.cause.hint, other) if answer_of and answer_of.cause else NONE
        return CellCause("no-peer", words, host, what_to_do)

    def _addressed(self, given: Hint, host: str) -> Hint:
        """Return the hint prefixed with the host where it must be run: the hint's own, or else `host`."""
        if not given:
            return NONE
        on = self._addresses.get(given.on, given.on) or host
        text = str(given)
        if given.command:
            text = f"on {on}: {given.command}"
        elif not text.startswith("on "):
            text = f"on {on}: {text}"
        return _hint_on(on, text, given.command, given.option)

    def _lost(self, name: str) -> CellCause:
        fault = self._reports[name].fault or "it did not report on this pair"
        return CellCause("not-reached", f"{name} stopped reporting: {fault}", name)

    def _shared_cidr(self, sender: str, receiver: str, family: str) -> CellCause | None:
        """Return the cause if either host shares its pod CIDR with another host, so that the wrong pod may answer."""
        for name in (sender, receiver):
            other = self._shared.get((name, family))
            if other is not None:
                cidrs = dict.fromkeys(_cidr_of(self._ready[host], family) for host in sorted((name, other)))
                words = f"{' and '.join(sorted((name, other)))} have overlapping pod CIDRs: {' and '.join(cidrs)}"
                text = "move one node's pods, correct its pod CIDR in the source, then: cnictl cluster apply"
                return CellCause("shared-pod-cidr", words, "", _hint_on("", text))
        return None

    def _answered_by_another(self, cell: Cell) -> CellCause:
        assert cell.ping is not None
        token = self._ready[cell.sender].token
        others = [name for series in cell.ping.series for name in self._seen.get((token, series), {})]
        to, sender, receiver = cell.ping.to, cell.sender, cell.receiver
        if others:
            words = f"{others[0]}'s pod answered {sender} for {to}, the address of {receiver}'s pod"
            return CellCause("wrong-host", words, others[0])
        words = (
            f"another host answered {sender} for {to}: {receiver}'s pod, which has that address, received no request"
        )
        return CellCause("wrong-host", words)

    def _masquerades(self, cell: Cell, seen: str) -> CellCause:
        """Return the cause for a source that is not the pod's address. It names the host that has the address."""
        host = self._addresses.get(seen, "")
        for name in (cell.sender, cell.receiver):
            if any(seen == gateway_of(cidr) for cidr in self._ready[name].pod_cidrs):
                host = host or name
        pod = cell.ping.source if cell.ping else ""
        words = f"{cell.receiver}'s pod saw {seen} instead of {pod}: a rule on the path changes the source"
        if host:
            words = f"{host} masquerades packets from pod {pod} to other pods: they see {seen}"
        where = f"on {host}: " if host else ""
        text = f"{where}look for the rule: nft list ruleset; iptables -t nat -S POSTROUTING"
        return CellCause("masqueraded", words, host, _hint_on(host, text))


def _answered(ping: Ping) -> str:
    if not ping.received:
        return SILENT
    return LOSS if ping.received < ping.sent else OK


def _cidr_of(ready: Ready, family: str) -> str:
    return of_family(ready.pod_cidrs, ":" if family == "ipv6" else "")


def _sharing(ready: Mapping[str, Ready]) -> dict[tuple[str, str], str]:
    """Return, for each host and family with an overlapping pod CIDR, another host that shares it."""
    shared = {}
    for family in ("ipv4", "ipv6"):
        ranges = [(parse_cidr(cidr), name) for name in ready if (cidr := _cidr_of(ready[name], family))]
        widest: tuple[int, str] | None = None  # the highest address so far, and its host
        for subnet, name in sorted(ranges, key=lambda pair: (pair[0].first, pair[0].last)):
            if widest is not None and subnet.first <= widest[0]:
                shared[name, family] = widest[1]
                shared.setdefault((widest[1], family), name)
            if widest is None or subnet.last > widest[0]:
                widest = subnet.last, name
    return shared


def _unexplained(cell: Cell, seen: bool) -> CellCause:
    """Return how far a request got, if no host knows the cause."""
    who = {NODE_POD: f"{cell.sender} itself", POD_EXTERNAL: f"{cell.sender}'s pod"}
    whom = cell.receiver and (cell.receiver if cell.check == POD_NODE else f"{cell.receiver}'s pod")
    sender = who.get(cell.check, f"{cell.sender}'s pod")
    if seen:
        words = f"{whom} received the request of {sender}, but the reply was lost on the way"
    elif cell.check == POD_EXTERNAL:
        words = f"{sender} got no answer from {cell.ping.to if cell.ping else 'outside'}"
    elif cell.check == POD_NODE:
        words = f"{whom} did not answer {sender}"
    else:
        words = f"the request of {sender} was lost before it reached {whom}"
    text = f"run cnictl doctor on {cell.sender}" + (f" and on {cell.receiver}" if cell.receiver else "")
    return CellCause("unexplained", words, "", _hint_on("", text))


def _hint_on(host: str, text: str, command: str = "", option: str = "") -> Hint:
    return hint.from_json({"text": text, "command": command, "option": option, "on": host})
