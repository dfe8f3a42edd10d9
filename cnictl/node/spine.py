"""The spine: desired state → observe → diff → apply → verify → undo. Every command is a view of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from cnictl.node.spec import NodeSpec

State = dict[str, Any]
"""What a resource is or should be: JSON values only, so that it is shown, compared and journalled as it is."""


@dataclass(frozen=True)
class Change:
    """One difference, as data: it is shown, journalled, carried out, and undone with before and after swapped."""

    resource: str
    before: State | None
    after: State | None
    summary: str
    """`give cni0 the address 10.244.0.1/24`"""
    command: str
    """`ip address add 10.244.0.1/24 dev cni0`: the step as typed by hand; several lines where it takes several."""


class Resource(Protocol):
    """One thing on the host that cnictl is responsible for."""

    id: str

    def observe(self) -> State | None:
        """What is there now; None if nothing."""

    def desired(self, spec: NodeSpec) -> State | None:
        """What should be there; None to have it removed."""

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """The summary and the manual command of going from `before` to `after`."""

    def carry_out(self, change: Change) -> None:
        """Make `change.after` true. Raises Problem."""


OnStep = Callable[[Change, str], None]
"""Called after each step with its outcome: `changed`, `failed` or `undone`."""
