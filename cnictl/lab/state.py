"""Record a running lab in a file in the user's runtime folder, and check whether it still runs."""

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
    """The boot and the holder's start time: together with the pid they identify the process."""
    machines: tuple[tuple[Machine, int], ...]


def folder_path() -> Path:
    """Return the path of the folder for this user's labs, even if it does not exist."""
    user = os.geteuid()
    runtime_dir = os.environ.get("XDG_RUNTIME_DIR", "")
    if user == 0 and os.access("/run", os.W_OK):
        return Path("/run/cnictl-lab")
    if runtime_dir and os.path.isdir(runtime_dir) and os.stat(runtime_dir).st_uid == user:
        return Path(runtime_dir) / "cnictl-lab"
    return Path(f"/tmp/cnictl-lab-{user}")


def folder() -> Path:
    """Return the folder for this user's labs; create it if missing. Raises Problem if it belongs to another user."""
    user, place = os.geteuid(), folder_path()
    place.mkdir(mode=0o700, exist_ok=True)
    status = place.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != user:
        raise Problem(f"{place} belongs to another user", "remove it, or set XDG_RUNTIME_DIR to a folder of yours")
    return place


@contextmanager
def locked(name: str) -> Iterator[Path]:
    """Yield the lab's state file, and lock out other commands on this user's labs meanwhile.

    Raises UsageProblem for an invalid name.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", name):
        raise UsageProblem(f"lab name {name!r}: use at most 31 lower-case letters, digits and '-'")
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
            continue  # the previous holder of the lock removed the empty folder
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock).st_nlink:
            return place, lock
        os.close(lock)


def read(path: Path) -> Running | None:
    """Return the lab recorded in `path` if its holder is alive, else None."""
    try:
        form = json.loads(durable.contents(str(path)))
        machines = tuple((Machine(**entry["machine"]), int(entry["pid"])) for entry in form["machines"])
        running = Running(int(form["holder"]), form["started"], machines)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None  # the file is replaced atomically, so a file of another form is another version's
    return running if form.get("version") == _VERSION and identity(running.holder) == running.started else None


def write(path: Path, running: Running) -> None:
    """Record a lab. The file is replaced atomically."""
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
    """Return the boot id and the start time (clock ticks) of a live process; empty if there is none (proc(5))."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    if after_name[0] in "ZX":
        return ""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text(encoding='ascii').strip()} {after_name[19]}"


def end(running: Running, timeout: float = 10.0) -> None:
    """Kill the holder and wait until the whole lab is gone with it. Raises Problem after `timeout` seconds."""
    try:
        holder = os.pidfd_open(running.holder)
    except ProcessLookupError:
        return
    try:
        if identity(running.holder) != running.started:
            return
        signal.pidfd_send_signal(holder, signal.SIGKILL)
        # the pidfd becomes readable when the process ends; process 1 of a pid namespace ends after all others in it
        ended, _, _ = select.select([holder], [], [], timeout)
    except ProcessLookupError:
        return
    finally:
        os.close(holder)
    if not ended:
        raise Problem(f"the lab's holder (pid {running.holder}) has not ended after {timeout:g} s")
