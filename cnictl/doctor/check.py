"""A check: what it looks at, why that matters, what it finds, and the fix."""

import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cnictl.core.process import run
from cnictl.node import hint
from cnictl.node.hint import Hint

if TYPE_CHECKING:
    from cnictl.doctor.facts import Facts

Severity = Literal["error", "warning"]


class Seen(NamedTuple):
    """One thing a check saw: what about, what is wrong with it, and the hint."""

    subject: str
    message: str
    hint: Hint
    fixable: bool = True
    """Whether the check's `fix` may be used for this finding; a check without a `fix` has none that may."""


@dataclass(frozen=True)
class Finding:
    """What `cnictl doctor` reports."""

    id: str
    severity: Severity
    subject: str
    message: str
    hint: Hint
    fixable: bool

    def as_json(self) -> dict[str, Any]:
        """Return the finding for programs; `hint` is as `hint.as_json` documents it."""
        return {**vars(self), "hint": hint.as_json(self.hint)}


@dataclass(frozen=True)
class Action:
    """A step that is no resource's."""

    command: str
    """The manual command."""
    carry_out: Callable[[], object]
    """Does it. Raises Problem, OSError."""


def typed(*argv: str) -> Action:
    """A step that is just that command."""
    return Action(shlex.join(argv), lambda: run(list(argv)))


@dataclass(frozen=True)
class Remedy:
    """What `--fix` does about a finding."""

    resources: tuple[str, ...] = ()
    """Applied through the spine: ids as in plans, `bridge/cni0`."""
    actions: tuple[Action, ...] = ()


@dataclass(frozen=True)
class Check:
    """One kind of fault."""

    id: str
    """What `--only`, `--skip` and `--explain` name."""
    row: int
    """In the list of what operators suffer from, docs/doctor.md."""
    severity: Severity
    looks_at: str
    """Exactly: the sysctl, netlink attribute, firewall query, file under /proc."""
    why: str
    """One sentence."""
    by_hand: str
    """The commands that show the fault and the ones that fix it, for `--explain`."""
    find: Callable[["Facts"], Iterable[Seen]]
    """Reads only. Raises Problem, OSError if it can't look."""
    fix: Callable[["Facts", Finding], Remedy] | None = None
    behind: tuple[str, ...] = ()
    """Checks whose finding would explain this one: then it says nothing."""
    waits: bool = False
    """Whether it asks other hosts: then it is made beside the others, for a silent host is waited for."""

    def findings(self, facts: "Facts") -> list[Finding]:
        """What it finds on this host, worst first told by its order."""
        return [
            Finding(
                self.id, self.severity, seen.subject, seen.message, seen.hint, seen.fixable and self.fix is not None
            )
            for seen in self.find(facts)
        ]
