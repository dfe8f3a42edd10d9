"""Fix findings: through the spine, or by running the manual command. Each step is journalled first."""

from collections.abc import Callable, Sequence

from cnictl.doctor import catalogue
from cnictl.doctor.catalogue import Examined, by_id
from cnictl.doctor.check import Action, Finding, Remedy
from cnictl.doctor.facts import Facts
from cnictl.node import spine
from cnictl.node.runs import converge
from cnictl.node.spine import OnStep, Plan
from cnictl.node.state import original_state
from cnictl.node.state.journal import FAILED, Journal


def fix(
    facts: Facts, only: Sequence[str], skip: Sequence[str], on_step: OnStep, tell: Callable[[str], None]
) -> tuple[Examined, list[tuple[str, str]]]:
    """Check, fix, and check again until nothing new can be fixed. Raises Problem.

    A fix can reveal another fault: for example, a new bridge has no ports. Return the remaining findings, and the check
    and subject of each finding that is gone. `tell` is called with the name of each check as it starts.
    """
    tried: list[Finding] = []
    examined = catalogue.examine(facts, only, skip, tell)
    seen = dict.fromkeys((finding.id, finding.subject) for finding in examined.findings)
    while todo := [finding for finding in examined.findings if finding.fixable and finding not in tried]:
        tried += todo
        with spine.exclusive():
            carry_out(facts, todo, on_step)
        examined = catalogue.examine(facts, only, skip, tell)
        seen |= dict.fromkeys((finding.id, finding.subject) for finding in examined.findings)
    left = {(finding.id, finding.subject) for finding in examined.findings}
    return examined, [finding for finding in seen if finding not in left]


def remedy_of(facts: Facts, finding: Finding) -> Remedy:
    """Return the fix of a finding; it is empty if a person has to decide."""
    check = by_id(finding.id)
    return check.fix(facts, finding) if check is not None and check.fix is not None and finding.fixable else Remedy()


def plan_of(facts: Facts, findings: Sequence[Finding]) -> tuple[Plan, list[tuple[Finding, Action]]]:
    """Return the changes of resources that fix these findings, and the other steps."""
    remedies = [(finding, remedy_of(facts, finding)) for finding in findings]
    wanted = {resource for _, remedy in remedies for resource in remedy.resources}
    plan = converge.plan(facts.spec).whole if wanted and facts.spec is not None else Plan(())
    steps = tuple(step for step in plan.steps if step.change is not None and step.resource.id in wanted)
    return Plan(steps), [(finding, action) for finding, remedy in remedies for action in remedy.actions]


def carry_out(facts: Facts, findings: Sequence[Finding], on_step: OnStep) -> None:
    """Fix these findings. The caller holds `spine.exclusive`. Raises Problem that names what could not be fixed."""
    facts.forget()
    plan, actions = plan_of(facts, findings)
    if not plan.changes and not actions:
        return
    journal = Journal("doctor --fix", repairs=True)
    for finding, action in actions:
        resource = f"doctor/{finding.id}/{finding.subject}"
        journal.begin(resource, {"found": finding.message}, None, action.command, finding.message)
        try:
            action.carry_out()
        except BaseException:
            journal.end(FAILED)
            raise
    if facts.spec is not None and not original_state.specs():
        original_state.add_spec(facts.spec)
    spine.remember(plan)
    spine.repair(plan, on_step, journal)
    facts.forget()
