"""Run one round of `test-connectivity`: the pings of `checks` and the cells, all at the same time."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from cnictl.node.spec.node_spec import NodeSpec, by_family
from cnictl.probe.cells import dns_cell, host_port_cell, ipv6_cell, mtu_cell, names, service_cell, service_list
from cnictl.probe.cells.cell import Cell, Evidence, Part, Row, Skipped
from cnictl.probe.cells.ports import PortsCell
from cnictl.probe.checks import CHECKS, CheckResult, Report, run_checks
from cnictl.probe.failure import OWN_HOST
from cnictl.probe.host import Host
from cnictl.probe.pods import CheckedPod
from cnictl.probe.targets import Wanted

_MOST_AT_ONCE = 64


@dataclass(frozen=True)
class Round:
    """What a round checks."""

    spec: NodeSpec
    wanted: Wanted
    chosen: frozenset[str]
    """Names of checks and cells (`names.choose`)."""
    without_mapping: str = ""
    """Why no pod has a mapped port; empty if the second pod has one."""


def run_round(round_: Round, pod: CheckedPod, other: CheckedPod | None, on_step: Callable[[str], None]) -> Report:
    """Return the rows of the chosen checks and cells, grouped by family."""
    parts = _parts(round_, pod, other)
    with ExitStack() as stack:
        if other is not None and other.host_port:
            for listening in host_port_cell.listen(other):
                stack.callback(listening.close)
        pool = stack.enter_context(ThreadPoolExecutor(_MOST_AT_ONCE))
        planning = pool.submit(_start, round_, parts, pod, pool)
        pings = run_checks(round_.spec, pod, other, round_.wanted, on_step, names.checks_for(round_.chosen))
        cells, running = planning.result()
        for task in running:
            task.result()
        evidence = Evidence(pings)
        rows = [row for cell in cells for row in cell.results(evidence)]
    return _merged(round_.chosen, pings, rows)


def _parts(round_: Round, pod: CheckedPod, other: CheckedPod | None) -> list[Part]:
    return [
        Part(
            Host(spec, round_.spec),
            pod.in_family_of(spec.subnet),
            other.in_family_of(spec.subnet) if other is not None else None,
            round_.wanted,
        )
        for spec in by_family(round_.spec)
    ]


def _start(
    round_: Round, parts: list[Part], pod: CheckedPod, pool: ThreadPoolExecutor
) -> tuple[list[Cell], list[Future[None]]]:
    cells = list(_plan(round_, parts, pod))
    return cells, [pool.submit(task) for cell in cells for task in cell.tasks()]


def _plan(round_: Round, parts: list[Part], pod: CheckedPod) -> Iterator[Cell]:
    chosen = round_.chosen
    services = service_list.services() if chosen & {names.DNS, names.CLUSTER_IP} else []
    servers = dns_cell.servers_of(pod, services) if names.DNS in chosen else dns_cell.Servers((), "")
    for part in parts:
        if not part.pod.address:
            for check in names.CELLS:
                if check in chosen:
                    yield Skipped(Row(check, part.family, "", ""), f"the pod has no {part.host.family} address")
            continue
        for check in (names.TCP, names.UDP):
            if check in chosen:
                yield PortsCell(check, part)
        if names.DNS in chosen:
            yield from dns_cell.plan(part, servers)
        if names.CLUSTER_IP in chosen:
            yield from service_cell.plan(part, services)
        yield from host_port_cell.plan(part, chosen, round_.without_mapping)
        if names.PATH_MTU in chosen:
            yield from mtu_cell.plan(part)
        if names.IPV6 in chosen and part.host.ipv6:
            yield ipv6_cell.plan(part, round_.spec, pod)
    if names.IPV6 in chosen and not any(part.host.ipv6 for part in parts):
        yield ipv6_cell.plan(None, round_.spec, pod)


def _merged(chosen: frozenset[str], pings: Report, cells: list[CheckResult]) -> Report:
    """Return the chosen rows by family: in each the checks, then the cells.

    A pod without an address of a family fails whatever was chosen.
    """
    results = [
        result for result in pings.checks
        if result.check in chosen or (result.check == OWN_HOST and not result.source)
    ]  # fmt: skip
    results += cells
    families = dict.fromkeys(result.family for result in results)
    order = {check: number for number, check in enumerate((*CHECKS, *names.CELLS))}
    return Report(
        tuple(
            result
            for family in families
            for result in sorted((r for r in results if r.family == family), key=lambda r: order[r.check])
        )
    )
