"""Draw the chart of a run as plain SVG: each case's calls side by side, and the cost against the number of leases."""

import math
from html import escape

from tests.bench.cases import VERBS, Case

_WIDTH = 860
_LEFT = 300
_BAR = 15
_COLOURS = {
    True: {"ADD": "#1f6f54", "CHECK": "#5aa783", "DEL": "#a9d5bf"},
    False: {"ADD": "#6b6f7b", "CHECK": "#9a9eaa", "DEL": "#cfd2d9"},
}
"""Colours by verb: True for our plugin, False for the reference."""


def chart(cases: list[Case], title: str) -> str:
    """Return the SVG text. It leaves out cases that measure one verb only, such as our plugin against itself."""
    compared = [case for case in cases if case.calls == "sum"]
    bars = [case for case in compared if not case.key.startswith("leases")]
    grown = [case for case in compared if case.key.startswith("leases") or case.key == "masquerade-20"]
    parts = [_text(16, 24, title, 15, "bold")]
    bottom = _bars(parts, bars, 48.0)
    if len(grown) > 1:
        bottom = _lines(parts, grown, bottom + 24)
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{bottom + 12:.0f}" '
        f'font-family="sans-serif" role="img" aria-label="{escape(title)}">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def _bars(parts: list[str], cases: list[Case], top: float) -> float:
    longest = max((row.median("sum") for case in cases for row in case.rows), default=1.0)
    scale: float = (_WIDTH - _LEFT - 110) / longest
    y: float = top
    for colours, who, x in ((_COLOURS[True], "cnictl-bridge", _LEFT), (_COLOURS[False], "bridge + host-local", 570)):
        for place, verb in enumerate(VERBS):
            parts.append(f'<rect x="{x + 50 * place}" y="{y}" width="12" height="12" fill="{colours[verb]}"/>')
            parts.append(_text(x + 50 * place + 15, y + 10, verb, 9))
        parts.append(_text(x + 160, y + 10, who, 11, "bold"))
    y += 26
    for case in cases:
        parts.append(_text(16, y + _BAR + 4, case.title, 12))
        for ours, row in zip((True, False), case.rows, strict=True):
            at = float(_LEFT)
            for verb in VERBS:
                width = row.median(verb) * scale
                fill = _COLOURS[ours][verb]
                parts.append(f'<rect x="{at:.1f}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{fill}"/>')
                at += width
            ratio = f", ratio {case.ratio:.2f}" if ours else ""
            parts.append(_text(at + 5, y + 11, f"{row.median('sum'):.0f} ms{ratio}", 10))
            y += _BAR + 1
        y += 10
    return y


def _lines(parts: list[str], cases: list[Case], top: float) -> float:
    """Draw the sums of ADD, CHECK and DEL against the number of leases in the store. Both axes are logarithmic."""
    points = sorted((_leases(case), case) for case in cases)
    sums = [row.median("sum") for case in cases for row in case.rows]
    low, high = math.floor(math.log10(min(sums))), math.ceil(math.log10(max(sums)))
    first, last = math.log10(points[0][0]), math.log10(points[-1][0])
    height, right = 170, _WIDTH - 60
    parts.append(_text(16, top + 10, "ADD + CHECK + DEL with ipMasq, ms, against leases in the store", 12, "bold"))
    top += 26

    def at(leases: int, milliseconds: float) -> tuple[float, float]:
        x = 60 + (math.log10(leases) - first) / (last - first) * (right - 60)
        return x, top + height - (math.log10(milliseconds) - low) / (high - low) * height

    for power in range(low, high + 1):
        y = at(points[0][0], 10.0**power)[1]
        parts.append(f'<path d="M60 {y:.1f}H{right}" stroke="#ddd"/>')
        parts.append(_text(16, y + 4, f"{10**power:,}", 10))
    for place, ours in ((0, True), (-1, False)):
        colour = _COLOURS[ours]["ADD"]
        line = [at(leases, case.rows[place].median("sum")) for leases, case in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for (x, y), (_, case) in zip(line, points, strict=True):
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
            parts.append(_text(x - 14, y - 8, f"{case.rows[place].median('sum'):,.0f}", 10))
    for leases, _ in points:
        x = at(leases, 10.0**low)[0]
        parts.append(_text(x - 14, top + height + 16, f"{leases:,}", 10))
    return top + height + 22


def _leases(case: Case) -> int:
    return int(case.key.rpartition("-")[2])


def _text(x: float, y: float, words: str, size: int, weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}">{escape(words)}</text>'
