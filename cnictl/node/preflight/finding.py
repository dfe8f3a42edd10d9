"""A preflight check's finding."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from cnictl.node import hint
from cnictl.node.hint import Hint
from cnictl.node.spec.node_spec import NodeSpec


@dataclass(frozen=True)
class PreflightFinding:
    """A fault that stops the run (error), or that the operator should know of (warning)."""

    name: str
    """The check's name, such as `peer-link`. It never changes, because programs use it and people search for it."""
    severity: Literal["error", "warning"]
    subject: str
    """The link, peer or file at fault."""
    message: str
    hint: Hint
    ignored: bool = False
    """Whether the operator accepts it with `--ignore`."""

    def as_json(self) -> dict[str, Any]:
        """Return the finding as JSON values; `hint.as_json` documents `hint`."""
        return {**vars(self), "hint": hint.as_json(self.hint)}


PreflightCheck = Callable[[NodeSpec, NodeSpec | None], list[PreflightFinding]]
"""A function that looks for one kind of fault and changes nothing. The second spec is the node's present one."""


def error(name: str, subject: str, message: str, what_to_do: Hint) -> PreflightFinding:
    """Return a finding that stops the set-up of a node."""
    return PreflightFinding(name, "error", subject, message, what_to_do)


def warning(name: str, subject: str, message: str, what_to_do: Hint) -> PreflightFinding:
    """Return a finding that does not stop the set-up of a node."""
    return PreflightFinding(name, "warning", subject, message, what_to_do)
