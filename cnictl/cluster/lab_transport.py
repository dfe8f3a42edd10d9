"""Run the matrix over the nodes of a lab. Commands are started directly in the nodes, without ssh."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from typing import IO

from cnictl.cluster import matrix_run
from cnictl.cluster.matrix import Matrix
from cnictl.core import outside
from cnictl.core.errors import Problem
from cnictl.lab.lab import Lab
from cnictl.probe.pair_reports import LONGEST_LINE

_END_SECONDS = 10.0


class LabSession:
    """A command in a node of a lab."""

    def __init__(self, process: "subprocess.Popen[str]", stderr: IO[bytes]) -> None:
        """`stderr` is the file that the command's errors go to."""
        self._process, self._stderr = process, stderr

    def send(self, text: str) -> None:
        """Write to the command's stdin."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(text)
            self._process.stdin.flush()
        except (OSError, ValueError):
            raise Problem(self._last_words() or "the command no longer reads its input") from None

    def lines(self) -> Iterator[str]:
        """Yield each line of its stdout. Raises Problem if it ends with another status than 0."""
        assert self._process.stdout is not None
        while line := self._read_line():
            yield line
        try:
            status = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            raise Problem(f"the command did not end within {_END_SECONDS:g} s") from None
        if status != 0:
            raise Problem(self._last_words() or f"exit status {status}")

    def close(self) -> None:
        """End the command."""
        with contextlib.suppress(OSError, ValueError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        if self._ends():
            return
        self._process.terminate()
        if self._ends():
            return
        self._process.kill()
        self._ends()

    def _ends(self) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
            return True
        return False

    def _read_line(self) -> str:
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError):  # closed by another thread
            return self._process.stdout.readline(LONGEST_LINE + 1)
        return ""

    def _last_words(self) -> str:
        lines = os.pread(self._stderr.fileno(), 1 << 16, 0).decode(errors="replace").strip().splitlines()
        first = next((line for line in lines if line.startswith("cnictl: ")), lines[-1] if lines else "")
        return outside.line(first.removeprefix("cnictl: "))


class LabTransport:
    """Starts commands in the nodes of a lab; a host's name is its node's."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def start(self, host: str, argv: Sequence[str]) -> LabSession:
        """Start a command in a node. Raises UsageProblem if the lab has no such node."""
        stderr = os.fdopen(os.memfd_create("stderr"), "w+b")
        process = self._lab.machine(host).popen(list(argv), stdin=subprocess.PIPE, stderr=stderr)
        return LabSession(process, stderr)


def run_over_lab(lab: Lab, on_step: Callable[[str], None] = lambda _: None) -> Matrix:
    """Return the matrix of every pair of a lab's nodes. The nodes must be set up."""
    return matrix_run.run([node.name for node in lab.nodes], LabTransport(lab), on_step)
