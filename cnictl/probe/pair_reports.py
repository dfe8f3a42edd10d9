"""Define the messages between hosts and the operator's machine in `cnictl cluster test`, each one line of JSON.

1. The host reports that its probe pod is up (`Ready`).
2. The operator's machine sends the targets to ping (`PairRequest`).
3. The host sends the results (`Ping`).
4. When all hosts have pinged, the host sends what its pod received (`SeenRequests`).

Both sides check each value that they read, because it ends up on terminals.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from cnictl.core import untrusted_text
from cnictl.core.cidr import AddressError, format_address, parse_address, parse_cidr
from cnictl.core.errors import Problem
from cnictl.node import hint
from cnictl.node.hint import NONE, Hint

VERSION = 1
"""The version of these messages. A host that uses another version is not tested."""
LONGEST_LINE = 4 << 20
"""The largest number of characters in a line. A request that names 5,000 hosts takes a third of it."""
FINISH = '{"finish": true}\n'
"""Asks a host for the requests that its pod received."""

POD_POD, POD_NODE, NODE_POD, POD_EXTERNAL = "pod-pod", "pod-node", "node-pod", "pod-external"
CHECKS = (POD_POD, NODE_POD, POD_NODE, POD_EXTERNAL)

_MOST = 10_000
"""The largest number of entries in a list of a message."""

T = TypeVar("T")


class BadReport(Problem):
    """A line that is not the expected message."""


@dataclass(frozen=True)
class Target:
    """Another host to ping, as it describes itself. It has at most one address of each kind per address family."""

    name: str
    token: str
    """The mark in its echo requests."""
    pod: tuple[str, ...]
    """The addresses of its probe pod."""
    node: tuple[str, ...]
    """Its own addresses towards its peers."""
    pod_cidrs: tuple[str, ...]


@dataclass(frozen=True)
class Ready:
    """A host whose probe pod is up."""

    token: str
    version: str
    """The version of cnictl on that host."""
    pod: tuple[str, ...]
    node: tuple[str, ...]
    pod_cidrs: tuple[str, ...]
    networks: tuple[str, ...]
    mtu: int = 0
    """The MTU of its bridge; 0 if it is not known."""

    def as_target(self, name: str) -> Target:
        """Return the host as a target for the other hosts."""
        return Target(name, self.token, self.pod, self.node, self.pod_cidrs)


@dataclass(frozen=True)
class PairRequest:
    """The hosts that a host pings; the same hosts ping it."""

    targets: tuple[Target, ...]
    count: int = 3
    timeout: float = 1.0
    externals: tuple[str, ...] = ()
    """Addresses outside the cluster to ping, at most one per family; for other families, the host chooses."""


@dataclass(frozen=True)
class ReportedCause:
    """The cause of a failure, as the host that sent the requests found it."""

    name: str
    words: str
    here: bool
    """Whether the fault is on that host itself."""
    hint: Hint = NONE


@dataclass(frozen=True)
class Ping:
    """Echo requests to one address, and what came back."""

    check: str
    family: str
    """`ipv4` or `ipv6`."""
    host: str
    """The host that the address belongs to; empty for one outside the cluster."""
    source: str
    """The sender's address; empty for a node, where the kernel chooses it."""
    to: str
    series: tuple[int, ...]
    """The numbers of its series of requests, by which the receiver recognizes them."""
    sent: int
    received: int
    rtt_ms: tuple[float, float, float] | None = None
    """Shortest, mean and longest round trip."""
    via: str = ""
    """The node address through which the sender knows the target as a peer; empty if it knows no such peer."""
    cause: ReportedCause | None = None
    skipped: str = ""
    """Why nothing was sent."""


@dataclass(frozen=True)
class SeenRequests:
    """Echo requests that reached a pod: the sender's token, the series, and each source address."""

    token: str
    series: int
    sources: tuple[str, ...]


def ready_line(ready: Ready) -> str:
    """Return a host's first message."""
    return _line({"version": VERSION, "ready": asdict(ready)})


def request_line(request: PairRequest) -> str:
    """Return the message that tells a host which targets to ping."""
    return _line({"version": VERSION, "request": asdict(request)})


