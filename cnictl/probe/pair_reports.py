"""What a host and the operator's machine tell each other during `cnictl cluster test`: four lines of JSON.

The host says that its probe pod is up (`Ready`) and is told whom to ping (`Request`). It answers with what came back
(`Ping`) and, once every host has pinged, with what its pod saw (`Seen`). Both sides read each other's lines strictly:
other hosts' words are bounded, and reach terminals.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from cnictl.core import outside
from cnictl.core.cidr import AddressError, format_address, parse_address, parse_cidr
from cnictl.core.errors import Problem

VERSION = 1
"""Of these lines. A host of another version is not tested."""
LONGEST_LINE = 4 << 20
"""Characters; a request that names 5,000 hosts has a third of it."""
FINISH = '{"finish": true}\n'
"""Asks a host for what its pod saw."""

POD_POD, POD_NODE, NODE_POD, POD_EXTERNAL = "pod-pod", "pod-node", "node-pod", "pod-external"
CHECKS = (POD_POD, NODE_POD, POD_NODE, POD_EXTERNAL)

_MOST = 10_000
"""Entries of a list in a line."""

T = TypeVar("T")


class BadReport(Problem):
    """A line that is no such report."""


@dataclass(frozen=True)
class Target:
    """Another host, as it says itself. Of its addresses there is at most one a family."""

    name: str
    token: str
    """Marks its echo requests."""
    pod: tuple[str, ...]
    """The addresses of its probe pod."""
    node: tuple[str, ...]
    """Its own addresses towards its peers."""
    pod_cidrs: tuple[str, ...]


@dataclass(frozen=True)
class Ready:
    """A host whose probe pod is up."""

    token: str
    release: str
    """cnictl's version there."""
    pod: tuple[str, ...]
    node: tuple[str, ...]
    pod_cidrs: tuple[str, ...]
    networks: tuple[str, ...]

    def as_target(self, name: str) -> Target:
        """Return the host as others are told of it."""
        return Target(name, self.token, self.pod, self.node, self.pod_cidrs)


@dataclass(frozen=True)
class Request:
    """Whom a host pings, and who pings it."""

    targets: tuple[Target, ...]
    count: int = 3
    timeout: float = 1.0


@dataclass(frozen=True)
class Advice:
    """A hint in its parts, as `cnictl.node.hint` has them."""

    text: str
    command: str = ""
    option: str = ""
    on: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the hint for programs, as `cnictl.node.hint.as_json` does."""
        return asdict(self)


@dataclass(frozen=True)
class Found:
    """The cause of a failure, as the host found it that sent the requests."""

    name: str
    words: str
    here: bool
    """Whether the fault is on that host itself."""
    advice: Advice | None = None


@dataclass(frozen=True)
class Ping:
    """Echo requests to one address, and what came back."""

    check: str
    family: str
    """`ipv4` or `ipv6`."""
    host: str
    """The host that the address belongs to; empty for one outside the cluster."""
    source: str
    """The sender's own address; of a node it is the kernel's choice, and empty."""
    to: str
    series: tuple[int, ...]
    """The numbers of its series of requests: a receiver tells them by these."""
    sent: int
    received: int
    rtt_ms: tuple[float, float, float] | None = None
    """Shortest, mean and longest round trip."""
    via: str = ""
    """The node address through which the sender knows the target as a peer; empty if it knows no such peer."""
    found: Found | None = None
    skipped: str = ""
    """Why nothing was sent."""


@dataclass(frozen=True)
class Seen:
    """Echo requests that reached a pod: their sender's token, their series, and each source that they came from."""

    token: str
    series: int
    sources: tuple[str, ...]


def ready_line(ready: Ready) -> str:
    """Return what a host says first."""
    return _line({"version": VERSION, "ready": asdict(ready)})


def request_line(request: Request) -> str:
    """Return what a host is asked."""
    return _line({"version": VERSION, "request": asdict(request)})


def pings_line(pings: Sequence[Ping]) -> str:
    """Return what a host's requests led to."""
    return _line({"version": VERSION, "pings": [asdict(ping) for ping in pings]})


def seen_line(seen: Sequence[Seen]) -> str:
    """Return what a host's pod saw."""
    return _line({"version": VERSION, "seen": [asdict(sighting) for sighting in seen]})


