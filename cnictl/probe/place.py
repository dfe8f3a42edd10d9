"""Parse the target of `cnictl ping`: `TO`, `TO:PORT` or `TO:PORT/udp`. Pure."""

import re
from dataclasses import dataclass

from cnictl.core.cidr import is_address
from cnictl.core.errors import UsageProblem
from cnictl.probe.ports import PROTOCOLS, TCP, UDP

ICMP = "icmp"
_LAST_PORT = 65535
_EXAMPLES = "such as web, web:80, 10.244.0.5:53/udp or [fd00::5]:80"
_PORT = re.compile(r"(\d{1,5})(?:/(tcp|udp))?")
_SERVICE = re.compile(r"[A-Za-z][A-Za-z0-9-]*(?:/(?:tcp|udp))?")


@dataclass(frozen=True)
class Place:
    """The parts of a target."""

    name: str
    port: int = 0
    """0 for ICMP."""
    protocol: str = ICMP
    """`icmp`, `tcp` or `udp`."""

    @property
    def service(self) -> str:
        """Protocol and port in words: `ICMP`, `TCP port 80`."""
        return f"{self.protocol.upper()} port {self.port}" if self.port else "ICMP"


def parse_place(text: str) -> Place:
    """Return the parts of a target. An IPv6 address with a port is in brackets. Raises UsageProblem."""
    if is_address(text.rpartition("/")[0].strip("[]")) and (meant := without_port(text)):
        raise UsageProblem(f"{text!r}: a port is missing: {meant}")
    if text.startswith("["):
        name, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise UsageProblem(f"{text!r}: an IPv6 address with a port is written like [fd00::5]:80")
        return _with_port(text, name, rest[1:]) if rest else Place(name)
    if text.count(":") > 1:
        return Place(text)
    name, colon, port = text.partition(":")
    if not name:
        raise UsageProblem(f"{text!r} names no target", _EXAMPLES)
    return _with_port(text, name, port) if colon else Place(name)


def as_target(address: str, port: int | str, protocol: str = TCP) -> str:
    """Return an address with a port as it is typed: `10.244.0.5:80`, `[fd00::5]:53/udp`."""
    host = f"[{address}]" if ":" in address else address
    return f"{host}:{port}" + (f"/{UDP}" if protocol == UDP else "")


def without_port(text: str) -> str:
    """Return the intended target if `text` has a protocol but no port: `web:PORT/udp` for `web/udp`; else empty."""
    name, slash, protocol = text.rpartition("/")
    return as_target(name.strip("[]"), "PORT", protocol) if slash and name and protocol in PROTOCOLS else ""


def _with_port(text: str, name: str, port: str) -> Place:
    if _SERVICE.fullmatch(port):
        service, _, protocol = port.partition("/")
        typed = as_target(name, "PORT", protocol)
        raise UsageProblem(f"{text!r}: {service!r} is a service's name, not a port; give its number: {typed}")
    match = _PORT.fullmatch(port)
    if match is None or not 0 < int(match[1]) <= _LAST_PORT:
        raise UsageProblem(f"{text!r}: {port!r} is not a port from 1 to {_LAST_PORT}, with /udp or without", _EXAMPLES)
    return Place(name, int(match[1]), UDP if match[2] == UDP else TCP)
