"""Try things in a scratch network namespace, in a child process. Everything that it made is gone when it ends.

The host's network is not changed. With `private` paths its files are not changed either: the child's mounts
are its own, and a tmpfs covers each of these paths.
"""

import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cnictl.core.errors import Problem
from cnictl.lab.syscalls import CLONE_NEWNET, CLONE_NEWNS, MS_PRIVATE, MS_REC, bind, die_with_parent, mount, unshare


def attempt(work: Callable[[], Any], private: Sequence[str] = (), limit: int = 30) -> Any:
    """Run `work` in a child with its own network, for at most `limit` seconds; return its result (JSON values).

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
        die_with_parent(signal.SIGKILL)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(limit)
        try:
            unshare(CLONE_NEWNET | (CLONE_NEWNS if private else 0))
            if private:
                mount("none", "/", "", MS_REC | MS_PRIVATE)
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
            die_with_parent(signal.SIGKILL)
            unshare(CLONE_NEWNET)
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
        mount("tmpfs", path, "tmpfs")
        return
    old = os.open(above, os.O_RDONLY | os.O_DIRECTORY)
    try:
        mount("tmpfs", above, "tmpfs", 0, "mode=755")
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
    bind(f"{old}/{entry.name}", place)
