"""Run a cluster on one machine: `with Lab() as lab: lab.nodes[0].run(["ip", "link"])`.

It works as root and as an ordinary user. Nothing inside can write to the host (see `root` and `holder`).
"""

import contextlib
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import cnictl
from cnictl.core.errors import Problem, UsageProblem
from cnictl.core.process import Finished
from cnictl.lab import plan, state
from cnictl.lab.enter import KILL_COMMAND
from cnictl.lab.plan import Machine
from cnictl.lab.state import Running

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEPT = ("TERM", "COLORTERM", "NO_COLOR", "COLUMNS", "LINES")
_BRING_UP_SECONDS = 30.0
_AFTER_KILL_SECONDS = 2.0


class Node:
    """A running machine of the lab: a node, or the host outside."""

    def __init__(self, machine: Machine, pid: int) -> None:
        self.name = machine.name
        self.interface = machine.interface
        """The machine's address with the link's prefix: `10.0.0.210/20`."""
        self.address = machine.address
        self.pod_cidr = machine.pod_cidr
        self.address6 = machine.address6
        """The machine's IPv6 address; empty if the lab is not dual-stack."""
        self.pod_cidr6 = machine.pod_cidr6
        self.families = ("ipv4", "ipv6") if machine.interface6 else ("ipv4",)
        self.pid = pid
        """The pid of the machine's process 1 on the host."""

    def command(self, argv: list[str], folder: str = "/root") -> list[str]:
        """Return the command that runs `argv` here as root in `folder`, when started on the host."""
        return [*program("lab.enter"), str(self.pid), folder, *argv]

    def popen(
        self,
        argv: list[str],
        env: Mapping[str, str] | None = None,
        stdin: int | IO[Any] | None = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = subprocess.PIPE,
        stderr: int | IO[Any] | None = subprocess.PIPE,
    ) -> subprocess.Popen[str]:
        """Start `argv` here. Killing the process kills the command inside. `env` adds to `environment()`."""
        return subprocess.Popen(
            self.command(argv),
            env={**environment(), **(env or {})},
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=True,
            errors="replace",
        )

    def run(
        self,
        argv: list[str],
        stdin: str = "",
        timeout: float = 30.0,
        env: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> Finished:
        """Run `argv` here for at most `timeout` seconds and return its status and output.

        Raises Problem if it is still running after that or (with `check`) exits non-zero.
        """
        words = f"{self.name}: {' '.join(argv)}"
        process = self.popen(argv, env, stdin=subprocess.PIPE)
        try:
            stdout, stderr = process.communicate(stdin, timeout)
        except subprocess.TimeoutExpired:
            process.send_signal(KILL_COMMAND)
            # a grandchild may hold the pipes open, so this wait needs a limit too
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=_AFTER_KILL_SECONDS)
            raise Problem(f"{words}: still running after {timeout:g} s") from None
        if check and process.returncode != 0:
            output = stderr.strip() or stdout.strip()
            raise Problem(f"{words}: exit status {process.returncode}" + (f": {output}" if output else ""))
        return Finished(process.returncode, stdout, stderr)


