"""Combine what all hosts report into one matrix: the state of each pair, and for a red one the cause and its host.

Pure: reports in, values out. A pair's state rests on two hosts' words: the sender's on what was answered, the
receiver's on what its pod saw.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cnictl.cluster.probing import HostReport
from cnictl.cluster.sample import EACH, Pairs
from cnictl.core.cidr import parse_cidr
from cnictl.node.spec.node_spec import is_ipv6, of_family
from cnictl.probe.failure import gateway_of
from cnictl.probe.pair_reports import NODE_POD, POD_EXTERNAL, POD_NODE, POD_POD, Advice, Ping, Ready

OK, LOSS, SKIPPED = "ok", "loss", "skipped"
SILENT, ONE_WAY, MASQUERADED = "no answer", "one-way", "masqueraded"
WRONG_HOST, NO_ADDRESS, NOT_REACHED, UNKNOWN = "wrong host", "no address", "not reached", "not known"
NOT_RED = (OK, LOSS, SKIPPED)
"""States that do not fail the test; the others are red."""

_UNCLAIMED = "unclaimed"
_WITHOUT_PEER = ("no-route", _UNCLAIMED)
"""Names of causes that a host finds on itself where it lacks a peer."""

_BACK = {POD_POD: POD_POD, NODE_POD: POD_NODE, POD_NODE: NODE_POD}
"""The check in the other direction."""


@dataclass(frozen=True)
class Blame:
    """Why a cell is red, in one sentence, and the host that has the fault; empty where that is not known."""

    name: str
    words: str
    host: str = ""
    advice: Advice | None = None


@dataclass(frozen=True)
class Cell:
    """One check from one host to another, in one family."""

    check: str
    family: str
    sender: str
    receiver: str
    """Empty for the outside."""
    state: str
    ping: Ping | None = None
    seen_as: tuple[str, ...] = ()
    """The sources that the receiving pod saw."""
    blame: Blame | None = None

    @property
    def red(self) -> bool:
        """Whether the cell fails the test."""
        return self.state not in NOT_RED

    def as_json(self) -> dict[str, Any]:
        """Return the cell as `-o json` prints it."""
        ping, blame = self.ping, self.blame
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
            "cause": {"name": blame.name, "text": blame.words, "host": blame.host or None} if blame else None,
            "hint": blame.advice.as_json() if blame and blame.advice else None,
        }


@dataclass(frozen=True)
class Matrix:
    """The whole test."""

    hosts: tuple[HostReport, ...]
    pairs: Pairs
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()
    """What differs between hosts without making a cell red."""

    @property
    def not_reached(self) -> list[HostReport]:
        """The hosts that could not be tested, or not to the end."""
        return [report for report in self.hosts if report.fault]

    @property
    def red(self) -> list[Cell]:
        """The cells that fail the test."""
        return [cell for cell in self.cells if cell.red]

    @property
    def passed(self) -> bool:
        """Whether every host was reached and no cell is red; a test without any pair proves nothing."""
        pairs = any(cell.check == POD_POD for cell in self.cells)
        return pairs and not self.red and not self.not_reached

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
                "red": len(self.red),
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
        "hint": Advice(report.hint).as_json() if report.hint else None,
        "release": ready.release if ready else None,
        "addresses": list(ready.node) if ready else [],
        "pod_cidrs": list(ready.pod_cidrs) if ready else [],
        "pod": list(ready.pod) if ready else [],
    }


def build(reports: Sequence[HostReport], pairs: Pairs) -> Matrix:
    """Return the matrix of the hosts' reports. `pairs` are those of the hosts whose pod was up."""
    reached = {report.name: report for report in reports if report.ready is not None}
    joining = _Joining(reached)
    cells: list[Cell] = []
    for sender in reached:
        for receiver in pairs.partners.get(sender, ()):
            cells += joining.of_pair(sender, receiver)
        cells += joining.outside(sender)
    for report in reports:
        if report.ready is None:
            # towards all hosts of a small cluster, so that its row and its column are filled
            others = [other.name for other in reports if other is not report] if pairs.seed is None else []
            cells += _unreached(report, others)
    return Matrix(tuple(reports), pairs, tuple(cells), tuple(_notes(reached)))


def _unreached(report: HostReport, others: Iterable[str]) -> Iterator[Cell]:
    blame = Blame("not-reached", f"{report.name} was not reached: {report.fault}", report.name)
    for other in others:
        yield Cell(POD_POD, "", report.name, other, NOT_REACHED, blame=blame)
        yield Cell(POD_POD, "", other, report.name, NOT_REACHED, blame=blame)


