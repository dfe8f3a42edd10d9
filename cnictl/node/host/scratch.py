"""Try things in a scratch network namespace: a child process, which takes everything it made along when it ends.

The host's network is not changed. With `private` paths its files are not changed either: the child's mounts
are its own, and a tmpfs covers each of these paths.
"""

import ctypes
import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cnictl.core.errors import Problem

_CLONE_NEWNS = 0x00020000
_CLONE_NEWNET = 0x40000000
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_PRIVATE = 0x40000
_PR_SET_PDEATHSIG = 1


def attempt(work: Callable[[], Any], private: Sequence[str] = (), limit: int = 30) -> Any:
    """Run `work` in a child with a network of its own, for at most `limit` seconds; return its result (JSON values).

    Raises Problem if the namespace can't be made, `work` raises Problem, or the child dies.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _be_child(work, private, limit, writer)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        output = pipe.read()
    _, status = os.waitpid(child, 0)
    if not output:
        reason = os.waitstatus_to_exitcode(status)
        end = f"took over {limit} s" if reason == -signal.SIGALRM else f"died ({reason})"
        raise Problem(f"the scratch namespace's process {end}")
    answer = json.loads(output)
    if "problem" in answer:
        raise Problem(*answer["problem"])
    return answer["value"]


def _be_child(work: Callable[[], Any], private: Sequence[str], limit: int, writer: int) -> None:
    """Run the child; it never returns into the parent's code."""
    status = 1
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(limit)
        try:
            _unshare(_CLONE_NEWNET | (_CLONE_NEWNS if private else 0))
            if private:
                _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
            for path in private:
                _cover(path)
            answer = {"value": work()}
        except Problem as problem:
            answer = {"problem": [problem.message, problem.hint]}
        except OSError as error:
            answer = {"problem": [f"scratch namespace: {error}", ""]}
        os.write(writer, json.dumps(answer).encode())
        status = 0
    finally:
        os._exit(status)


@contextmanager
def second_netns() -> Iterator[str]:
    """Yield the path of another network namespace, as for a pod, which exists as long as the context."""
    ready, done = os.pipe(), os.pipe()
    holder = os.fork()
    if holder == 0:
        os.close(done[1])
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            _unshare(_CLONE_NEWNET)
            os.write(ready[1], b"+")
            os.read(done[0], 1)
        finally:
            os._exit(0)
    for descriptor in (ready[1], done[0]):
        os.close(descriptor)
    try:
        if os.read(ready[0], 1) != b"+":
            raise Problem("no second network namespace could be made")
        yield f"/proc/{holder}/ns/net"
    finally:
        os.close(ready[0])
        os.close(done[1])
        os.waitpid(holder, 0)


def _cover(path: str) -> None:
    """Mount an empty tmpfs at `path`, only in this process's mount namespace.

    If `path` is missing, the nearest folder above is covered instead and its other entries are bound back in, so that
    no empty folder is made on the host.
    """
    above = path
    while not os.path.isdir(above):
        above = os.path.dirname(above)
    if above == path:
        _mount("tmpfs", path, "tmpfs", 0)
        return
    old = os.open(above, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _mount("tmpfs", above, "tmpfs", 0, "mode=755")
        for entry in os.scandir(old):
            _bind_back(f"/proc/self/fd/{old}", above, entry)
    finally:
        os.close(old)
    os.makedirs(path)


def _bind_back(old: str, above: str, entry: os.DirEntry[str]) -> None:
    place = os.path.join(above, entry.name)
    if entry.is_symlink():
        os.symlink(os.readlink(f"{old}/{entry.name}"), place)
        return
    if entry.is_dir():
        os.mkdir(place)
    else:
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o600))
    _mount(f"{old}/{entry.name}", place, "", _MS_BIND | _MS_REC)


def _unshare(flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags):
        number = ctypes.get_errno()
        raise OSError(number, f"unshare(2): {os.strerror(number)}")


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    words = [os.fsencode(text) for text in (source, target, kind)]
    if libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), os.fsencode(data) if data else None):
        number = ctypes.get_errno()
        raise OSError(number, f"mount {kind or source} at {target}: {os.strerror(number)}")
