"""`cnictl cluster`: manage all nodes of a cluster file together, over ssh."""

from __future__ import annotations  # a type would execute the module that the loader postpones

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer

from cnictl.cli import asking, differences
from cnictl.cli.asking import YesOption
from cnictl.cli.output import Format, ListOption, OutputOption, print_json, print_list, print_table, say, working
from cnictl.cluster import change, inventory, ssh, survey
from cnictl.cluster import hosts as cluster_hosts
from cnictl.core.counted import counted, first_of
from cnictl.core.errors import Problem, UsageProblem
from cnictl.node.reach import cluster_file

FileOption = Annotated[
    str,
    typer.Option("--file", "-f", metavar="FILE", help="Default: cluster.toml here, else /etc/cnictl/cluster.toml."),
]
LimitOption = Annotated[
    list[str] | None,
    typer.Option("--limit", metavar="NAMES", help="Only these nodes, comma-separated. Repeatable."),
]
ConfirmOption = Annotated[
    int | None,
    typer.Option(
        "--confirm-within",
        metavar="SECONDS",
        min=cluster_hosts.LEAST_CONFIRM,
        max=3600,
        help="Each host undoes its change by itself after this many seconds, unless it is verified over ssh first.",
    ),
]
_NOT_CHANGED = (
    "no host was changed: {names} can't be changed, and changing only the others would make the cluster inconsistent\n"
    "  hint: to change only some hosts, use --limit"
)


def status(file: FileOption = "", limit: LimitOption = None, output: ListOption = Format.TABLE) -> None:
    """Show every host of the cluster file on one screen, and what is wrong between them.

    Each host reports its own `cnictl status` over ssh. The command also finds faults that no host can see alone: a
    missing or one-sided peer, two nodes with one pod CIDR, a node that was reset, and networks, MTUs or versions that
    differ. Exit status 1 if a host can't be reached or reports a fault, or if anything is found.

    \b
    cnictl cluster status
    cnictl cluster status -f cluster.toml --limit node1,node2
    cnictl cluster status -o json | jq '.findings[].message'
    """
    known = inventory.read(file)
    nodes = known.limited(limit or [])
    with inventory.hosts(nodes) as hosts, _asking(hosts, "asking") as on_answer:
        statuses = survey.ask(nodes, hosts, on_answer)
    findings = survey.findings(statuses, known.cluster)
    if output is Format.JSON:
        items = [row.as_json() for row in statuses]
        print_json({"items": items, "findings": [finding.as_json() for finding in findings]})
    else:
        _show_statuses(statuses, output)
        _say_findings(findings)
        if not findings and all(row.state == survey.OK for row in statuses):
            say(
                f"{len(statuses)} hosts are healthy and consistent"
                if statuses[1:]
                else f"{statuses[0].name} is healthy"
            )
    if findings or any(row.state != survey.OK for row in statuses):
        raise typer.Exit(1)


def plan(
    file: FileOption = "",
    limit: LimitOption = None,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit status 1 also if any host would change.")
    ] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show what `cnictl cluster apply` would change on each host. Nothing is changed.

    For a node without a pod CIDR, the command shows the one that it would get. Exit status 1 if a host can't be reached
    or changed, or matches the file only until it reverts a run that was not confirmed.

    \b
    cnictl cluster plan
    cnictl cluster plan --limit node6 --exit-code
    """
    known = inventory.read(file)
    text, assigned = _assigned(known)
    nodes = _nodes_of(known, text, limit)
    reached = inventory.hosts(nodes)
    with reached as hosts, change.ClusterChange(hosts, nodes, text) as changing, _asking(hosts, "asking") as tell:
        rows = changing.plan(tell)
    if output is Format.JSON:
        _print_changes(rows, assigned)
    else:
        _say_assigned(assigned, "would get")
        _show_plan(rows)
        _show_changes(rows)
    if not all(row.is_good for row in rows) or (exit_code and (assigned or any(row.steps for row in rows))):
        raise typer.Exit(1)


def apply(
    file: FileOption = "",
    limit: LimitOption = None,
    yes: YesOption = False,
    confirm_within: ConfirmOption = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="With --confirm-within: if a host fails, keep the others' changes.")
    ] = False,
    revert: Annotated[
        bool, typer.Option("--revert", help="With --confirm-within: if a host fails, revert the others' changes.")
    ] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Make all hosts match the cluster file.

    New nodes are set up, and all others get routes to them. A node without a pod CIDR gets the lowest free one, and the
    command writes it into the file. It first shows what each host would change; at a terminal it asks. Then it copies
    the file to /etc/cnictl/cluster.toml on each host, changes all hosts at the same time, and checks each on a new
    connection. A host that fails undoes its own change. If a host refuses the change in advance, for example because
    its live pods would be cut off, no host is changed. Hosts that can't be reached are left out.

    With --confirm-within, a host undoes its change by itself if it can't be reached afterwards, or is not as it should
    be. --keep or --revert decides about the other hosts' changes. Without either, the command asks at a terminal;
    without a terminal it keeps them.

    \b
    cnictl cluster apply
    cnictl cluster apply --limit node6
    cnictl cluster apply --confirm-within 60 --revert
    """
    if (keep or revert) and not confirm_within:
        raise UsageProblem("--keep and --revert need --confirm-within: without it, a failed host reverts its change")
    if keep and revert:
        raise UsageProblem("--keep and --revert exclude each other")
    keeps = keep or not (revert or asking.can_ask(yes))
    known = inventory.read(file)
    text, assigned = _assigned(known)
    nodes = _nodes_of(known, text, limit)
    if assigned:
        known.require_writable()
    with inventory.hosts(nodes) as hosts, change.ClusterChange(hosts, nodes, text) as changing:
        with _asking(hosts, "asking") as tell:
            planned = changing.plan(tell)
        refusing = [row.node.name for row in planned if row.state == change.FAILED]
        if refusing:
            _end(planned, {}, output, _NOT_CHANGED.format(names=", ".join(refusing)))
        _say_assigned(assigned, "gets")
        if output is Format.TABLE:
            _show_plan(planned)
        if asking.can_ask(yes) and (assigned or any(row.steps for row in planned)):
            asking.confirm(f"Change {_count(planned)}?")
        if assigned:
            known.write(text)
        with _telling(changing):
            with _asking(hosts, "changing") as tell:
                rows = changing.carry_out(planned, confirm_within, keeps, tell)
            if confirm_within and not keeps:
                rows = _settle(changing, rows, revert)
    _end(rows, assigned, output)


