"""Choose the Python that runs the plugin. It must remain when the virtual environment of this cnictl is removed."""

import os
import sys
from dataclasses import dataclass

from cnictl.core.errors import Problem
from cnictl.core.process import run
from cnictl.node.plugin import ownership

SYSTEM = "/usr/bin/python3"
"""The interpreter that the launcher tries if the recorded one is gone."""

OLDEST = (3, 11)

_SELF_PORTRAIT = (
    "import sys, posix; print(sys.implementation.cache_tag); print(*sys.version_info[:2]);"
    " print(sys.modules['os'].__file__ if 'os' in sys.modules else __import__('os').__file__)"
)


@dataclass(frozen=True)
class Interpreter:
    """A Python that may run the plugin as root."""

    path: str
    cache_tag: str
    """The bytecode that it reads: `cpython-311`."""


def choose() -> Interpreter:
    """Return the base interpreter of the running one (never a virtual environment's), else the system's.

    Raises Problem, naming each candidate's fault, if others can change each of them, or it is too old.
    """
    running = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    faults = []
    for candidate in dict.fromkeys([running, SYSTEM]):
        try:
            return inspect(candidate)
        except Problem as problem:
            faults.append(problem.message)
    raise Problem(
        f"no interpreter can run the plugin as root: {'; '.join(faults)}",
        f"install the distribution's python3, {OLDEST[0]}.{OLDEST[1]} or newer",
    )


def inspect(path: str) -> Interpreter:
    """Examine a Python. Raises Problem if others can change it or its library, or if it is too old or doesn't run."""
    reason = ownership.fault(path)
    if reason:
        raise Problem(f"interpreter {path}: {reason}")
    answer = run([path, "-IS", "-c", _SELF_PORTRAIT], timeout=20).stdout.splitlines()
    if len(answer) != 3:
        raise Problem(f"interpreter {path}: its output can't be read")
    version = tuple(int(number) for number in answer[1].split())
    if version < OLDEST:
        raise Problem(f"interpreter {path} is Python {version[0]}.{version[1]}, which is too old")
    reason = ownership.fault(os.path.dirname(answer[2]))
    if reason:
        raise Problem(f"interpreter {path}: its standard library: {reason}")
    return Interpreter(path, answer[0])