def pings_line(pings: Sequence[Ping]) -> str:
    """Return the message with the results of a host's pings."""
    return _line({"version": VERSION, "pings": [_ping_form(ping) for ping in pings]})


def seen_line(seen: Sequence[SeenRequests]) -> str:
    """Return the message with the requests that a host's pod received."""
    return _line({"version": VERSION, "seen": [asdict(sighting) for sighting in seen]})


def read_ready(line: str) -> Ready:
    """Read what `ready_line` wrote. Raises BadReport."""

    def read(form: Any) -> Ready:
        return Ready(
            _token(form["token"]),
            _word(form["version"]),
            _each(form["pod"], _address),
            _each(form["node"], _address),
            _each(form["pod_cidrs"], _cidr),
            _each(form["networks"], _cidr),
            _number(form["mtu"]),
        )

    return _read(line, "ready", read)


def read_request(line: str) -> PairRequest:
    """Read what `request_line` wrote. Raises BadReport."""

    def target(form: Any) -> Target:
        addresses = _each(form["pod"], _address), _each(form["node"], _address), _each(form["pod_cidrs"], _cidr)
        return Target(_word(form["name"]), _token(form["token"]), *addresses)

    def read(form: Any) -> PairRequest:
        count, timeout = _number(form["count"], 1, 100), float(form["timeout"])
        if not 0 < timeout <= 60:
            raise ValueError("timeout")
        externals = _each(form.get("externals", ()), _address)
        return PairRequest(_each(form["targets"], target), count, timeout, externals)

    return _read(line, "request", read)


def read_pings(line: str) -> tuple[Ping, ...]:
    """Read what `pings_line` wrote. Raises BadReport."""
    return _read(line, "pings", lambda forms: _each(forms, _ping))


def read_seen(line: str) -> tuple[SeenRequests, ...]:
    """Read what `seen_line` wrote. Raises BadReport."""

    def seen(form: Any) -> SeenRequests:
        return SeenRequests(_token(form["token"]), _number(form["series"]), _each(form["sources"], _address))

    return _read(line, "seen", lambda forms: _each(forms, seen))


def _ping_form(ping: Ping) -> dict[str, Any]:
    form = asdict(ping)
    if ping.cause is not None:
        form["cause"]["hint"] = hint.as_json(ping.cause.hint)
    return form


def _ping(form: Any) -> Ping:
    if set(form) != {field.name for field in fields(Ping)} or form["check"] not in CHECKS:
        raise ValueError("ping")
    cause, rtt = form["cause"], form["rtt_ms"]
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
        _cause(cause) if cause else None,
        untrusted_text.line(_text(form["skipped"])),
    )


def _cause(form: Any) -> ReportedCause:
    parts = form["hint"]
    if parts is not None:
        parts = {name: untrusted_text.line(_text(parts[name])) for name in ("text", "command", "option", "on")}
    name, words = _word(form["name"]), untrusted_text.line(_text(form["words"]))
    return ReportedCause(name, words, form["here"] is True, hint.from_json(parts))


def _line(document: dict[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":")) + "\n"


def _read(line: str, key: str, read: Callable[[Any], T]) -> T:
    if len(line) > LONGEST_LINE:
        raise BadReport(f"a line of more than {LONGEST_LINE} characters")
    try:
        document = json.loads(line)
        if not isinstance(document, Mapping) or "version" not in document:
            raise ValueError("version")
        if document["version"] != VERSION:
            version = untrusted_text.word(str(document["version"]), 20)
            raise BadReport(f"it uses version {version} of the test's messages, not {VERSION}")
        return read(document[key])
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError, AddressError):
        raise BadReport(
            f"not a message of the test: {untrusted_text.line(line.strip(), 200) or 'an empty line'}"
        ) from None


def _each(forms: Any, read: Callable[[Any], T]) -> tuple[T, ...]:
    if not isinstance(forms, list) or len(forms) > _MOST:
        raise ValueError("list")
    return tuple(read(form) for form in forms)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("text")
    return value


def _word(value: Any) -> str:
    return untrusted_text.word(_text(value))


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
