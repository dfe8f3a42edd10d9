"""What a check found."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from cnictl.node.spec import NodeSpec


@dataclass(frozen=True)
class Finding:
    """One thing that stands in the way (error), or that the operator should know of (warning)."""

    name: str
    """The check's: `peer-link`. Stable, for programs and search engines."""
    severity: Literal["error", "warning"]
    subject: str
    """What it is about: a link, a peer, a file."""
    message: str
    mend: str
    ignored: bool = False
    """Whether the operator accepts it, by `--ignore`."""


Check = Callable[[NodeSpec, NodeSpec | None], list[Finding]]
"""Looks at the host for one kind of fault; the second spec is what the node is now, or None. Changes nothing."""


def error(name: str, subject: str, message: str, mend: str) -> Finding:
    """A finding that a node can't be set up with."""
    return Finding(name, "error", subject, message, mend)


def warning(name: str, subject: str, message: str, mend: str) -> Finding:
    """A finding that a node can be set up with."""
    return Finding(name, "warning", subject, message, mend)