def _notes(reached: Mapping[str, HostReport]) -> Iterator[str]:
    """Yield what the hosts should agree on and do not."""
    for what, value in (("cnictl's version", _release), ("the pod network", _networks)):
        groups: dict[str, list[str]] = {}
        for name, report in reached.items():
            if report.ready is not None:
                groups.setdefault(value(report.ready), []).append(name)
        if len(groups) > 1:
            told = "; ".join(f"{said} on {', '.join(names)}" for said, names in groups.items())
            yield f"{what} differs: {told}"


def _release(ready: Ready) -> str:
    return ready.release


def _networks(ready: Ready) -> str:
    return " and ".join(ready.networks)


class _Joining:
    """Joins the words of senders and receivers."""

    def __init__(self, reached: Mapping[str, HostReport]) -> None:
        self._reports = reached
        self._ready = {name: report.ready for name, report in reached.items() if report.ready is not None}
        self._pings = {
            (name, ping.host, ping.check, ping.family): ping
            for name, report in reached.items()
            for ping in report.pings or ()
        }
        self._seen: dict[tuple[str, int], dict[str, tuple[str, ...]]] = {}
        """By token and series: what each host's pod saw."""
        for name, report in reached.items():
            for seen in report.seen or ():
                self._seen.setdefault((seen.token, seen.series), {})[name] = seen.sources
        self._shared = _sharing(self._ready)
        self._addresses = {address: name for name, ready in self._ready.items() for address in ready.node}

    def of_pair(self, sender: str, receiver: str) -> Iterator[Cell]:
        """Yield the cells of one direction."""
        for cidr in self._ready[sender].pod_cidrs:
            if not of_family(self._ready[receiver].pod_cidrs, cidr):
                continue  # the other host has not this family
            family = "ipv6" if is_ipv6(cidr) else "ipv4"
            main = self._pods(sender, receiver, family, cidr)
            yield main
            for check in (NODE_POD, POD_NODE):
                ping = self._pings.get((sender, receiver, check, family))
                if ping is not None:
                    yield self._of_node(main, ping)

    def outside(self, sender: str) -> Iterator[Cell]:
        """Yield a host's checks of the outside."""
        for cidr in self._ready[sender].pod_cidrs:
            family = "ipv6" if is_ipv6(cidr) else "ipv4"
            ping = self._pings.get((sender, "", POD_EXTERNAL, family))
            if ping is None:
                continue
            cell = Cell(POD_EXTERNAL, family, sender, "", _answered(ping), ping)
            if ping.skipped:
                cell = replace(cell, state=SKIPPED, blame=Blame("skipped", f"{sender}: {ping.skipped}"))
            elif cell.red:
                cell = replace(cell, blame=self._found(sender, "", ping) or _unexplained(cell, False))
            yield cell

    def _pods(self, sender: str, receiver: str, family: str, cidr: str) -> Cell:
        cell = Cell(POD_POD, family, sender, receiver, UNKNOWN)
        shared = self._shared_cidr(sender, receiver, family)
        if shared is not None:
            return replace(cell, state=WRONG_HOST, blame=shared)
        for name in (sender, receiver):
            if not of_family(self._ready[name].pod, cidr):
                kind = "IPv6" if family == "ipv6" else "IPv4"
                words = f"{name}'s pod got no {kind} address, but {name} has an {kind} pod CIDR"
                advice = Advice(f"on {name}: cnictl apply rewrites the CNI conf", on=name)
                return replace(cell, state=NO_ADDRESS, blame=Blame("no-address", words, name, advice))
        ping = self._pings.get((sender, receiver, POD_POD, family))
        if ping is None:
            return replace(cell, blame=self._lost(sender))
        cell = replace(cell, ping=ping, state=_answered(ping))
        if self._reports[receiver].seen is None:
            if cell.red:
                return replace(cell, blame=self._blame(cell))
            return replace(cell, state=UNKNOWN, blame=self._lost(receiver))
        cell = replace(cell, seen_as=self._sources(ping, sender, receiver))
        if cell.red:
            cell = replace(cell, state=ONE_WAY if cell.seen_as else SILENT)
            return replace(cell, blame=self._blame(cell))
        if not cell.seen_as:
            return replace(cell, state=WRONG_HOST, blame=self._answered_by_another(cell))
        if foreign := [source for source in cell.seen_as if source not in self._ready[sender].pod]:
            return replace(cell, state=MASQUERADED, blame=self._masquerades(cell, foreign[0]))
        return cell

    def _of_node(self, main: Cell, ping: Ping) -> Cell:
        """Return the cell of a check from or to a node. If it fails beside `main`, that one's cause is its cause."""
        cell = replace(main, check=ping.check, ping=ping, state=_answered(ping), seen_as=(), blame=None)
        if ping.check == NODE_POD:
            cell = replace(cell, seen_as=self._sources(ping, main.sender, main.receiver))
            if cell.red and cell.seen_as:
                cell = replace(cell, state=ONE_WAY)
        if not cell.red:
            return cell
        back = self._pings.get((main.receiver, main.sender, _BACK[ping.check], ping.family))
        blame = self._found(main.sender, main.receiver, ping) or main.blame
        if blame is None and back is not None:
            blame = self._found(main.receiver, main.sender, back)
        return replace(cell, blame=blame or _unexplained(cell, bool(cell.seen_as)))

    def _sources(self, ping: Ping, sender: str, receiver: str) -> tuple[str, ...]:
        token = self._ready[sender].token
        sources = (self._seen.get((token, series), {}).get(receiver, ()) for series in ping.series)
        return tuple(dict.fromkeys(source for each in sources for source in each))

    def _blame(self, cell: Cell) -> Blame:
        """Return why a pod's request was not answered: the nearest host that knows of a fault of its own has it."""
        assert cell.ping is not None
        sender, receiver = cell.sender, cell.receiver
        back = self._pings.get((receiver, sender, POD_POD, cell.family))
        own = cell.ping.found
        theirs = back.found if back is not None else None
        if own is not None and own.here:
            return self._own(sender, receiver, cell.ping)
        if theirs is not None and theirs.here and back is not None:
            return self._own(receiver, sender, back)
        if cell.seen_as and back is not None and not back.received and not back.via:
            # its requests may still pass by a route that somebody else made; the answer's way is not known to cnictl
            return self._no_peer(receiver, sender, back, cell.ping)
        found = self._found(sender, receiver, cell.ping)
        return found or _unexplained(cell, bool(cell.seen_as))

    def _found(self, host: str, other: str, ping: Ping) -> Blame | None:
        """Return the cause that `host` found for its own failure; of a fault elsewhere, `other` has it."""
        if ping.found is None or ping.found.name == "unexplained":
            return None
        if ping.found.here:
            return self._own(host, other, ping)
        # a next hop or a refusal on the way may be a router's: then its address stands in the words, not the other's
        told_of_way = ping.found.name in ("neighbour-unresolved", "refused")
        named = {word.strip(",;:()") for word in ping.found.words.split()}
        if not other or (told_of_way and not named.intersection((*self._ready[other].node, ping.via))):
            words, owner = f"{host}: {ping.found.words}", ""
        else:
            words, owner = f"{other}, as {host} sees it: {ping.found.words}", other
        return Blame(ping.found.name, words, owner, self._advice(ping.found.advice, host))

    def _own(self, host: str, other: str, ping: Ping) -> Blame:
        """Return the fault that `host` found on itself."""
        assert ping.found is not None
        if ping.found.name in _WITHOUT_PEER and other and not ping.via:
            return self._no_peer(host, other, ping, None)
        return Blame(ping.found.name, f"{host}: {ping.found.words}", host, self._advice(ping.found.advice, host))

    def _no_peer(self, host: str, other: str, ping: Ping, answer_of: Ping | None) -> Blame:
        """Say that `host` has no peer for the pods of `other`; without a cause of its own, by that of `answer_of`."""
        cidr = _cidr_of(self._ready[other], ping.family)
        words = f"{host} has no peer for {other}'s pod CIDR {cidr}"
        if ping.found is not None and ping.found.name == _UNCLAIMED:
            words += ": its source of peers says that no node has this pod CIDR"
        if ping.found is not None:
            advice = self._advice(ping.found.advice, host)
        else:
            advice = self._advice(answer_of.found.advice, other) if answer_of and answer_of.found else None
        return Blame("no-peer", words, host, advice)

    def _advice(self, advice: Advice | None, host: str) -> Advice | None:
        """Return a hint with the name of the host where it is to be followed: without another, where it was found."""
        if advice is None or not advice.text:
            return None
        on = self._addresses.get(advice.on, advice.on) or host
        text = advice.text
        if advice.command:
            text = f"on {on}: {advice.command}"
        elif not text.startswith("on "):
            text = f"on {on}: {text}"
        return replace(advice, text=text, on=on)

    def _lost(self, name: str) -> Blame:
        fault = self._reports[name].fault or "it reported nothing of this pair"
        return Blame("not-reached", f"{name} said no more: {fault}", name)

    def _shared_cidr(self, sender: str, receiver: str, family: str) -> Blame | None:
        """Say so if one of the two shares its pod CIDR with any host: whoever answers may be the wrong one."""
        for name in (sender, receiver):
            other = self._shared.get((name, family))
            if other is not None:
                cidrs = dict.fromkeys(_cidr_of(self._ready[host], family) for host in sorted((name, other)))
                words = f"{' and '.join(sorted((name, other)))} have overlapping pod CIDRs: {' and '.join(cidrs)}"
                advice = Advice("move one node's pods, correct its pod CIDR in the source, then: cnictl cluster apply")
                return Blame("shared-pod-cidr", words, "", advice)
        return None

    def _answered_by_another(self, cell: Cell) -> Blame:
        assert cell.ping is not None
        token = self._ready[cell.sender].token
        others = [name for series in cell.ping.series for name in self._seen.get((token, series), {})]
        to, sender, receiver = cell.ping.to, cell.sender, cell.receiver
        if others:
            words = f"{others[0]}'s pod answered {sender} for {to}, the address of {receiver}'s pod"
            return Blame("wrong-host", words, others[0])
        words = f"somebody else answered {sender} for {to}: {receiver}'s pod, which has that address, saw no request"
        return Blame("wrong-host", words)

    def _masquerades(self, cell: Cell, seen: str) -> Blame:
        """Say whose address the receiver saw in place of the pod's."""
        host = self._addresses.get(seen, "")
        for name in (cell.sender, cell.receiver):
            if any(seen == gateway_of(cidr) for cidr in self._ready[name].pod_cidrs):
                host = host or name
        pod = cell.ping.source if cell.ping else ""
        words = f"{cell.receiver}'s pod saw {seen} instead of {pod}: a rule on the way changes the source"
        if host:
            words = f"{host} masquerades what pod {pod} sends to other pods: they see {seen}"
        where = f"on {host}: " if host else ""
        text = f"{where}look for the rule: nft list ruleset; iptables -t nat -S POSTROUTING"
        return Blame("masqueraded", words, host, Advice(text, on=host))


