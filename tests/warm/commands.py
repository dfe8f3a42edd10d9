"""Fork each `cnictl` on a lab node from a process that has already loaded the program.

Starting the interpreter and loading pyroute2 take more than half the time of a command-line test. Here each test worker
has one process that loads them once (`server`). A command is a fork of it that enters the node and runs the same entry
point. `Node.popen` returns a stand-in process (`client`), which passes on signals and exits as the command does.

With CNICTL_COLD=1 each command is a new process. The ordinary user's pass runs this way, and so does every command that
another program starts.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from cnictl.lab.lab import Node, environment

COLD = "CNICTL_COLD"
_ROOT = str(Path(__file__).parents[2])


@contextlib.contextmanager
def loaded() -> Iterator[None]:
    """Make `Node.popen` fork `cnictl` from a loaded process while the context lasts."""
    name = f"cnictl-tests-{os.getpid()}"
    server = subprocess.Popen(
        [sys.executable, "-c", _start("server"), name],
        env={"LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    assert server.stdout.readline() == "loaded\n"
    cold = Node.popen

    def popen(
        self: Node,
        argv: list[str],
        env: Mapping[str, str] | None = None,
        stdin: int | IO[Any] | None = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = subprocess.PIPE,
        stderr: int | IO[Any] | None = subprocess.PIPE,
    ) -> "subprocess.Popen[str]":
        if argv[0] != "cnictl":
            return cold(self, argv, env, stdin, stdout, stderr)
        wanted = {"pid": str(self.pid), "argv": argv, "env": {**environment(), **(env or {})}}
        return subprocess.Popen(
            [sys.executable, "-IS", "-c", _start("client"), name, json.dumps(wanted)],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=True,
            errors="replace",
        )

    Node.popen = popen  # type: ignore[method-assign]
    try:
        yield
    finally:
        Node.popen = cold  # type: ignore[method-assign]
        server.kill()
        server.communicate()


def _start(module: str) -> str:
    return f"import sys; sys.path.insert(0, {_ROOT!r}); from tests.warm.{module} import main; main(*sys.argv[1:])"