class Lab:
    """Nodes on one link, a host outside, and the holder. When the holder ends, the whole lab ends.

    As a context manager this is a private lab that ends with the block or with the process that made it. `start` and
    `attach` serve `cnictl lab`, whose lab outlives the command.
    """

    def __init__(self, nodes: int = 2, dual_stack: bool = False) -> None:
        """Plan a lab. Raises UsageProblem unless `nodes` is 1 to 16."""
        if not 1 <= nodes <= plan.MAX_NODES:
            raise UsageProblem(f"{nodes} nodes: a lab has 1 to {plan.MAX_NODES} nodes")
        self.nodes: list[Node] = []
        self._wanted = plan.machines(nodes, dual_stack)
        self._running: Running | None = None
        self._lifeline = -1

    @classmethod
    def attach(cls, running: Running) -> "Lab":
        """Return the lab that already runs."""
        lab = cls(len(running.machines) - 1)
        lab._take(running)
        return lab

    def start(self) -> Running:
        """Bring up the lab; it lasts until `state.end`. Raises Problem."""
        running = _bring_up(self._wanted, lifeline=-1)
        self._take(running)
        return running

    def __enter__(self) -> Self:
        reader, self._lifeline = os.pipe()
        try:
            self._take(_bring_up(self._wanted, reader))
        except BaseException:
            os.close(self._lifeline)
            raise
        finally:
            os.close(reader)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        os.close(self._lifeline)

    def stop(self) -> None:
        """Stop everything in the lab and wait until it has ended. Raises Problem if it takes more than 10 s."""
        if self._running is not None:
            state.end(self._running)

    @property
    def holder(self) -> int:
        """The holder's pid. When the holder ends, the whole lab ends."""
        assert self._running is not None
        return self._running.holder

    def machine(self, name: str) -> Node:
        """Return a node, or `outside`, by its name. Raises UsageProblem."""
        everyone = [*self.nodes, self.outside]
        for machine in everyone:
            if machine.name == name:
                return machine
        names = ", ".join(machine.name for machine in everyone)
        raise UsageProblem(f"no machine {name!r} in this lab; its machines are {names}")

    def _take(self, running: Running) -> None:
        self._running = running
        everyone = [Node(machine, pid) for machine, pid in running.machines]
        self.nodes = everyone[:-1]
        self.outside = everyone[-1]


def environment() -> dict[str, str]:
    """Return the environment of a command in the lab. Only the terminal's settings come from the host."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    fixed = {"PATH": PATH, "HOME": "/root", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/sh", "LANG": "C.UTF-8"}
    return {**fixed, **kept}


def _bring_up(machines: list[Machine], lifeline: int) -> Running:
    order = {
        "machines": [machine.as_json() for machine in machines],
        "interpreter": sys.executable,
        "source": _source(),
        "folders": _folders(),
        "lifeline": lifeline,
    }
    try:
        done = subprocess.run(
            [*program("lab.holder"), json.dumps(order)],
            env={"LANG": "C.UTF-8"},  # visible in every machine as the environment of its process 1
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_BRING_UP_SECONDS,
            pass_fds=(lifeline,) if lifeline >= 0 else (),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Problem(f"the lab did not come up within {_BRING_UP_SECONDS:g} s") from None
    if done.returncode != 0:
        raise Problem(f"the lab did not come up: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise Problem(f"the lab did not come up: {answer['error']}", answer["hint"])
    holder = answer["holder"]
    pids = answer["pids"]
    return Running(holder, state.identity(holder), tuple((machine, pids[machine.name]) for machine in machines))


def program(module: str) -> list[str]:
    """Return the command that runs the `main` of a module such as `lab.enter`.

    The interpreter ignores `site` and the environment to start fast.
    """
    start = f"import sys; sys.path.insert(0, {_source()!r}); from cnictl.{module} import main; main()"
    return [sys.executable, "-IS", "-c", start]


def _source() -> str:
    """Return the folder that contains the package `cnictl`."""
    return str(Path(cnictl.__file__).resolve().parent.parent)


def _folders() -> list[str]:
    """Return every folder outside /usr that this interpreter and cnictl need, none inside another."""
    wanted = [Path(sys.prefix), Path(sys.base_prefix), Path(_source()), Path(sysconfig.get_paths()["stdlib"])]
    hop = Path(sys.executable)
    while True:  # a venv's interpreter is a chain of symbolic links, each possibly in another folder
        wanted.append(hop.parent.parent if hop.parent.name == "bin" else hop.parent)
        if not hop.is_symlink():
            break
        hop = hop.parent / hop.readlink()
    wanted += [path.resolve() for path in wanted]
    kept: list[Path] = []
    for path in sorted({Path(os.path.normpath(path)) for path in wanted}):
        if not any(path == above or above in path.parents for above in (Path("/usr"), *kept)):
            kept.append(path)
    if Path("/") in kept:
        raise Problem(
            f"{sys.executable}: the lab would have to show the whole host to run this interpreter",
            "start cnictl from a venv",
        )
    return [str(path) for path in kept]
