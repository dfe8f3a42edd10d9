"""What is known of a running lab, in a file of the user's runtime folder, and whether it still runs."""

import fcntl
import json
import os
import re
import select
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cnictl.core import durable
from cnictl.core.errors import Problem, UsageProblem
from cnictl.lab.plan import Machine

_VERSION = 1


@dataclass(frozen=True)
class Running:
    """A lab's holder and machines, by pid."""

    holder: int
    started: str
    """The holder's start time and the boot it belongs to: with the pid, what tells it from any other process."""
    machines: tuple[tuple[Machine, int], ...]


def folder() -> Path:
    """Where this user's labs are noted: made if missing. Raises Problem if somebody else made it."""
    user = os.geteuid()
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    if user == 0 and os.access("/run", os.W_OK):
        place = Path("/run/cnictl-lab")
    elif given and os.path.isdir(given) and os.stat(given).st_uid == user:
        place = Path(given) / "cnictl-lab"
    else:
        place = Path(f"/tmp/cnictl-lab-{user}")
    place.mkdir(mode=0o700, exist_ok=True)
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != user:
        raise Problem(f"{place} belongs to somebody else", "remove it, or set XDG_RUNTIME_DIR to a folder of yours")
    return place


@contextmanager
def locked(name: str) -> Iterator[Path]:
    """The lab's state file, while no other command works on this user's labs.

    Raises UsageProblem for a name that is none.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", name):
        raise UsageProblem(f"lab name {name!r}: use lower-case letters, digits and '-', at most 31")
    place, lock = _locked_folder()
    try:
        yield place / f"{name}.json"
    finally:
        try:
            place.rmdir()
        except OSError:
            pass  # not empty: a lab is up
        os.close(lock)


def _locked_folder() -> tuple[Path, int]:
    while True:
        place = folder()
        try:
            lock = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # whoever held it before took it away, empty
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock).st_nlink:
            return place, lock
        os.close(lock)


def read(path: Path) -> Running | None:
    """The lab noted in `path` if its holder lives, else None."""
    try:
        form = json.loads(durable.contents(str(path)))
        machines = tuple((Machine(**one["machine"]), int(one["pid"])) for one in form["machines"])
        found = Running(int(form["holder"]), form["started"], machines)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None  # written whole or not at all, so anything else is another version's
    return found if form.get("version") == _VERSION and identity(found.holder) == found.started else None


def write(path: Path, running: Running) -> None:
    """Note a lab; the file appears whole."""
    form = {
        "version": _VERSION,
        "holder": running.holder,
        "started": running.started,
        "machines": [{"machine": machine.as_json(), "pid": pid} for machine, pid in running.machines],
    }
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(form, indent=2) + "\n", encoding="utf-8")
    fresh.replace(path)


def identity(pid: int) -> str:
    """Boot id and start time (clock ticks) of a living process; empty if there is none. proc(5)."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    if after_name[0] in "ZX":
        return ""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text(encoding='ascii').strip()} {after_name[19]}"


def end(running: Running, timeout: float = 10.0) -> None:
    """Kill the holder and wait until it, and with it the whole lab, is gone. Raises Problem after `timeout` seconds."""
    try:
        holder = os.pidfd_open(running.holder)
    except ProcessLookupError:
        return
    try:
        if identity(running.holder) != running.started:
            return
        signal.pidfd_send_signal(holder, signal.SIGKILL)
        # readable once the process has ended, and process 1 of a pid namespace ends after all others in it
        ended, _, _ = select.select([holder], [], [], timeout)
    except ProcessLookupError:
        return
    finally:
        os.close(holder)
    if not ended:
        raise Problem(f"the lab's holder (pid {running.holder}) has not ended after {timeout:g} s")