def read_ready(line: str) -> Ready:
    """Return what `ready_line` said. Raises BadReport."""

    def read(form: Any) -> Ready:
        return Ready(
            _token(form["token"]),
            _word(form["release"]),
            _each(form["pod"], _address),
            _each(form["node"], _address),
            _each(form["pod_cidrs"], _cidr),
            _each(form["networks"], _cidr),
        )

    return _read(line, "ready", read)


def read_request(line: str) -> Request:
    """Return what `request_line` said. Raises BadReport."""

    def target(form: Any) -> Target:
        addresses = _each(form["pod"], _address), _each(form["node"], _address), _each(form["pod_cidrs"], _cidr)
        return Target(_word(form["name"]), _token(form["token"]), *addresses)

    def read(form: Any) -> Request:
        count, timeout = _number(form["count"], 1, 100), float(form["timeout"])
        if not 0 < timeout <= 60:
            raise ValueError("timeout")
        return Request(_each(form["targets"], target), count, timeout)

    return _read(line, "request", read)


def read_pings(line: str) -> tuple[Ping, ...]:
    """Return what `pings_line` said. Raises BadReport."""
    return _read(line, "pings", lambda forms: _each(forms, _ping))


def read_seen(line: str) -> tuple[Seen, ...]:
    """Return what `seen_line` said. Raises BadReport."""

    def seen(form: Any) -> Seen:
        return Seen(_token(form["token"]), _number(form["series"]), _each(form["sources"], _address))

    return _read(line, "seen", lambda forms: _each(forms, seen))


def _ping(form: Any) -> Ping:
    if set(form) != {field.name for field in fields(Ping)} or form["check"] not in CHECKS:
        raise ValueError("ping")
    found, rtt = form["found"], form["rtt_ms"]
    return Ping(
        form["check"],
        "ipv6" if form["family"] == "ipv6" else "ipv4",
        _word(form["host"]),
        _address(form["source"]) if form["source"] else "",
        _address(form["to"]) if form["to"] else "",
        _each(form["series"], _number),
        _number(form["sent"]),
        _number(form["received"]),
        (_time(rtt[0]), _time(rtt[1]), _time(rtt[2])) if rtt else None,
        _address(form["via"]) if form["via"] else "",
        _found(found) if found else None,
        outside.line(_text(form["skipped"])),
    )


def _found(form: Any) -> Found:
    advice = form["advice"]
    parts = {field.name: outside.line(_text(advice[field.name])) for field in fields(Advice)} if advice else {}
    name, words = _word(form["name"]), outside.line(_text(form["words"]))
    return Found(name, words, form["here"] is True, Advice(**parts) if parts else None)


def _line(document: dict[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":")) + "\n"


def _read(line: str, key: str, read: Callable[[Any], T]) -> T:
    if len(line) > LONGEST_LINE:
        raise BadReport(f"a line of more than {LONGEST_LINE} characters")
    try:
        document = json.loads(line)
        if not isinstance(document, Mapping) or "version" not in document:
            raise ValueError("no report")
        if document["version"] != VERSION:
            told = outside.word(str(document["version"]), 20)
            raise BadReport(f"it speaks version {told} of the test's reports, not {VERSION}")
        return read(document[key])
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError, AddressError):
        raise BadReport(f"no report: {outside.line(line.strip(), 200) or 'an empty line'}") from None


def _each(forms: Any, read: Callable[[Any], T]) -> tuple[T, ...]:
    if not isinstance(forms, list) or len(forms) > _MOST:
        raise ValueError("list")
    return tuple(read(form) for form in forms)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("text")
    return value


def _word(value: Any) -> str:
    return outside.word(_text(value))


def _token(value: Any) -> str:
    if len(bytes.fromhex(_text(value))) != 8:
        raise ValueError("token")
    return str(value)


def _number(value: Any, least: int = 0, most: int = 1 << 31) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError("number")
    return value


def _time(value: Any) -> float:
    if not 0 <= float(value) < 1e6:  # neither is true of NaN
        raise ValueError("time")
    return float(value)


def _address(value: Any) -> str:
    return format_address(parse_address(_text(value)))


def _cidr(value: Any) -> str:
    return str(parse_cidr(_text(value)))
