"""Commands on many hosts at once, whatever carries them, and what each host answers."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cnictl.core import outside

_DEEPEST = 30
"""Levels of a document; cnictl's own have about ten."""


@dataclass(frozen=True)
class Command:
    """What to run on a host as its root."""

    argv: tuple[str, ...]
    stdin: str = ""


@dataclass(frozen=True)
class Answer:
    """What a host's command said, or why there is no answer."""

    host: str
    status: int = -1
    stdout: str = ""
    stderr: str = ""
    fault: str = ""
    """Why the command was not run, or its end is not known; empty if it ran to its end."""
    hint: str = ""

    @property
    def error(self) -> str:
        """The first line of the command's error without `cnictl: `, else its status, for a terminal."""
        if self.status == 0:
            return "its cnictl answered with something else than was asked for"
        lines = [line for line in self.stderr.splitlines() if line.strip()]
        ours = [line for line in lines if line.startswith("cnictl: ")]
        line = (ours or lines or [f"exit status {self.status}"])[0]
        return outside.line(line.removeprefix("cnictl: ").strip())

    @property
    def error_hint(self) -> str:
        """The hint under the command's error; empty without one."""
        hints = [line.strip() for line in self.stderr.splitlines() if line.strip().startswith("hint: ")]
        return outside.line(hints[0].removeprefix("hint: ")) if hints else ""

    def document(self) -> dict[str, Any] | None:
        """Return the JSON object that the command printed; None if it printed none, or one nested too deep."""
        try:
            document = json.loads(self.stdout, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return None
        return document if isinstance(document, dict) and _is_shallow(document) else None


def _refuse(word: str) -> None:
    """Refuse `NaN` and `Infinity`, which are no JSON (RFC 8259, section 6): they would be printed again."""
    raise ValueError(word)


def _is_shallow(document: object) -> bool:
    """Return whether whoever goes through a document by calling itself stays within Python's limit."""
    level: list[Any] = [document]
    for _ in range(_DEEPEST):
        inner = (value.values() if isinstance(value, dict) else value for value in level)
        level = [value for values in inner for value in values if isinstance(value, dict | list)]
        if not level:
            return True
    return False


class Hosts(Protocol):
    """The hosts of a cluster, as far as the operator named them."""

    @property
    def names(self) -> tuple[str, ...]:
        """The hosts' names, in the order of the cluster file."""

    def connect(self, on_answer: Callable[[Answer], None]) -> dict[str, Answer]:
        """Return each host's `cnictl --version`, or why it has none. Hosts that `run` meets first are connected too."""

    def run(
        self, commands: Mapping[str, Command], timeout: float, on_answer: Callable[[Answer], None]
    ) -> dict[str, Answer]:
        """Run a command on each of some hosts, all at once, for at most `timeout` seconds each.

        `on_answer` is called, from any thread, as each answer comes. A host that can't be asked is an answer with a
        fault: nothing is raised.
        """

    def reconnect(self, names: Sequence[str]) -> None:
        """End the connections to some hosts: the next command shows whether a new one can be made."""
