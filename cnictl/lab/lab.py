"""A cluster on one machine: `with Lab() as lab: lab.nodes[0].run(["ip", "link"])`.

Works as root and as an ordinary user; nothing of the host can be written from inside (see `root` and `holder`).
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
from typing import IO, Any

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
        """Its address with the link's prefix: `10.0.0.210/20`."""
        self.address = machine.address
        self.pod_cidr = machine.pod_cidr
        self.address6 = machine.address6
        """Its IPv6 address; empty where the lab is not dual-stack."""
        self.pod_cidr6 = machine.pod_cidr6
        self.families = ("ipv4", "ipv6") if machine.interface6 else ("ipv4",)
        self.pid = pid
        """Its process 1, as the host counts."""

    def command(self, argv: list[str], folder: str = "/root") -> list[str]:
        """What to start on the host for `argv` to run here as root, in `folder`."""
        return [*_python("enter"), str(self.pid), folder, *argv]

    def popen(
        self,
        argv: list[str],
        env: Mapping[str, str] | None = None,
        stdin: int | IO[Any] | None = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = subprocess.PIPE,
        stderr: int | IO[Any] | None = subprocess.PIPE,
    ) -> "subprocess.Popen[str]":
        """Start `argv` here; killing the process kills what runs inside. `env` adds to `environment()`."""
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

        Raises Problem if it is still running at the bound or (with `check`) exits non-zero.
        """
        words = f"{self.name}: {' '.join(argv)}"
        process = self.popen(argv, env, stdin=subprocess.PIPE)
        try:
            stdout, stderr = process.communicate(stdin, timeout)
        except subprocess.TimeoutExpired:
            process.send_signal(KILL_COMMAND)
            # a grandchild may hold the pipes open, so their end is waited for with a bound as well
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=_AFTER_KILL_SECONDS)
            raise Problem(f"{words}: still running after {timeout:g} s") from None
        if check and process.returncode != 0:
            said = stderr.strip() or stdout.strip()
            raise Problem(f"{words}: exit status {process.returncode}" + (f": {said}" if said else ""))
        return Finished(process.returncode, stdout, stderr)


class Lab:
    """Nodes on one link, a host outside, and the process they hang on.

    As a context manager: a private lab that ends with the block, or with the process that made it. `start` and
    `attach` serve `cnictl lab`, whose lab outlives the command.
    """

    def __init__(self, nodes: int = 2, dual_stack: bool = False) -> None:
        """Raises UsageProblem unless `nodes` is 1 to 16."""
        if not 1 <= nodes <= plan.MAX_NODES:
            raise UsageProblem(f"{nodes} nodes: the lab's link has room for 1 to {plan.MAX_NODES}")
        self.nodes: list[Node] = []
        self._wanted = plan.machines(nodes, dual_stack)
        self._running: Running | None = None
        self._lifeline = -1

    @classmethod
    def attach(cls, running: Running) -> "Lab":
        """The lab that already runs."""
        lab = cls(len(running.machines) - 1)
        lab._take(running)
        return lab

    def start(self) -> Running:
        """Bring up a lab that lasts until `state.end`. Raises Problem."""
        running = _bring_up(self._wanted, lifeline=-1)
        self._take(running)
        return running

    def __enter__(self) -> "Lab":
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
        """End everything in the lab and wait for it. Raises Problem if the kernel doesn't within 10 s."""
        if self._running is not None:
            state.end(self._running)

    @property
    def holder(self) -> int:
        """The pid that the whole lab hangs on."""
        assert self._running is not None
        return self._running.holder

    def machine(self, name: str) -> Node:
        """A node, or `outside`, by its name. Raises UsageProblem."""
        everyone = [*self.nodes, self.outside]
        for one in everyone:
            if one.name == name:
                return one
        raise UsageProblem(f"no machine {name!r} in this lab, there are {', '.join(one.name for one in everyone)}")

    def _take(self, running: Running) -> None:
        self._running = running
        everyone = [Node(machine, pid) for machine, pid in running.machines]
        self.nodes = everyone[:-1]
        self.outside = everyone[-1]


def environment() -> dict[str, str]:
    """What a command in the lab finds in its environment: nothing of the host's but the terminal's kind."""
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
            [*_python("holder"), json.dumps(order)],
            env={"LANG": "C.UTF-8"},  # every machine shows it as that of its process 1
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


def _python(module: str) -> list[str]:
    """A bare interpreter that runs `main` of a module of this package: no site, no environment, quick to start."""
    start = f"import sys; sys.path.insert(0, {_source()!r}); from cnictl.lab.{module} import main; main()"
    return [sys.executable, "-IS", "-c", start]


def _source() -> str:
    """The folder that holds the package `cnictl`."""
    return str(Path(cnictl.__file__).resolve().parent.parent)


def _folders() -> list[str]:
    """Every folder outside /usr that this interpreter and cnictl need, none inside another."""
    wanted = [Path(sys.prefix), Path(sys.base_prefix), Path(_source()), Path(sysconfig.get_paths()["stdlib"])]
    hop = Path(sys.executable)
    while True:  # a venv's interpreter is a chain of links, any of them in a folder of its own
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
        raise Problem(f"{sys.executable}: the lab would have to show the whole host, start cnictl from a venv")
    return [str(path) for path in kept]
