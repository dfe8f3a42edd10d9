"""A preflight check's finding."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from cnictl.node.hint import Hint, parts
from cnictl.node.spec.node_spec import NodeSpec


@dataclass(frozen=True)
class PreflightFinding:
    """A fault that stops the run (error), or that the operator should know (warning)."""

    name: str
    """The check's name, such as `peer-link`. It never changes, for programs and search engines."""
    severity: Literal["error", "warning"]
    subject: str
    """The link, peer or file at fault."""
    message: str
    mend: Hint
    ignored: bool = False
    """Whether the operator accepts it with `--ignore`."""

    def as_json(self) -> dict[str, Any]:
        """Return the finding for programs. `mend` is the hint as people read it, `hint` its parts."""
        return {**vars(self), "mend": str(self.mend), "hint": parts(self.mend)}


PreflightCheck = Callable[[NodeSpec, NodeSpec | None], list[PreflightFinding]]
"""Looks for one kind of fault and changes nothing. The second spec is the node's present one, or None."""


def error(name: str, subject: str, message: str, mend: Hint) -> PreflightFinding:
    """Return a finding that stops the set-up of a node."""
    return PreflightFinding(name, "error", subject, message, mend)


def warning(name: str, subject: str, message: str, mend: Hint) -> PreflightFinding:
    """Return a finding that does not stop the set-up of a node."""
    return PreflightFinding(name, "warning", subject, message, mend)