def _answered(ping: Ping) -> str:
    if not ping.received:
        return SILENT
    return LOSS if ping.received < ping.sent else OK


def _cidr_of(ready: Ready, family: str) -> str:
    return of_family(ready.pod_cidrs, ":" if family == "ipv6" else "")


def _sharing(ready: Mapping[str, Ready]) -> dict[tuple[str, str], str]:
    """Return by host and family another host whose pod CIDR overlaps its own."""
    shared = {}
    for family in ("ipv4", "ipv6"):
        ranges = [(parse_cidr(cidr), name) for name in ready if (cidr := _cidr_of(ready[name], family))]
        widest: tuple[int, str] | None = None  # the last address so far, and whose it is
        for subnet, name in sorted(ranges, key=lambda pair: (pair[0].first, pair[0].last)):
            if widest is not None and subnet.first <= widest[0]:
                shared[name, family] = widest[1]
                shared.setdefault((widest[1], family), name)
            if widest is None or subnet.last > widest[0]:
                widest = subnet.last, name
    return shared


def _unexplained(cell: Cell, seen: bool) -> Blame:
    """Say how far a request came, where no host knows the cause."""
    who = {NODE_POD: f"{cell.sender} itself", POD_EXTERNAL: f"{cell.sender}'s pod"}
    whom = cell.receiver and (cell.receiver if cell.check == POD_NODE else f"{cell.receiver}'s pod")
    sender = who.get(cell.check, f"{cell.sender}'s pod")
    if seen:
        words = f"{whom} saw the request of {sender}, and its answer was lost on the way"
    elif cell.check == POD_EXTERNAL:
        words = f"{sender} got no answer from {cell.ping.to if cell.ping else 'outside'}"
    elif cell.check == POD_NODE:
        words = f"{whom} did not answer {sender}"
    else:
        words = f"the request of {sender} was lost before {whom} saw it"
    text = f"run cnictl doctor on {cell.sender}" + (f" and on {cell.receiver}" if cell.receiver else "")
    return Blame("unexplained", words, "", Advice(text))