def remove(
    node: Annotated[str, typer.Argument(metavar="NODE", help="The node's name in the cluster file.")],
    file: FileOption = "",
    limit: LimitOption = None,
    gone: Annotated[
        bool, typer.Option("--gone", help="The host is gone for good: remove its node without asking it about pods.")
    ] = False,
    yes: YesOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Remove a node: reset its host, and delete its line and the routes to it.

    Drain the node first: remove refuses while pods live on it, and if it can't ask the host. With --gone, a host that
    can't be reached is removed too; if it ever returns, run `cnictl reset-node` on it. At a terminal the command asks
    first.

    \b
    cnictl cluster remove node3
    cnictl cluster remove node3 --gone
    """
    known = inventory.read(file)
    leaving = known.node(node)
    text, assigned = cluster_file.assign_free(cluster_file.without_node(known.text, node, known.path), known.path)
    nodes = _nodes_of(known, text, limit)
    everyone = inventory.hosts([*nodes, leaving])
    with everyone as hosts, change.ClusterChange(hosts, nodes, text) as changing:
        known.require_writable()
        state = change.status_of_leaving(hosts, leaving, known.cluster)
        reachable = state.state != survey.UNREACHABLE
        if not (reachable or gone):
            hint = (
                f"if the host is gone for good: cnictl cluster remove {node} --gone; else {state.hint or 'repair it'}"
            )
            raise Problem(f"can't ask {node} which pods live there: {state.why}", hint)
        pods = change.pods_on(hosts, node) if reachable else []
        if pods:
            raise Problem(
                f"{node} has {counted(len(pods), 'live pod')}: {first_of(pods, 5)}",
                "move them to other nodes first; cnictl ipam list there shows what is left",
            )
        with _asking(hosts, "asking") as tell:
            planned = changing.plan(tell)
        if output is Format.TABLE:
            _show_plan(planned)
        also = "and resets its host" if reachable else "but can't reach its host to reset it"
        say(f"this removes {node} from {known.path}, {also}")
        if asking.can_ask(yes):
            asking.confirm(f"Remove {node}?")
        leaver = change.reset(hosts, leaving)
        if leaver.state == change.FAILED or (leaver.state == change.UNREACHABLE and not gone):
            raise Problem(f"{node} was not reset, and nothing else was changed: {leaver.why}", leaver.hint)
        known.write(text)
        with _telling(changing), _asking(hosts, "changing") as tell:
            rows = [leaver, *changing.carry_out(planned, None, False, tell)]
    _end(rows, assigned, output)


def _end(
    rows: Sequence[change.HostChange], assigned: dict[str, tuple[str, ...]], output: Format, message: str = ""
) -> None:
    """Show the outcome on each host, and a message. Exit status 1 unless every host matches the file."""
    if output is Format.JSON:
        _print_changes(rows, assigned)
    else:
        _show_changes(rows)
    if message:
        say(message)
    if not all(row.is_good for row in rows):
        raise typer.Exit(1)


def _assigned(known: inventory.Inventory) -> tuple[str, dict[str, tuple[str, ...]]]:
    return cluster_file.assign_free(known.text, known.path)


def _nodes_of(
    known: inventory.Inventory, text: str, limit: Sequence[str] | None
) -> tuple[cluster_file.ClusterNode, ...]:
    """Return the chosen nodes as they are in the changed text of the file."""
    after = inventory.Inventory(known.path, known.contents, text, cluster_file.parse(text, known.path))
    return after.limited(limit or [])


def _settle(changing: change.ClusterChange, rows: list[change.HostChange], revert: bool) -> list[change.HostChange]:
    """Keep the changes. If a host failed, revert those of the others with `revert`, or if the operator says so."""
    failed = [row.node.name for row in rows if not row.is_good]
    if failed and not revert and any(row.state == change.CHANGED for row in rows):
        _show_changes(rows)
        revert = not typer.confirm(f"{', '.join(failed)} failed. Keep the other hosts' changes?", err=True)
    return changing.revert(rows) if failed and revert else changing.confirm(rows)


@contextmanager
def _telling(changing: change.ClusterChange) -> Iterator[None]:
    """If the block is interrupted or fails, print what is known about each host."""
    try:
        yield
    except BaseException:
        for name, words in changing.so_far.items():
            say(f"{name}: {words}")
        raise


@contextmanager
def _asking(hosts: ssh.Ssh, doing: str) -> Iterator[Callable[[cluster_hosts.Answer], None]]:
    """Show on stderr how many hosts have answered so far."""
    count, lock, total = 0, threading.Lock(), len(hosts.names)
    with working(f"{doing} {counted(total, 'host')}") as tell:

        def on_answer(answer: cluster_hosts.Answer) -> None:
            nonlocal count
            with lock:
                count += 1
                tell(f"{doing} {counted(total, 'host')}: {count} answered, last {answer.host}")

        yield on_answer


def _count(rows: Iterable[change.HostChange]) -> str:
    changing = [row.node.name for row in rows if row.state == change.WOULD_CHANGE]
    return counted(len(changing), "host") if len(changing) != 1 else changing[0]


def _show_statuses(statuses: Sequence[survey.HostStatus], output: Format) -> None:
    rows = []
    for status in statuses:
        row = status.as_json()
        peers = f"{row['peers_ok']} of {row['peers']}" if status.is_set_up else ""
        mtu = str(status.mtu) if status.mtu else ""
        rows.append((status.name, status.node.addresses[0], ", ".join(row["pod_cidrs"]), peers, mtu, status.version,
                     status.plugin, status.in_words))  # fmt: skip
    columns = ("node", "address", "pod CIDR", "peers ok", "MTU", "cnictl", "plugin", "state")
    print_list(output, columns, rows, (status.name for status in statuses))
    say_hints([(status.name, status.hint) for status in statuses])


def say_hints(hints: Sequence[tuple[str, str]]) -> None:
    """Print each hint once, with the hosts that it is for. Each pair is a host and its hint, which may be empty."""
    for hint in dict.fromkeys(hint for _, hint in hints if hint):
        say(f"hint for {', '.join(host for host, other in hints if other == hint)}: {hint}")


def _say_findings(findings: Sequence[survey.ClusterFinding]) -> None:
    for finding in findings:
        say(finding.message)
        if finding.hint:
            say(f"  hint: {finding.hint}")


def _say_assigned(assigned: dict[str, tuple[str, ...]], words: str) -> None:
    for name, pod_cidrs in assigned.items():
        say(f"{name} {words} {', '.join(pod_cidrs)}")


def _show_plan(rows: Sequence[change.HostChange]) -> None:
    """Show each host's difference line by line, as `cnictl plan` does on the host."""
    lines: list[differences.Line] = []
    for row in rows:
        if row.state != change.WOULD_CHANGE:
            continue
        lines.append(("~", f"{row.node.name}:"))
        for step in row.steps:
            lines.append(("~", f"  would change: {step['summary']}"))
            changes = differences.of_change(step["before"], step["after"], step["command"])
            lines += [(kind, f"  {text}") for kind, text in changes]
        lines += [("~", f"  would delete the attachment of {pod}") for pod in row.pods_cut_off]
    sys.stdout.flush()
    differences.write(lines)


def _show_changes(rows: Sequence[change.HostChange]) -> None:
    table = []
    for row in rows:
        steps = counted(len(row.steps), "step") if row.steps else ""
        table.append((row.node.name, row.state, steps, row.why))
    print_table(("node", "outcome", "changes", "why"), table)
    say_hints([(row.node.name, row.hint) for row in rows])


def _print_changes(rows: Sequence[change.HostChange], assigned: dict[str, tuple[str, ...]]) -> None:
    assigned_lists = {name: list(pod_cidrs) for name, pod_cidrs in assigned.items()}
    print_json({"items": [row.as_json() for row in rows], "assigned": assigned_lists})
