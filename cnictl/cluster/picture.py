"""Show a matrix as text: a table by host or, for many hosts, the failed pairs; then each cause once."""

from collections.abc import Sequence

from cnictl.cluster.matrix import LOSS, MASQUERADED, OK, PASSING, Cell, CellCause, Matrix
from cnictl.cluster.sample import EACH, WHOLE
from cnictl.core.counted import counted
from cnictl.probe.pair_reports import CHECKS, NODE_POD, POD_EXTERNAL, POD_NODE, POD_POD

_TIMES_UP_TO = 6
"""The largest number of hosts for which the table also shows round-trip times."""
_NAMED = 6
"""The largest number of pairs that a cause names; the others are only counted."""

Rows = tuple[tuple[str, ...], list[tuple[str, ...]]]


def heading(matrix: Matrix) -> str:
    """Return in one line what was tested."""
    hosts, pairs = len(matrix.hosts), matrix.pairs
    which = f"every pair of {hosts} hosts"
    if pairs.seed is not None:
        which = (
            f"{pairs.count} of {hosts * (hosts - 1) // 2} pairs ({hosts} hosts, {EACH} partners each; "
            f"seed {pairs.seed}; --full tests all)"
        )
    return f"{which}, pod to pod both ways"


def verdict(matrix: Matrix, seconds: float) -> str:
    """Return the result in one line."""
    cells = [cell for cell in matrix.cells if cell.check == POD_POD]
    good = sum(not cell.failed for cell in cells)
    lost = sum(cell.state == LOSS for cell in matrix.cells)
    parts = [f"{good} of {len(cells)} pod to pod checks ok"]
    if cells and good == len(cells):
        parts.append("every pod saw the senders' own addresses")
    others = [cell for cell in matrix.failed_cells if cell.check != POD_POD]
    parts += [f"{counted(len(others), 'other check')} failed"] if others else []
    parts += [f"{counted(lost, 'check')} lost requests"] if lost else []
    names = [report.name for report in matrix.not_reached]
    parts += [f"not reached: {', '.join(names)}"] if names else []
    return f"{', '.join(parts)}, in {seconds:.1f} s"


def rows(matrix: Matrix) -> Rows:
    """Return column names and rows: a table by host for up to `WHOLE` hosts, else only the cells that are not ok."""
    if len(matrix.hosts) <= WHOLE:
        return _by_host(matrix)
    listed: list[tuple[str, ...]] = [
        (cell.sender, cell.receiver or "outside", cell.check, cell.family, _word(cell))
        for cell in matrix.cells
        if cell.failed or cell.state == LOSS
    ]
    return ("from", "to", "check", "family", "state"), listed


def causes(matrix: Matrix) -> list[tuple[str, str]]:
    """Return each cause once, with the pairs that it explains, and its hint.

    If sentences about one host have the same cause and hint and differ only in the pair, only the first is shown.
    """
    explained: dict[tuple[str, ...], tuple[list[str], list[str]]] = {}
    for cell in matrix.failed_cells:
        cause = cell.cause or CellCause(cell.state, cell.state)
        hint = str(cause.hint)
        kind = (cause.host, cause.name) if cause.host else (cause.words,)
        words, pairs = explained.setdefault((hint, *kind), ([], []))
        words.append(cause.words)
        pairs.append(_pair(cell))
    lines = []
    for (hint, *_), (words, pairs) in explained.items():
        sentences, named = list(dict.fromkeys(words)), list(dict.fromkeys(pairs))
        alike = f", and {len(sentences) - 1} more like it" if len(sentences) > 1 else ""
        unnamed = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        lines.append((f"{sentences[0]}{alike} ({', '.join(named[:_NAMED])}{unnamed})", hint))
    lost = [report for report in matrix.not_reached if not any(report.fault in words for words, _ in lines)]
    return lines + [(f"{report.name}: {report.fault}", report.hint) for report in lost]


def _by_host(matrix: Matrix) -> Rows:
    names = [report.name for report in matrix.hosts]
    columns = ("pod on", *(f"→ {name}" for name in names), "node → pods", "pod → nodes", "external")
    table: list[tuple[str, ...]] = []
    for name in names:
        own = [cell for cell in matrix.cells if cell.sender == name]
        of_check = {check: [cell for cell in own if cell.check == check] for check in CHECKS}
        pairs = [_joined([cell for cell in of_check[POD_POD] if cell.receiver == other], len(names)) for other in names]
        counted = [_counted(of_check[check]) for check in (NODE_POD, POD_NODE)]
        table.append((name, *pairs, *counted, _joined(of_check[POD_EXTERNAL], len(names))))
    return columns, table


def _joined(listed: Sequence[Cell], hosts: int) -> str:
    """Return the cells of all families as one text: their common state, or each failure with its family."""
    if not listed:
        return "-"
    if len({cell.state for cell in listed}) == 1:
        times = [cell.ping.rtt_ms[1] for cell in listed if cell.ping and cell.ping.rtt_ms]
        word = _word(listed[0])
        return f"{word}: {times[0]:.2f} ms" if word == OK and times and hosts <= _TIMES_UP_TO else word
    bad = [cell for cell in listed if cell.state != OK] or listed
    return "; ".join(f"{cell.state}: {'IPv6' if cell.family == 'ipv6' else 'IPv4'}" for cell in bad)


def _counted(cells: Sequence[Cell]) -> str:
    """Return how many of a host's checks passed or failed."""
    good = sum(cell.state in PASSING for cell in cells)
    if not cells:
        return "-"
    return f"ok: {good} of {len(cells)}" if good == len(cells) else f"failed: {len(cells) - good} of {len(cells)}"


def _word(cell: Cell) -> str:
    return f"{cell.state}: as {cell.seen_as[0]}" if cell.state == MASQUERADED and cell.seen_as else cell.state


def _pair(cell: Cell) -> str:
    sender = f"{cell.sender} itself" if cell.check == NODE_POD else cell.sender
    receiver = {POD_NODE: f"{cell.receiver} itself", POD_EXTERNAL: "outside"}.get(cell.check, cell.receiver)
    return f"{sender} → {receiver}"
