"""The journal: what a run is about to do, on disk before it does it, so that a run can be read and taken back later.

One file a run, /var/lib/cnictl/journal/NUMBER.jsonl, a JSON object a line: first what was called, then a line a change
with before, after and the manual command, among them what became of the run. A file without an `end` is of a run cut
off. `cnictl.node.runs.history` reads them.
"""

import json
import os
import re
import sys
import time
from dataclasses import dataclass, field, fields
from typing import Any

from cnictl.core import durable, liveness, odd
from cnictl.core.paths import STATE_DIR
from cnictl.node.state import original_state

FOLDER = f"{STATE_DIR}/journal"
_NAMED = re.compile(r"[0-9]{6,12}\.jsonl")
KEPT = 100
"""Runs whose journal is kept."""

DONE, UNDONE, FAILED, FINISHED = "done", "undone", "failed", "finished"
"""Outcomes: all done; taken back by itself; not all could be done or taken back; cut off and gone on with since."""

State = dict[str, Any]


class Journal:
    """One run's journal. The file appears with the first change: a run that changes nothing leaves none.

    The caller holds `spine.exclusive` from before it makes one until after its `end`.
    """

    def __init__(self, command: str, about: dict[str, Any] | None = None, repairs: bool = False) -> None:
        """`command` as people call it: `route add-peer`, `watch`. `about`: more that the first line is to say.

        `repairs`: every change of this run is a repair.
        """
        self.command = command
        self._repairs = repairs
        self._head = {
            "command": command, "argv": sys.argv[1:], "former": original_state.snapshot(), "marks_repairs": True,
            **(about or {}),
        }  # fmt: skip
        self.number = 0
        """What `cnictl history` calls the run; 0 before its first change."""
        self.outcome = ""
        """How the run ended; empty while it lasts."""

    def begin(
        self,
        resource: str,
        before: State | None,
        after: State | None,
        command: str,
        summary: str = "",
        repair: bool = False,
    ) -> None:
        """Note a change that is about to be made; it is on disk when this returns. Raises OSError.

        `resource` is a resource's id, or names what else is changed: `lease/mynet/10.244.0.7`, `attachment/…`; of
        that, `cnictl undo` says that it can't be taken back. `repair`: it moves nothing, but brings back what the node
        was set up to be.
        """
        entry: dict[str, Any] = {
            "resource": resource, "before": before, "after": after, "command": command, "summary": summary,
            "repair": repair or self._repairs,
        }  # fmt: skip
        if self.number:
            append(self.number, entry)
        else:
            self._start(entry)

    def failed(self, resource: str) -> None:
        """Note that the change of `resource` that was begun last failed: it may be half made."""
        append(self.number, {"failed": resource})

    def end(self, outcome: str) -> None:
        """Note how the run ended: `done`, `undone`, or `failed`."""
        self.outcome = outcome
        if self.number:
            append(self.number, {"end": outcome})

    def _start(self, first: dict[str, Any]) -> None:
        durable.make_folder(FOLDER, 0o700)
        _drop_old()
        self.number = next_number()
        who = {"boot_id": liveness.boot_id(), "user": os.environ.get("SUDO_USER") or os.environ.get("USER", "")}
        append(self.number, {"time": time.time(), **who, **self._head}, first)


@dataclass(frozen=True)
class Entry:
    """One change, as it was begun."""

    resource: str
    before: State | None
    after: State | None
    command: str
    summary: str
    repair: bool = False
    """Whether it brought back what the node was set up to be."""


