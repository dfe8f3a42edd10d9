"""A throw-away machine for real container runtimes: namespaces and a root of its own, over this host's files.

All that runs there ends with it, in the kernel. Only cgroups lie outside of namespaces: each machine has one
parent of its own, removed when the machine ends.
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
    """A command or a condition on the machine that did not come out as it should, with all that was said."""


class Machine:
    """One machine. Files of its root are at `path`; `run` runs a command there, `outside` on the host beyond it."""

    def __init__(self, pid: int, name: str) -> None:
        self.pid = pid
        self.name = name
        self.cgroup = f"/{name}"

    def path(self, inside: str) -> Path:
        """Where this process finds the machine's file `inside` (absolute; no symlink on the way)."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def write(self, inside: str, text: str | bytes) -> None:
        """Write a file of the machine, its folder made if missing."""
        file = self.path(inside)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)

    def argv(self, argv: Sequence[str], *, outside: bool = False) -> list[str]:
        """The command line that runs `argv` on the machine, as seen from this process."""
        enter = ["nsenter", f"--target={self.pid}", "--net", "--mount", "--pid", "--ipc", "--uts", "--"]
        return [*enter, *(["nsenter", "--net=/run/netns/outside", "--"] if outside else []), *argv]

    def run(self, *argv: str, stdin: str = "", env: dict[str, str] | None = None, bound: float = 60.0) -> str:
        """What the command wrote on its standard output. Raises Failed with everything it said if it failed."""
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
        """Run a command and return how it ended, well or not, within `bound` seconds."""
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
        """Start a daemon there, both its outputs into `log`."""
        return subprocess.Popen(
            self.argv(argv),
            env=ENVIRONMENT,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )

    def processes(self, pattern: str) -> list[str]:
        """Ids, as the machine counts them, of its processes whose command line has `pattern`."""
        return self.try_run("pgrep", "--full", pattern).stdout.split()


@contextmanager
def machine() -> Iterator[Machine]:
    """A machine, gone with all it ran, mounted and grouped when the block ends."""
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
    """The checkout and the interpreter's folders, as far as a root laid over / alone would lack them."""
    wanted = {str(CHECKOUT), os.path.realpath(sys.prefix), os.path.realpath(sys.base_prefix)}
    root = os.stat("/").st_dev
    lacking = [
        folder for folder in sorted(wanted) if os.stat(folder).st_dev != root or folder.startswith(("/tmp/", "/run/"))
    ]
    return [f for f in lacking if not any(f != other and f.startswith(f"{other}/") for other in lacking)]


def _remove_cgroups(name: str) -> None:
    """Remove the machine's cgroups, of which each hierarchy has a tree (version 1) or the only one has (2)."""
    for tree in [CGROUPS / name, *CGROUPS.glob(f"*/{name}")]:
        for folder, _, _ in os.walk(tree, topdown=False):
            wait_for(partial(cgroup_removed, folder), f"removal of the cgroup {folder}")


def cgroup_removed(cgroup: str) -> bool:
    """Whether the cgroup could be removed: the kernel says EBUSY while a killed process of it is being reaped."""
    try:
        os.rmdir(cgroup)
    except OSError:
        return False
    return True
