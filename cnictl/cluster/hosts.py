"""Define how commands run on many hosts at the same time, and how each host answers. The transport is ssh or a lab."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cnictl.core import untrusted_text

LEAST_CONFIRM = 30
"""The shortest time to confirm a change in seconds. A connection that hangs is noticed after 15 s, and a new one is
given up after 10 s."""
_DEEPEST = 30
"""Levels of a document; cnictl's own have about ten."""


@dataclass(frozen=True)
class Command:
    """A command to run as root on a host."""

    argv: tuple[str, ...]
    stdin: str = ""


@dataclass(frozen=True)
class Answer:
    """The output of a host's command, or the reason why there is none."""

    host: str
    status: int = -1
    stdout: str = ""
    stderr: str = ""
    fault: str = ""
    """Why the command was not run, or why its outcome is not known; empty if it finished."""
    hint: str = ""

    @property
    def error(self) -> str:
        """The first line of the command's error, without `cnictl: `; its exit status if it printed none."""
        if self.status == 0:
            return "cnictl on that host returned unexpected output"
        lines = [line for line in self.stderr.splitlines() if line.strip()]
        ours = [line for line in lines if line.startswith("cnictl: ")]
        line = (ours or lines or [f"exit status {self.status}"])[0]
        return untrusted_text.line(line.removeprefix("cnictl: ").strip())

    @property
    def error_hint(self) -> str:
        """The hint under the command's error; empty without one."""
        hints = [line.strip() for line in self.stderr.splitlines() if line.strip().startswith("hint: ")]
        return untrusted_text.line(hints[0].removeprefix("hint: ")) if hints else ""

    def document(self) -> dict[str, Any] | None:
        """Return the JSON object that the command printed; None if it printed none, or one nested too deeply."""
        try:
            document = json.loads(self.stdout, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return None
        return document if isinstance(document, dict) and _is_shallow(document) else None


def _refuse(word: str) -> None:
    """Refuse `NaN` and `Infinity`, which are not JSON (RFC 8259, section 6) and would be printed again."""
    raise ValueError(word)


def _is_shallow(document: object) -> bool:
    """Return whether a recursive walk through a document stays within Python's recursion limit."""
    level: list[Any] = [document]
    for _ in range(_DEEPEST):
        inner = (value.values() if isinstance(value, dict) else value for value in level)
        level = [value for values in inner for value in values if isinstance(value, dict | list)]
        if not level:
            return True
    return False


class Hosts(Protocol):
    """The hosts of a cluster that the operator chose."""

    @property
    def names(self) -> tuple[str, ...]:
        """The hosts' names, in the order of the cluster file."""

    def connect(self, on_answer: Callable[[Answer], None]) -> dict[str, Answer]:
        """Return each host's answer to `cnictl --version`. `run` also connects hosts by itself."""

    def run(
        self, commands: Mapping[str, Command], timeout: float, on_answer: Callable[[Answer], None]
    ) -> dict[str, Answer]:
        """Run a command on each of some hosts, all at the same time, for at most `timeout` seconds each.

        `on_answer` is called for each answer as it arrives, from any thread. For a host that can't be reached, the
        answer has a fault; nothing is raised.
        """

    def reconnect(self, names: Sequence[str]) -> None:
        """Close the connections to some hosts, so that the next command opens a new one."""
