"""Each `cnictl` on a lab node is forked from a process that has loaded the program before.

More than half of what a test of the command line costs is the start of the interpreter and of pyroute2. Here one
process a test worker loads them once (`server`); a command is a fork of it that enters the node and runs the same
entry point. What stands on the host in its place, as `Node.popen`'s process (`client`), passes on signals and its end.
CNICTL_COLD=1 leaves commands as they are: so does the ordinary user's pass, and so do all that other programs start.
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
    """Have `Node.popen` fork `cnictl` from a loaded process meanwhile."""
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
