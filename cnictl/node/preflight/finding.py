"""Hold what a preflight check finds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from cnictl.node.hint import Hint, parts
from cnictl.node.spec.node_spec import NodeSpec


@dataclass(frozen=True)
class PreflightFinding:
    """One thing that stands in the way (error), or that the operator should know of (warning)."""

    name: str
    """The check's: `peer-link`. Stable, for programs and search engines."""
    severity: Literal["error", "warning"]
    subject: str
    """What it is about: a link, a peer, a file."""
    message: str
    mend: Hint
    ignored: bool = False
    """Whether the operator accepts it, by `--ignore`."""

    def as_json(self) -> dict[str, Any]:
        """Return the finding for programs: `mend` is the hint as people read it, then come its parts."""
        return {**vars(self), "mend": str(self.mend), "hint": parts(self.mend)}


PreflightCheck = Callable[[NodeSpec, NodeSpec | None], list[PreflightFinding]]
"""Looks at the host for one kind of fault; the second spec is what the node is now, or None. Changes nothing."""


def error(name: str, subject: str, message: str, mend: Hint) -> PreflightFinding:
    """A finding that a node can't be set up with."""
    return PreflightFinding(name, "error", subject, message, mend)


def warning(name: str, subject: str, message: str, mend: Hint) -> PreflightFinding:
    """A finding that a node can be set up with."""
    return PreflightFinding(name, "warning", subject, message, mend)
