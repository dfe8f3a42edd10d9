"""Call the plugin and cnictl on a host through `forks`. They run the same code as usual, but start differently."""

import marshal
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.kernel.plugin.client import Answer, Host, plugin_executable

_CHECKOUT = str(Path(__file__).resolve().parents[2])

_PLUGIN = """
import sys
sys.path[:0] = [{library!r}]
sys.path += [{checkout!r}]
import subprocess  # ADD starts nft with it; loading it here saves kills in a hundred calls that change nothing
from cnictl_plugin import add, check, collect, delete, environment, main, status, unrecorded
from tests.faults import forks
{prepare}
forks.serve(main.main)
"""
_CNICTL = """
import sys
sys.path[:0] = [{checkout!r}]
import contextlib, os
from cnictl.cli import main
sys.argv = ["cnictl", "ipam", "gc", "--name", "none-of-this-name"]  # loads what the calls will need
with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere), contextlib.suppress(SystemExit):
    main.main()
from tests.faults import forks
forks.serve(main.main)
"""

_RUNS = """
import importlib, os, sys
sys.path[:0] = [{checkout!r}]
importlib.import_module("pyroute2")
importlib.import_module("cnictl.cli.main")
for name in ("history", "reset", "confirm_guard"):
    importlib.import_module("cnictl.node.runs." + name)
from tests.faults import forks, runs
from tests.warm import compiled
compiled.once()
os.chdir("/root")
forks.serve(runs.command)
"""
_PROCESSES = """
import os, posix, sys
sys.path += [{checkout!r}]
from tests.faults import forks
forks.serve(lambda: os.execve(sys.argv[0], sys.argv, posix.environ))
"""


class Inside:
    """A program that is loaded once on a host. Each call runs it in a new process."""

    def __init__(self, running: "subprocess.Popen[bytes]") -> None:
        self._running = running

    def call(
        self,
        environment: Mapping[str, str],
        stdin: bytes = b"",
        arguments: Sequence[str] = (),
    ) -> Answer:
        """Run the program to its end."""
        status, stdout, stderr, _ = self._ask(environment, stdin, arguments, 0)
        return Answer(status, stdout, stderr)

    def cut_off(self, environment: Mapping[str, str], stdin: bytes, before_call: int) -> tuple[Answer, int]:
        """Run the program, and kill it before system call `before_call`. Also return how many calls it made."""
        status, stdout, stderr, calls = self._ask(environment, stdin, (), before_call)
        return Answer(status, stdout, stderr), calls

    def _ask(
        self, environment: Mapping[str, str], stdin: bytes, arguments: Sequence[str], kill_at: int
    ) -> tuple[int, bytes, bytes, int]:
        assert self._running.stdin is not None and self._running.stdout is not None
        variables = {os.fsencode(key): os.fsencode(value) for key, value in environment.items()}
        marshal.dump((variables, stdin, list(arguments), kill_at), self._running.stdin)
        self._running.stdin.flush()
        status, stdout, stderr, calls = marshal.load(self._running.stdout)
        return status, stdout, stderr, calls


@contextmanager
def plugin_inside(host: Host, patience: float = 0.0, prepare: str = "") -> Iterator[Inside]:
    """Yield the plugin, from files as `cnictl plugin install` writes them, after executing `prepare` in its process."""
    library = os.path.dirname(plugin_executable(patience))
    with _started(host.enter, ["-ISB"], _PLUGIN.format(library=library, checkout=_CHECKOUT, prepare=prepare)) as inside:
        yield inside


@contextmanager
def cnictl_inside(host: Host) -> Iterator[Inside]:
    """Yield the cnictl command."""
    with _started(host.enter, ["-B"], _CNICTL.format(checkout=_CHECKOUT)) as inside:
        yield inside


@contextmanager
def processes_inside(host: Host) -> Iterator[Inside]:
    """Yield a starter of any program: the first of a call's arguments, started as a runtime on the host starts it."""
    with _started(host.enter, ["-ISB"], _PROCESSES.format(checkout=_CHECKOUT)) as inside:
        yield inside


@contextmanager
def runs_inside(enter: Sequence[str]) -> Iterator[Inside]:
    """Yield the cnictl command on a lab node, whose changes `runs` counts. `enter` is the prefix to run there."""
    with _started(enter, ["-B"], _RUNS.format(checkout=_CHECKOUT)) as inside:
        yield inside


@contextmanager
def _started(enter: Sequence[str], flags: list[str], program: str) -> Iterator[Inside]:
    running = subprocess.Popen(
        [*enter, sys.executable, *flags, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8"},
    )
    try:
        yield Inside(running)
    finally:
        running.communicate(timeout=30)
