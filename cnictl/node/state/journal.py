"""Write and read the journal: each change is on disk before it is made, so that a run can be shown and undone later.

A run has a file /var/lib/cnictl/journal/NUMBER.jsonl with a JSON object per line: first the command, then the changes
with before, after and the manual command, and the run's outcome. A file without an `end` belongs to a run that was cut
off. `cnictl.node.runs.history` reads them.
"""

import json
import os
import re
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from cnictl.core import durable, liveness, skipped_entries
from cnictl.core.paths import STATE_DIR
from cnictl.node.state import original_state

FOLDER = f"{STATE_DIR}/journal"
_NAMED = re.compile(r"[0-9]{6,12}\.jsonl")
_END = re.compile(rb'\n\{"end": "\w+"\}')  # a line, whole: a power cut may tear it
KEPT = 100
"""The number of journals to keep."""

DONE, UNDONE, FAILED, FINISHED = "done", "undone", "failed", "finished"
"""Outcomes: all changes made; undone by the run itself; some not made or undone; cut off and finished later."""

State = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """One change, as it was begun."""

    resource: str
    before: State | None
    after: State | None
    command: str
    summary: str
    repair: bool = False
    """Whether the change only restored what the node was set up to be."""


class Journal:
    """One run's journal. The file appears with the first change, so a run without changes leaves none.

    The caller holds `spine.exclusive` until after `end`.
    """

    def __init__(self, command: str, about: dict[str, Any] | None = None, repairs: bool = False) -> None:
        """`command` is the run's command, such as `route add-peer`; `about` has more keys for the first line.

        `repairs`: every change of this run is a repair.
        """
        self.command = command
        self._repairs = repairs
        self._head = {
            "command": command, "argv": sys.argv[1:], "former": original_state.snapshot(), **(about or {}),
        }  # fmt: skip
        self.number = 0
        """The run's number in `cnictl history`; 0 before its first change."""
        self.outcome = ""
        """The outcome; empty while the run lasts."""

    def begin(
        self,
        resource: str,
        before: State | None,
        after: State | None,
        command: str,
        summary: str = "",
        repair: bool = False,
    ) -> None:
        """Record a change before it is made; it is on disk when this returns. Raises OSError.

        `resource` is a resource's id, or the name of another thing such as `lease/mynet/10.244.0.7`, which
        `cnictl undo` can't restore. `repair`: the change restores what the node was set up to be.
        """
        self.begin_all([Entry(resource, before, after, command, summary, repair)])

    def begin_all(self, changes: Iterable[Entry]) -> None:
        """Record changes that are about to be made together, as `begin` does."""
        entries = [{**vars(change), "repair": change.repair or self._repairs} for change in changes]
        if self.number:
            append(self.number, *entries)
        else:
            self._start(entries)

    def failed(self, resource: str) -> None:
        """Record that the last change of `resource` failed and may be made in part."""
        append(self.number, {"failed": resource})

    def end(self, outcome: str) -> None:
        """Record the outcome: `done`, `undone`, or `failed`."""
        self.outcome = outcome
        if self.number:
            append(self.number, {"end": outcome})

    def _start(self, first: list[dict[str, Any]]) -> None:
        durable.make_folder(FOLDER, 0o700)
        _drop_old()
        self.number = next_number()
        who = {"boot_id": liveness.boot_id(), "user": os.environ.get("SUDO_USER") or os.environ.get("USER", "")}
        append(self.number, {"time": time.time(), **who, **self._head}, *first)


@dataclass
class Run:
    """A run, as recorded in its journal."""

    number: int
    command: str = ""
    argv: list[str] = field(default_factory=list)
    time: float = 0.0
    """The time of its first change in seconds since the epoch, by this host's clock."""
    boot_id: str = ""
    user: str = ""
    former: dict[str, Any] = field(default_factory=dict)
    """The content of `cnictl.node.state.original_state` before the run."""
    spec: dict[str, Any] | None = None
    """The spec that the run applied, if any."""
    undoes: int = 0
    """The run that this one undoes; 0 if it is not an undo."""
    entries: list[Entry] = field(default_factory=list)
    half_made: set[str] = field(default_factory=set)
    """Resources whose change failed, or was under way when the run was cut off."""
    end: str = ""
    """The outcome; empty if the run was cut off or is still running."""
    undone_by: int = 0
    """The run that undid this one; 0 if none did."""
    left: list[str] = field(default_factory=list)
    """What this undo could not undo, in words."""
    ignored: list[str] = field(default_factory=list)
    """Preflight checks whose findings the operator accepted."""
    confirmed: float = 0.0
    whole: bool = False
    """Whether this undo also undoes the run's repairs."""
    unconfirmed: bool = False
    """Whether this undo undid a run that nobody confirmed in time."""

    @property
    def is_repair(self) -> bool:
        """Whether all of the run's changes are repairs."""
        return bool(self.entries) and all(entry.repair for entry in self.entries)