@dataclass
class Run:
    """A run as its journal tells it."""

    number: int
    command: str = ""
    argv: list[str] = field(default_factory=list)
    time: float = 0.0
    """Of its first change, in seconds since the epoch, by this host's clock."""
    boot_id: str = ""
    user: str = ""
    former: dict[str, Any] = field(default_factory=dict)
    """What `cnictl.node.state.original_state` held before it."""
    spec: dict[str, Any] | None = None
    """The spec it was to reach, where it had one."""
    undoes: int = 0
    """The run that it took back; 0 if it is no undo."""
    entries: list[Entry] = field(default_factory=list)
    half_made: set[str] = field(default_factory=set)
    """Resources whose change failed, or was under way when the run was cut off."""
    end: str = ""
    """Empty: it was cut off, or is at work."""
    taken_back: int = 0
    """The run that took this one back; 0: none."""
    left: list[str] = field(default_factory=list)
    """What an undo, this one, had to leave, in words."""
    ignored: list[str] = field(default_factory=list)
    """Preflight checks whose findings the operator accepted."""
    confirmed: float = 0.0
    whole: bool = False
    """Of an undo: whether it takes the run's repairs back too."""
    unconfirmed: bool | None = None
    """Of an undo: whether it took back a run that nobody confirmed in time; None in journals of earlier releases."""
    marks_repairs: bool = False
    """Whether the entries say which changes are repairs; those of earlier releases don't."""

    @property
    def undoes_unconfirmed(self) -> bool:
        """Whether the run is the undo of a run that nobody confirmed in time."""
        if self.unconfirmed is None:
            return bool(self.undoes) and self.command.endswith(", not confirmed")
        return self.unconfirmed

    @property
    def is_repair(self) -> bool:
        """Whether the run changed nothing of what the node should be, but brought back what was missing of it."""
        if self.marks_repairs:
            return bool(self.entries) and all(entry.repair for entry in self.entries)
        if self.command in ("watch", "doctor --fix"):
            return True
        return self.command == "apply" and self.spec is not None and self.former.get("specs") == [self.spec]


_LARGEST = 256 << 20
"""Bytes of a journal that are read at most: it holds whole files and rule sets, before and after."""


def append(number: int, *entries: dict[str, Any]) -> None:
    """Add lines to a run's journal by one write(2); they are on disk when this returns. Raises OSError."""
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
    """Every run that has a journal, oldest first."""
    try:
        names = os.listdir(FOLDER)
    except FileNotFoundError:
        return []
    return sorted(int(name.removesuffix(".jsonl")) for name in names if _NAMED.fullmatch(name))


def next_number() -> int:
    """What the next run will be called."""
    return max(numbers(), default=0) + 1


def path_of(number: int) -> str:
    """Where a run's journal is."""
    return f"{FOLDER}/{number:06}.jsonl"


def read(number: int) -> Run | None:
    """A run; None if there is no journal of it (any more), or it can't be read."""
    try:
        lines = durable.contents(path_of(number), _LARGEST).decode("utf-8", "replace").splitlines()
    except OSError as error:
        odd.pass_over_error(path_of(number), error)
        return None
    run, names = Run(number), {entry.name for entry in fields(Run)}
    for line in lines:
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
            for key in names & entry.keys():
                setattr(run, key, entry[key])
    if not run.end and run.entries:
        run.half_made.add(run.entries[-1].resource)
    return run


def runs() -> list[Run]:
    """Every run that there is a journal of, oldest first."""
    return [run for number in numbers() if (run := read(number)) is not None]


def last() -> Run | None:
    """The latest run; None without any."""
    run_numbers = numbers()
    return read(run_numbers[-1]) if run_numbers else None


def unfinished() -> list[Run]:
    """Runs that were cut off, oldest first; of an undo also one that was, before it was noted what it took back.

    The caller holds `spine.exclusive`, so that none is at work.
    """
    run_by_number = {run.number: run for run in runs() if run.entries}
    return [run for run in run_by_number.values() if not run.end or _is_unnoted(run, run_by_number.get(run.undoes))]


def _is_unnoted(run: Run, undone: Run | None) -> bool:
    return undone is not None and run.end == DONE and not run.taken_back and not undone.taken_back


def remove_all() -> None:
    """Remove every journal and their folder: at a reset, when nothing is left that they speak of."""
    if not os.path.isdir(FOLDER):
        return
    for name in os.listdir(FOLDER):
        if name.endswith(".jsonl"):
            os.unlink(f"{FOLDER}/{name}")
    os.rmdir(FOLDER)


def _drop_old() -> None:
    for number in numbers()[: -KEPT + 1]:
        os.unlink(path_of(number))
