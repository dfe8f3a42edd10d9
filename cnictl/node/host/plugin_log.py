"""Read the plugin's log: one call on each line, including the rotated part."""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from cnictl.core import durable
from cnictl.core.paths import PLUGIN_LOG
from cnictl.node.spec import pod_names
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.node.spec.pod_names import Names

_LINE = re.compile(
    r"(?P<time>\S+) (?P<level>\S+) (?P<verb>\S+) (?P<ms>[\d.]+)ms container=(?P<container>\S+) ifname=(?P<ifname>\S+) "
    r"pod=(?P<pod>\S+) address=(?P<address>.*?) (?:netns=.*? args=.*? )?outcome=(?P<outcome>.*)"
)
LARGEST = 64 << 20
"""The most bytes of a log that are read; of a longer log, only the end is read."""
_PIECE = 1 << 20
_SHORTEST = 4
"""The fewest characters of an id to search for; a shorter part would match many ids of a long log."""
_LOOK = 0.2
"""Seconds between two reads of a log that is followed."""


@dataclass(frozen=True)
class Call:
    """One call of the plugin."""

    time: str
    """UTC, in the form of RFC 3339."""
    failed: bool
    verb: str
    milliseconds: float
    container: str
    ifname: str
    pod: str
    address: str
    outcome: str
    """`ok`, or the error."""

    @property
    def of_probe(self) -> bool:
        """Whether the call is about a short-lived pod of cnictl's own tests."""
        return self.pod.startswith(f"{pod_names.PROBE_NAMESPACE}/{pod_names.PROBE_PREFIX}")

    def is_of(self, who: str) -> bool:
        """Return whether the call is about this pod (`namespace/name` or `name`), container (id prefix) or address."""
        return bool(pod_names.named(who, [self], _names, _SHORTEST))


def _names(call: Call) -> Names:
    plain = (text.partition("/")[0] for text in call.address.split())
    return Names(tuple(text for text in plain if pod_names.address_in(text)), call.pod, call.container)


def path_of(spec: NodeSpec | None) -> str:
    """Return the path of the log."""
    return spec.log_file if spec is not None and spec.log_file else PLUGIN_LOG


def parse(line: str) -> Call | None:
    """Return the call of a line; None if it is not a complete line from the plugin."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    fields = {key: "" if value == "-" else value for key, value in match.groupdict().items()}
    return Call(
        fields["time"], fields["level"] == "error", fields["verb"], float(fields["ms"]), fields["container"],
        fields["ifname"], fields["pod"], fields["address"], fields["outcome"],
    )  # fmt: skip


def calls(path: str) -> Iterator[Call]:
    """Yield every call in the log and in its last rotated part, oldest first; none if there is no log."""
    for part in (f"{path}.1", path):
        yield from filter(None, map(parse, latest(part).splitlines()))


def latest(path: str, most: int = 0) -> str:
    """Return the end of a log, at most `most` bytes (default `LARGEST`); empty if there is none."""
    file = open_part(path)
    if file is None:
        return ""
    most = most or LARGEST
    with file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - most))
        return file.read(most).decode("utf-8", "replace")


def follow(path: str, wait: Callable[[float], None]) -> Iterator[Call]:
    """Yield each new call, for ever, even if the file is rotated or does not exist yet.

    `wait` waits for some seconds; its error ends the loop.
    """
    file = open_part(path)
    if file is not None:
        file.seek(0, os.SEEK_END)
    rest = b""
    while True:
        text = file.read(_PIECE) if file is not None else b""
        *lines, rest = (rest[-_PIECE:] + text).split(b"\n")
        yield from filter(None, (parse(line.decode("utf-8", "replace")) for line in lines))
        if not text:
            wait(_LOOK)
            if file is None or not _is_in_place(file.fileno(), path):
                fresh = open_part(path)
                if fresh is not None and file is not None:
                    file.close()
                file = fresh or file


def open_part(path: str) -> BinaryIO | None:
    """Open a log to read it; None if there is none, or if it is a pipe or a device."""
    try:
        descriptor = os.open(path, os.O_RDONLY | durable.AT_ONCE)
    except FileNotFoundError:
        return None
    try:
        durable.ensure_regular(descriptor, path)
    except OSError:
        os.close(descriptor)
        return None
    return os.fdopen(descriptor, "rb")


def _is_in_place(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return True  # rotated, but nothing was written since, so the old file may have unread lines
