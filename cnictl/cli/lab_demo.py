"""`cnictl lab demo`: run the walk-through; progress goes to stderr, each act's commands and matrix to stdout."""

import sys
import time
from typing import Annotated, Any

import typer

from cnictl.cli import cluster_test, groups, reports
from cnictl.cli.output import Format, OutputOption, print_json, print_lines, say, working
from cnictl.cluster import lab_cluster
from cnictl.core.errors import Problem, UsageProblem
from cnictl.lab.demo import Played, run_demo
from cnictl.probe.checks import Report, report_from_json

_PICTURE_WIDTH = 80


def demo(
    svg: Annotated[str, typer.Option("--svg", metavar="FILE", help="Save the last matrix as an SVG picture.")] = "",
    nodes: Annotated[
        int | None,
        typer.Option(metavar="COUNT", min=2, max=16, help="Build a cluster of this many nodes from one file instead."),
    ] = None,
    dual_stack: Annotated[bool, typer.Option("--dual-stack", help="Use both address families.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Run the walk-through on two nodes of a new lab, or build a cluster there from one file.

    With only the bridge, pods reach their host and the other pods on it. Masquerade adds the other host and the
    outside, and routes to the peers' pod CIDRs add the pods on other hosts. After each step, real pods try every path.
    Exit status 1 if the result for a path is not as expected.

    With --nodes, `init-node --from cluster.toml` sets up every node, and the demo ends with the matrix of every pair.

    \b
      cnictl lab demo
      cnictl lab demo --svg matrix.svg
      cnictl lab demo --nodes 5
    """
    start = time.monotonic()
    if nodes is not None:
        if svg:
            raise UsageProblem("--svg saves the matrix of the walk-through, but --nodes runs a different demo")
        _cluster(nodes, dual_stack, output)
        return
    acts = []
    with working(lines=True) as progress:
        for played in run_demo(progress, dual_stack):
            acts.append(played)
            progress.pause()
            if output is Format.TABLE:
                _show(len(acts), played)
    surprises = [surprise for played in acts for surprise in played.surprises]
    seconds = time.monotonic() - start
    if svg:
        _save_svg(acts[-1], svg)
    if output is Format.JSON:
        documents = [_as_json(played) for played in acts]
        print_json({"as_expected": not surprises, "seconds": round(seconds, 2), "acts": documents, "matrix": None})
    for surprise in surprises:
        say(f"not as expected: {surprise}")
    if surprises:
        raise typer.Exit(1)
    say(
        f"every path is as expected, and no check of the last matrix failed, in {seconds:.1f} s; pods saw each "
        "other's own addresses"
    )


def _cluster(count: int, dual_stack: bool, output: Format) -> None:
    """Build a cluster from one file, and show the matrix of every pair."""
    start = time.monotonic()
    with working(lines=True) as progress:
        text, tested = lab_cluster.run_cluster_demo(count, progress, dual_stack)
    seconds = time.monotonic() - start
    if output is Format.JSON:
        summary = tested.as_json(seconds)["summary"]
        print_json({"as_expected": tested.passed, "seconds": round(seconds, 2), "acts": [], "matrix": summary})
    else:
        print(f"cluster.toml:\n{text}", flush=True)
        cluster_test.show(tested, seconds)
    if not tested.passed:
        raise typer.Exit(1)


def _show(number: int, played: Played) -> None:
    """Show an act: its commands, the manual commands, and the matrix after it."""
    verdict = "as expected" if not played.surprises else "NOT as expected"
    print_lines([("bold", f"{number}. {played.act.title} ({played.seconds:.1f} s, {verdict})")])
    print_lines(("" if line.startswith("  node") else "dim", line) for line in _commands(played))
    print_lines([("", "")])
    reports.show_matrix(_reports(played))
    print_lines([("", "")])
    sys.stdout.flush()


def _save_svg(played: Played, path: str) -> None:
    """Save an act's matrix as a picture. Raises Problem if the file can't be written."""
    lines = reports.lines(_reports(played), _PICTURE_WIDTH)
    try:
        groups.terminal().save_picture(lines, path, "cnictl lab demo", _PICTURE_WIDTH)
    except OSError as error:
        raise Problem(f"{path}: {error.strerror}") from None


def _as_json(played: Played) -> dict[str, Any]:
    """Return an act as JSON values."""
    return {
        "title": played.act.title,
        "seconds": round(played.seconds, 2),
        "as_expected": not played.surprises,
        "surprises": played.surprises,
        "commands": dict(played.commands),
        "by_hand": dict(played.by_hand),
        "reports": dict(played.reports),
    }


def _commands(played: Played) -> list[str]:
    first = next(iter(played.commands))
    lines = [f"  {name}$ {command}" for name, command in played.commands.items()]
    lines.append(f"  manual commands on {first}:")
    return lines + [f"    {line}" for line in played.by_hand[first]]


def _reports(played: Played) -> list[tuple[str, Report]]:
    return [(name, report_from_json(form)) for name, form in played.reports.items()]