_FIELDS = {"taken_back": "undone_by"}
"""The fields of `Run` for the keys of a journal that have another name."""

_LARGEST = 256 << 20
"""Bytes; a longer journal is not read. It contains whole files and rule sets, before and after each change."""
_LONGEST_HEAD = 1 << 20
"""Bytes; the first line of a journal has the run's command and the host's original state."""


def append(number: int, *entries: dict[str, Any]) -> None:
    """Add lines to a run's journal with one write(2); they are on disk when this returns. Raises OSError."""
    text = b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)
    descriptor = os.open(path_of(number), os.O_RDWR | os.O_APPEND | os.O_CREAT | durable.AT_ONCE, 0o600)
    try:
        durable.ensure_regular(descriptor, path_of(number))
        size = os.fstat(descriptor).st_size
        torn = size and os.pread(descriptor, 1, size - 1) != b"\n"  # by a power cut
        os.write(descriptor, b"\n" + text if torn else text)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def numbers() -> list[int]:
    """Return the numbers of the runs that have a journal, oldest first."""
    try:
        names = os.listdir(FOLDER)
    except FileNotFoundError:
        return []
    return sorted(int(name.removesuffix(".jsonl")) for name in names if _NAMED.fullmatch(name))


def next_number() -> int:
    """Return the number of the next run."""
    return max(numbers(), default=0) + 1


def path_of(number: int) -> str:
    """Return the path of a run's journal."""
    return f"{FOLDER}/{number:06}.jsonl"


def command_of(number: int) -> str:
    """Return a run's command without reading the whole journal; empty if it can't be read."""
    try:
        with os.fdopen(os.open(path_of(number), os.O_RDONLY | durable.AT_ONCE), "rb") as file:
            durable.ensure_regular(file.fileno(), path_of(number))
            head = json.loads(file.readline(_LONGEST_HEAD))
    except (OSError, ValueError):
        return ""
    return str(head.get("command", "")) if isinstance(head, dict) else ""


def read(number: int) -> Run | None:
    """Return a run; None if it has no journal or if the journal can't be read."""
    contents = _contents(number)
    return _parsed(number, contents) if contents is not None else None


def _contents(number: int) -> bytes | None:
    try:
        return durable.contents(path_of(number), _LARGEST)
    except OSError as error:
        skipped_entries.skip_unreadable(path_of(number), error)
        return None


def _parsed(number: int, contents: bytes) -> Run:
    run, names = Run(number), {entry.name for entry in fields(Run)}
    for line in contents.decode("utf-8", "replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # torn by a power cut
        if "resource" in entry:
            summary = entry.get("summary") or entry["command"].partition("\n")[0]
            states = (entry["before"], entry["after"])
            repair = bool(entry.get("repair"))
            run.entries.append(Entry(entry["resource"], *states, entry["command"], summary, repair))
        elif "failed" in entry:
            run.half_made.add(entry["failed"])
        else:
            for key, value in entry.items():
                if (name := _FIELDS.get(key, key)) in names:
                    setattr(run, name, value)
    if not run.end and run.entries:
        run.half_made.add(run.entries[-1].resource)
    return run


def runs() -> list[Run]:
    """Return every run that has a journal, oldest first."""
    return [run for number in numbers() if (run := read(number)) is not None]


def last() -> Run | None:
    """Return the latest run; None without one."""
    run_numbers = numbers()
    return read(run_numbers[-1]) if run_numbers else None


def unfinished() -> list[Run]:
    """Return the runs that were cut off, oldest first, and undos that were cut off before their record was complete.

    The caller holds `spine.exclusive`, so no other run is under way.
    """
    kept = ((number, _contents(number)) for number in numbers())
    waiting = [_parsed(number, text) for number, text in kept if text is not None and not _is_over(text)]
    return [run for run in waiting if run.entries and (not run.end or _is_unnoted(run))]


def _is_over(contents: bytes) -> bool:
    """Return whether a run has ended and is not an undo. Parsing each journal would take seconds with many peers."""
    head = contents.partition(b"\n")[0]
    return bool(_END.search(contents)) and b'"undoes": ' not in head  # a quote within a text has a backslash


def _is_unnoted(run: Run) -> bool:
    if run.undoes not in numbers() or run.end != DONE or run.undone_by:
        return False
    undone = read(run.undoes)
    return undone is not None and not undone.undone_by


def remove_all() -> None:
    """Remove every journal and their folder, at a reset."""
    if not os.path.isdir(FOLDER):
        return
    for name in os.listdir(FOLDER):
        if name.endswith(".jsonl"):
            os.unlink(f"{FOLDER}/{name}")
    os.rmdir(FOLDER)


def _drop_old() -> None:
    for number in numbers()[: -KEPT + 1]:
        os.unlink(path_of(number))
