"""Find the running runtimes, and the configuration that each was started with, from its arguments.

microk8s, k3s and others start a containerd with their own configuration. The arguments are in /proc/PID/cmdline; a
relative path starts at the process's working folder, an absolute one at its root.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cnictl.core import durable

_PROC = "/proc"
_OUR_NETWORK = f"{_PROC}/self/ns/net"


@dataclass(frozen=True)
class Process:
    """A running process."""

    pid: int
    name: str
    """The name of its executable, without the folder."""
    argv: tuple[str, ...]
    cwd: str
    root: str
    """Its root folder as this process sees it; `/` even for a process in another mount namespace."""
    environment: tuple[str, ...] = ()

    def option(self, *names: str) -> str:
        """Return the last value of an option with these names (`--config`, `-c`); empty without one."""
        return option(self.argv, names)

    def variable(self, name: str) -> str:
        """Return a variable of its environment; empty if it is not set."""
        values = [entry.partition("=")[2] for entry in self.environment if entry.startswith(f"{name}=")]
        return values[-1] if values else ""

    def path(self, named: str) -> str:
        """Return a path from its arguments or its configuration as this process sees it."""
        if not named:
            return ""
        absolute = named if named.startswith("/") else os.path.join(self.cwd, named)
        return within(self.root, absolute)

    def readable(self, named: str) -> str:
        """Return the path by which cnictl can read one of its files, even in another mount namespace."""
        if not named:
            return ""
        through = f"{_PROC}/{self.pid}/root{os.path.normpath(os.path.join(self.cwd, named))}"
        plain = self.path(named)
        return plain if os.path.exists(plain) and _same(plain, through) else through


def within(root: str, path: str) -> str:
    """Return a path below another root folder, normalized."""
    return os.path.normpath(f"{root}/{path}") if root not in ("", "/") else os.path.normpath(path)


def option(argv: Sequence[str], names: Sequence[str]) -> str:
    """Return the last value of an option on a command line, in any spelling that Go's programs accept."""
    value = ""
    spellings = {name.lstrip("-") for name in names}
    words = iter(argv[1:])
    for word in words:
        if word == "--":
            break
        name, equals, rest = word.partition("=")
        if not name.startswith("-") or name.lstrip("-") not in spellings:
            continue
        value = rest if equals else next(words, "")
    return value


def running(*names: str) -> Iterator[Process]:
    """Return the processes of these executables that serve this host's network, the lowest process id first."""
    try:
        numbers = sorted(int(entry) for entry in os.listdir(_PROC) if entry.isdigit())
    except OSError:
        return
    for number in numbers:
        process = _process(number, names)
        if process is not None:
            yield process


def _process(pid: int, names: Sequence[str]) -> Process | None:
    """Return a process; None if its executable has another name, it has ended, or its network namespace is not ours."""
    folder = f"{_PROC}/{pid}"
    try:
        argv = durable.contents(f"{folder}/cmdline").decode("utf-8", "surrogateescape").split("\0")[:-1]
        if not argv:
            return None  # a kernel thread, or a process that has ended
        if os.path.basename(argv[0]) not in names and durable.contents(f"{folder}/comm").decode().strip() not in names:
            return None
        if not _same(f"{folder}/ns/net", _OUR_NETWORK):
            return None
        environment = durable.contents(f"{folder}/environ").decode("utf-8", "surrogateescape").split("\0")
        root, cwd = os.readlink(f"{folder}/root"), os.readlink(f"{folder}/cwd")
        executable = os.path.basename(os.readlink(f"{folder}/exe").removesuffix(" (deleted)"))
    except (OSError, UnicodeDecodeError):
        return None
    name = executable if executable in names else os.path.basename(argv[0])
    cwd = "/" + os.path.relpath(cwd, root) if cwd.startswith(root) else cwd
    return Process(pid, name, tuple(argv), os.path.normpath(cwd), root, tuple(environment))


def _same(path: str, other: str) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.stat(other))
    except OSError:
        return False
