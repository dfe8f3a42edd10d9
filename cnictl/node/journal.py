"""The journal: what a run is about to do, on disk before it does it, so that a cut-off run can be read afterwards.

One file a run, /var/lib/cnictl/journal/TIME-PID.jsonl, a JSON object a line: first the command, then a line a change
with before, after and the manual command, last how it ended. A file without that last line is of a run cut off.
"""

import json
import os
import time
from typing import Any

from cnictl.core import durable
from cnictl.core.paths import STATE_DIR

FOLDER = f"{STATE_DIR}/journal"
KEPT = 20
"""Runs whose journal is kept."""


class Journal:
    """One run's journal. The file appears with the first change: a run that changes nothing leaves none."""

    def __init__(self, command: str) -> None:
        self._command = command
        self._path = f"{FOLDER}/{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}.jsonl"
        self._begun = False
        self.outcome = ""
        """How the run ended; empty while it lasts."""

    def begin(self, resource: str, before: dict[str, Any] | None, after: dict[str, Any] | None, command: str) -> None:
        """Note a change that is about to be made; it is on disk when this returns. Raises OSError."""
        if not self._begun:
            durable.make_folder(FOLDER, 0o700)
            _drop_old()
            self._write({"command": self._command, "time": time.time()})
            self._begun = True
        self._write({"resource": resource, "before": before, "after": after, "command": command})

    def end(self, outcome: str) -> None:
        """Note how the run ended: `done`, `undone`, or `failed` where something could not be undone."""
        self.outcome = outcome
        if self._begun:
            self._write({"end": outcome})

    def _write(self, entry: dict[str, Any]) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, json.dumps(entry).encode() + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def cut_off() -> list[str]:
    """The changes of the last run, in the order it began them, if it never came to its end; else nothing."""
    names = _names()
    if not names:
        return []
    begun = []
    for line in durable.contents(f"{FOLDER}/{names[-1]}").decode("utf-8", "replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # torn by the same power cut
        if "end" in entry:
            return []
        if "resource" in entry:
            begun.append(str(entry["resource"]))
    return begun


def remove_all() -> None:
    """Remove every journal and their folder: at a reset, when nothing is left that they speak of."""
    for name in _names():
        os.unlink(f"{FOLDER}/{name}")
    if os.path.isdir(FOLDER):
        os.rmdir(FOLDER)


def _names() -> list[str]:
    try:
        return sorted(name for name in os.listdir(FOLDER) if name.endswith(".jsonl"))
    except FileNotFoundError:
        return []


def _drop_old() -> None:
    for name in _names()[: -KEPT + 1]:
        os.unlink(f"{FOLDER}/{name}")
