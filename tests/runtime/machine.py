"""Make a throw-away machine for real container runtimes: namespaces, and a root that overlays this host's files.

The kernel ends everything that runs there when the machine ends. Only cgroups are outside of namespaces: each machine
has its own parent cgroup, which is removed when the machine ends.
"""

import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TypeVar

from tests.waiting import wait_for

CHECKOUT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "NO_COLOR": "1",
    "COLUMNS": "200",
}
CGROUPS = Path("/sys/fs/cgroup")
_serial = itertools.count(1)

Answer = TypeVar("Answer")


class Failed(AssertionError):
    """A command or condition failed on the machine. The message contains all output."""


class Machine:
    """A machine. `path` gives access to its files. `run` runs a command on it, with `outside` on the host beyond it."""

    def __init__(self, pid: int, name: str) -> None:
        self.pid = pid
        self.name = name
        self.cgroup = f"/{name}"

    def path(self, inside: str) -> Path:
        """Return this process's path to the machine's file `inside`, an absolute path without symlinks."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def write(self, inside: str, text: str | bytes) -> None:
        """Write a file on the machine, and make its folder if it is missing."""
        file = self.path(inside)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)

    def argv(self, argv: Sequence[str], *, outside: bool = False) -> list[str]:
        """Return the command with which this process runs `argv` on the machine."""
        enter = ["nsenter", f"--target={self.pid}", "--net", "--mount", "--pid", "--ipc", "--uts", "--"]
        return [*enter, *(["nsenter", "--net=/run/netns/outside", "--"] if outside else []), *argv]

    def run(self, *argv: str, stdin: str = "", env: dict[str, str] | None = None, bound: float = 60.0) -> str:
        """Run a command and return its stdout. Raises Failed with all its output if it failed."""
        done = self.try_run(*argv, stdin=stdin, env=env, bound=bound)
        if done.returncode != 0:
            raise Failed(f"{' '.join(argv)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def try_run(
        self,
        *argv: str,
        stdin: str = "",
        env: dict[str, str] | None = None,
        bound: float = 60.0,
        outside: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command for at most `bound` seconds, and return its result even if it failed."""
        return subprocess.run(
            self.argv(argv, outside=outside),
            input=stdin,
            env=ENVIRONMENT | (env or {}),
            cwd="/",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=bound,
            check=False,
        )

    def start(self, *argv: str, log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a daemon on the machine, with stdout and stderr going to `log`."""
        return subprocess.Popen(
            self.argv(argv),
            env=ENVIRONMENT,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )

    def processes(self, pattern: str) -> list[str]:
        """Return the pids, in the machine's namespace, of its processes whose command line matches `pattern`."""
        return self.try_run("pgrep", "--full", pattern).stdout.split()


@contextmanager
def machine() -> Iterator[Machine]:
    """Yield a new machine, and remove it with its processes, mounts and cgroups afterwards."""
    name = f"cnictl-runtime-{os.getpid()}-{next(_serial)}"
    work = tempfile.mkdtemp(prefix=name)
    script = str(Path(__file__).with_name("machine.sh"))
    unshare = ["unshare", "--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child"]
    holder = subprocess.Popen(
        [*unshare, "--propagation=private", "--", "sh", script, work, *_folders_to_bring()],
        env=ENVIRONMENT,
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert holder.stdout is not None and holder.stderr is not None
    try:
        if holder.stdout.readline() != b"up\n":
            raise Failed(f"the throw-away machine did not come up: {holder.stderr.read().decode()}")
        children = subprocess.run(["pgrep", "--parent", str(holder.pid)], capture_output=True, text=True, check=True)
        yield Machine(int(children.stdout), name)
    finally:
        holder.communicate(timeout=30)
        os.rmdir(work)
        _remove_cgroups(name)


def _folders_to_bring() -> list[str]:
    """Return those folders of the checkout and the interpreter that an overlay on / alone would lack."""
    wanted = {str(CHECKOUT), os.path.realpath(sys.prefix), os.path.realpath(sys.base_prefix)}
    root = os.stat("/").st_dev
    lacking = [
        folder for folder in sorted(wanted) if os.stat(folder).st_dev != root or folder.startswith(("/tmp/", "/run/"))
    ]
    return [f for f in lacking if not any(f != other and f.startswith(f"{other}/") for other in lacking)]


def _remove_cgroups(name: str) -> None:
    """Remove the machine's cgroups from each hierarchy of cgroup version 1, or from the single one of version 2."""
    for tree in [CGROUPS / name, *CGROUPS.glob(f"*/{name}")]:
        for folder, _, _ in os.walk(tree, topdown=False):
            wait_for(partial(cgroup_removed, folder), f"removal of the cgroup {folder}")


def cgroup_removed(cgroup: str) -> bool:
    """Try to remove a cgroup, and return whether it worked. The kernel says EBUSY until its processes are reaped."""
    try:
        os.rmdir(cgroup)
    except OSError:
        return False
    return True
