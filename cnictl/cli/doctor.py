"""`cnictl doctor`: find what keeps pods from working, with the fix for each fault."""

from __future__ import annotations  # a type would execute the module that the loader postpones

from collections.abc import Sequence
from typing import Annotated

import typer

from cnictl.cli import differences, script
from cnictl.cli.output import (
    Format,
    ListOption,
    print_items,
    print_json,
    print_list,
    print_names,
    refuse_list_format,
    say,
    working,
    write,
)
from cnictl.cli.root import require_root
from cnictl.core import counted
from cnictl.core.errors import UsageProblem
from cnictl.doctor import catalogue, drift, fixes
from cnictl.doctor import check as checks
from cnictl.doctor import facts as host
from cnictl.node.resources import boot_note, inventory


def doctor(
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="CHECK", help="Run only this check. Repeatable.")
    ] = None,
    skip: Annotated[
        list[str] | None, typer.Option("--skip", metavar="CHECK", help="Leave out this check. Repeatable.")
    ] = None,
    explain: Annotated[
        str,
        typer.Option(
            "--explain", metavar="CHECK", help="Show what a check looks at and why, with the manual commands."
        ),
    ] = "",
    list_checks: Annotated[bool, typer.Option("--list", help="List every check and why it matters.")] = False,
    fix: Annotated[bool, typer.Option("--fix", help="Fix what is safe to fix, then check again.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --fix: change nothing, show what would be fixed.")
    ] = False,
    output: ListOption = Format.TABLE,
) -> None:
    """Find what keeps this node's pods from working: one line for each fault, with its fix.

    Exit status 1 on errors, if a check can't run, or if this host is not set up as a node; 0 on warnings alone.
    doctor only reads. With --fix it fixes what is safe to fix, notes that in `cnictl history`, and checks again.

    \b
    cnictl doctor
    cnictl doctor --fix --dry-run
    cnictl doctor --explain reverse-path
    cnictl doctor --skip mtu-path -o json
    """
    if dry_run and not fix:
        raise UsageProblem("--dry-run needs --fix: doctor without --fix changes nothing", "cnictl doctor")
    for name in (*(only or ()), *(skip or ()), *([explain] if explain else ())):
        catalogue.require_known(name)
    if explain:
        _explain(explain, output)
        return
    if list_checks:
        _list(output)
        return
    require_root("doctor", "reads firewall rules, leases and pods' namespaces")
    facts, fixed = host.Facts(), list[tuple[str, str]]()
    if facts.spec is None:
        say("this host is not set up as a cnictl node: only checks that do not need /etc/cnictl/node.toml are run")
    with working("checking this node") as tell:
        if fix and not dry_run:
            examined, fixed = fixes.fix(
                facts, only or (), skip or (), lambda change, outcome: say(f"{outcome}: {change.summary}"), tell
            )
        else:
            examined = catalogue.examine(facts, only or (), skip or (), tell)
    examined = examined.with_read_failures()
    if fix and dry_run:
        _show_remedies(facts, examined, output)
    else:
        for check, subject in fixed:
            say(f"fixed: {check} {subject}")
        _say_notes(facts, examined, only or ())
        _show(examined, output, facts.spec is not None)
    if examined.fails(facts.spec is not None):
        raise typer.Exit(1)


def _say_notes(facts: host.Facts, examined: catalogue.Examined, only: Sequence[str]) -> None:
    """Say on stderr what is not a finding. All this comes before the findings or the verdict, which are on stdout."""
    if facts.spec is not None:
        for name, note in (("boot", boot_note.short()), ("not kept", inventory.not_kept(facts.spec))):
            if note:
                say(f"{name}: {note}")
        left = [] if only else drift.harmless(facts)
        if left:
            say(
                f"drift: {counted.counted(len(left), 'resource')} not as in node.toml, but no pod is cut off by that "
                "now; cnictl apply repairs it"
            )
    for reason in dict.fromkeys(reason for _, reason in examined.unable):
        names = [name for name, other in examined.unable if other == reason]
        say(f"checks that could not run: {', '.join(names)}: {reason}")


def _show(examined: catalogue.Examined, output: Format, is_node: bool) -> None:
    """Show the findings, or that a node has none."""
    if output is Format.JSON:
        print_items(finding.as_json() for finding in examined.findings)
    elif examined.findings:
        rows = [
            (finding.severity, finding.id, finding.subject, finding.message, _fix_words(finding))
            for finding in examined.findings
        ]
        columns = ("severity", "check", "subject", "found", "fix")
        print_list(output, columns, rows, (finding.id for finding in examined.findings), whole=1)
    elif examined.is_healthy(is_node) and output is not Format.NAME:
        write("healthy: nothing was found that keeps pods from working")


def _fix_words(finding: checks.Finding) -> str:
    return f"--fix, or: {finding.hint}" if finding.fixable else finding.hint


def _show_remedies(facts: host.Facts, examined: catalogue.Examined, output: Format) -> None:
    plan, actions = fixes.plan_of(facts, [finding for finding in examined.findings if finding.fixable])
    rows = [{"for": finding.id, "subject": finding.subject, "command": action.command} for finding, action in actions]
    rows += [{"for": change.resource, "subject": change.summary, "command": change.command} for change in plan.changes]
    if output is Format.JSON:
        print_items(rows)
        return
    if output is Format.NAME:
        print_names(row["for"] for row in rows)
        return
    left = [finding for finding in examined.findings if not finding.fixable]
    lines = [("~", script.comment(f"would fix: {row['for']} {row['subject']}")) for row in rows]
    lines += [("=", script.comment(f"left to you: {finding.id} {finding.subject}: {finding.hint}")) for finding in left]
    for row in rows:
        lines += [("", ""), *script.of_commands(f"{row['for']}: {row['subject']}", [row["command"]])]
    differences.write(lines)
    if not examined.findings:
        say("nothing to fix")


def _explain(name: str, output: Format) -> None:
    refuse_list_format(output, "doctor --explain")
    check = catalogue.by_id(name)
    assert check is not None
    if output is Format.JSON:
        print_json(
            {
                "id": check.id, "severity": check.severity, "looks_at": check.looks_at, "why": check.why,
                "by_hand": check.by_hand.splitlines(), "fixable": check.fix is not None, "behind": list(check.behind),
            }
        )  # fmt: skip
        return
    write(f"{check.id} ({check.severity}{', fixed by --fix' if check.fix is not None else ''})\n\n{check.why}\n")
    write(f"Looks at: {check.looks_at}")
    if check.behind:
        write(f"Left out if a finding of another check explains it: {', '.join(check.behind)}")
    write("\nManual commands:")
    for line in check.by_hand.splitlines():
        write(f"    {line}")


def _list(output: Format) -> None:
    if output is Format.JSON:
        print_items({"id": check.id, "severity": check.severity, "why": check.why} for check in catalogue.CHECKS)
        return
    rows = [
        (
            check.id,
            check.severity,
            "yes" if check.fix else "-",
            check.why,
            check.looks_at,
            ", ".join(check.behind) or "-",
        )
        for check in catalogue.CHECKS
    ]
    columns = ("check", "severity", "fix", "why", "looks at", "explained by")
    print_list(output, columns, rows, (check.id for check in catalogue.CHECKS), more=2)
