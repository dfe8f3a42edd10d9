"""Define a check: what it looks at, why that matters, its findings and its fix."""

import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from cnictl.core.process import run
from cnictl.doctor.facts import Facts
from cnictl.node import hint
from cnictl.node.hint import Hint

Severity = Literal["error", "warning"]


class HostFault(NamedTuple):
    """One fault that a check found: its subject, what is wrong, and the hint."""

    subject: str
    message: str
    hint: Hint
    fixable: bool = True
    """Whether the check's `fix`, if it has one, may be used for this finding."""


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
    """A step of a fix that is not part of a resource."""

    command: str
    """The manual command."""
    carry_out: Callable[[], object]
    """Makes the change. Raises Problem, OSError."""


def command_action(*argv: str) -> Action:
    """Return a step that runs this command."""
    return Action(shlex.join(argv), lambda: run(list(argv)))


@dataclass(frozen=True)
class Remedy:
    """What `--fix` does about a finding."""

    resources: tuple[str, ...] = ()
    """The ids of resources to apply through the spine, such as `bridge/cni0`."""
    actions: tuple[Action, ...] = ()


@dataclass(frozen=True)
class Check:
    """One kind of fault."""

    id: str
    """The name for `--only`, `--skip` and `--explain`."""
    row: int
    """The row in the table of checks in docs/doctor.md."""
    severity: Severity
    looks_at: str
    """The exact kernel setting, netlink attribute, firewall query or file under /proc."""
    why: str
    """Why it matters, in one sentence."""
    by_hand: str
    """The commands that show the fault and the ones that fix it, for `--explain`."""
    find: Callable[[Facts], Iterable[HostFault]]
    """Finds the faults; changes nothing. Raises Problem, OSError if it can't check."""
    fix: Callable[[Facts, Finding], Remedy] | None = None
    behind: tuple[str, ...] = ()
    """Checks whose findings explain this check's findings, which are then left out."""
    waits: bool = False
    """Whether it waits for answers from other hosts and therefore runs in parallel with the other checks."""

    def findings(self, facts: Facts) -> list[Finding]:
        """Return the findings on this host."""
        return [
            Finding(
                self.id, self.severity, fault.subject, fault.message, fault.hint, fault.fixable and self.fix is not None
            )
            for fault in self.find(facts)
        ]
