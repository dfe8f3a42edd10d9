"""Write docs/dev/drop-in.md from verdicts, with a mark by which a test checks that it matches the fixed list."""

import collections
import hashlib
import platform
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.parity.families import FAMILIES
from tests.parity.faults import FAULTS
from tests.parity.product import BAD_SCENARIOS, KEYS, NO_MEANING, SCENARIOS, VERSION_ROW, rows_of
from tests.parity.rules import BETTER, EXPECTED, GOT, NOT_SHOWN, SAME, WORSE, Verdict
from tests.parity.scenario import VERBS, Row

DOCUMENT = Path(__file__).parents[2] / "docs" / "dev" / "drop-in.md"

_SIGNS = {SAME: "=", BETTER: "+", WORSE: "✗", NOT_SHOWN: "○", None: "·"}
_NAMES = [family.name for family in FAMILIES]
_LONGEST = 150


def text(verdict: Verdict) -> str:
    """Return a verdict for a terminal."""
    lines = [f"{verdict.verdict}: {verdict.row.id}"]
    lines += [f"    ours: {reason}" for reason in verdict.ours]
    lines += [f"    reference: {reason}" for reason in verdict.reference]
    lines += [f"    by design: {reason}" for reason in verdict.by_design]
    return "\n".join(lines)


def all_rows() -> list[Row]:
    """Return every row of the fixed list."""
    rows = [row for scenario in (*SCENARIOS, *BAD_SCENARIOS) for row in rows_of(scenario)]
    return [*rows, VERSION_ROW, *(fault.row for fault in FAULTS)]


def mark() -> str:
    """Return the last line of a document that was made from the fixed list."""
    names = "\n".join(sorted(row.id for row in all_rows()))
    return f"<!-- {len(all_rows())} rows, {hashlib.sha256(names.encode()).hexdigest()[:16]} -->"


def write(verdicts: Sequence[Verdict]) -> None:
    """Write the document."""
    DOCUMENT.write_text(document(verdicts))


def document(verdicts: Sequence[Verdict]) -> str:
    """Return the whole page."""
    counts = collections.Counter(verdict.verdict for verdict in verdicts)
    return "\n".join(
        [
            _HEAD.format(
                kernel=".".join(platform.release().split(".")[:2]),
                rows=len(verdicts),
                same=counts[SAME],
                better=counts[BETTER],
                worse=counts[WORSE],
                not_shown=counts[NOT_SHOWN],
            ),
            *_keys(verdicts),
            *_better(verdicts),
            *_faults(verdicts),
            *_refused(verdicts),
            *_design(verdicts),
            *_not_shown(verdicts),
            "",
            mark(),
            "",
        ]
    )


_HEAD = """\
# Comparison with `bridge` and `host-local`

This page compares `cnictl-bridge` with the reference plugins that it replaces. `python -m tests.parity --write` writes
it; don't edit it. The reference pair (Debian's containernetworking-plugins 1.1.1) and `cnictl-bridge` get the same
configuration with only `type` changed, in the same scenario on the same kernel (Linux {kernel}), each on its own host.
The comparison covers exit status, error, result, links, addresses, routes, port flags,
settings, leases, the first packets, and what is left afterwards. The verdicts follow from the rules in
`tests/parity/rules.py`: `cnictl-bridge` is worse if it lacks anything that the specification or the key's documentation
requires, or if anything differs and that file gives no reason.

**{rows} rows: {same} the same, {better} better, {worse} worse, {not_shown} not shown here.**

`=` the same · `+` only the reference falls short · `✗` `cnictl-bridge` is worse · `○` not shown on this kernel ·
`·` no such row. Each cell has three signs: IPv4, IPv6, dual-stack.
"""


def _keys(verdicts: Sequence[Verdict]) -> list[str]:
    verdict_of = {
        (verdict.row.key, verdict.row.value, verdict.row.verb, verdict.row.family): verdict.verdict
        for verdict in verdicts
    }
    verbs = [verb for verb in VERBS if verb not in NO_MEANING]
    lines = ["## Keys", "", f"| key | value | {' | '.join(verbs)} |", f"|---|---|{'---|' * len(verbs)}"]
    values = dict.fromkeys((scenario.variant.key, scenario.variant.value) for scenario in SCENARIOS)
    for key, value in sorted(values, key=lambda item: KEYS.index(item[0])):
        cells = [
            " ".join(_SIGNS[verdict_of.get((key, value, verb, name))] for name in _NAMES).replace("· · ·", "·")
            for verb in verbs
        ]
        lines.append(f"| `{key}` | {value} | {' | '.join(cells)} |")
    version = next((verdict.verdict for verdict in verdicts if verdict.row.key == "VERSION"), None)
    lines += ["", *(f"{why}: `{_SIGNS[version]}`." for why in NO_MEANING.values()), ""]
    return lines


def _better(verdicts: Iterable[Verdict]) -> list[str]:
    lines = [
        "## Where the reference falls short",
        "",
        "GC and STATUS came with version 1.1.0 of the specification, which this release of the reference plugins",
        "doesn't support: it answers error 3. If the reference's ADD fails, the following steps count as not reached.",
        "If a bridge's IPv6 address is tentative when ADD returns, it doesn't answer pods for one or two seconds.",
        "",
        "| what was seen | rows |",
        "|---|---|",
    ]
    groups: dict[str, list[Row]] = collections.defaultdict(list)
    total: dict[str, int] = collections.Counter()
    for verdict in verdicts:
        if verdict.row.key == "fault" or verdict.row.value.startswith("bad: "):
            continue
        total[verdict.row.verb] += 1
        for reason in verdict.reference:
            groups[_plain(reason)].append(verdict.row)
    for reason, rows in sorted(groups.items(), key=lambda group: -len(group[1])):
        lines.append(f"| {_cell(reason)} | {_where(rows, total)} |")
    return [*lines, ""]


def _where(rows: list[Row], total: dict[str, int]) -> str:
    by_verb: dict[str, list[Row]] = collections.defaultdict(list)
    for row in rows:
        by_verb[row.verb].append(row)
    parts = []
    for verb, ones in by_verb.items():
        keys = list(dict.fromkeys(f"`{row.key}`" for row in ones))
        many = len(keys) > 8
        which = f"{len(ones)} of {total[verb]} rows" if many else ", ".join(keys)
        families = sorted({row.family for row in ones}, key=[*_NAMES, "any"].index)
        parts.append(f"{verb}: {which}" + ("" if len(families) == len(_NAMES) else f" ({', '.join(families)})"))
    return "; ".join(parts)


def _faults(verdicts: Iterable[Verdict]) -> list[str]:
    lines = [
        "## Faults",
        "",
        "Each scenario has one fault. `cnictl-bridge` must handle it correctly, whatever the reference does.",
        "",
        "| verb | what goes wrong | verdicts | the reference |",
        "|---|---|---|---|",
    ]
    groups: dict[tuple[str, str], list[Verdict]] = collections.defaultdict(list)
    for verdict in verdicts:
        if verdict.row.key == "fault":
            groups[verdict.row.verb, verdict.row.value].append(verdict)
    for (verb, name), ones in groups.items():
        signs = ", ".join(f"{verdict.row.family} `{_SIGNS[verdict.verdict]}`" for verdict in ones)
        reasons = dict.fromkeys(_plain(reason) for verdict in ones for reason in verdict.reference)
        lines.append(f"| {verb} | {name} | {signs} | {_cell('; '.join(reasons)) or 'also correct'} |")
    return [*lines, ""]


def _refused(verdicts: Iterable[Verdict]) -> list[str]:
    lines = [
        "## Invalid values",
        "",
        "ADD must refuse each value, name the key or value, and leave nothing. The family is IPv4, because a value is",
        "refused when it is read, or IPv6 for an IPv6 value.",
        "",
        "| key | value | family | verdict | code | the reference |",
        "|---|---|---|---|---|---|",
    ]
    for verdict in verdicts:
        if verdict.row.value.startswith("bad: "):
            value = verdict.row.value.removeprefix("bad: ")
            reasons = "; ".join(_plain(reason) for reason in verdict.reference)
            said = _cell(reasons) or "also refuses it"
            cells = (
                f"`{verdict.row.key}`",
                f"`{value}`",
                verdict.row.family,
                f"`{_SIGNS[verdict.verdict]}`",
                str(verdict.codes[1]),
                said,
            )
            lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _design(verdicts: Iterable[Verdict]) -> list[str]:
    groups = collections.Counter(reason for verdict in verdicts for reason in set(verdict.by_design))
    lines = ["## Different by design", ""]
    return [*lines, *(f"- {reason} ({number} rows)" for reason, number in groups.most_common()), ""]


def _not_shown(verdicts: Iterable[Verdict]) -> list[str]:
    rows = [verdict.row for verdict in verdicts if verdict.verdict == NOT_SHOWN]
    if not rows:
        return []
    keys = ", ".join(dict.fromkeys(f"`{row.key}`" for row in rows))
    needs = ", ".join(sorted({row.needs for row in rows}))
    return [
        "## Not shown",
        "",
        f"This kernel lacks {needs} filtering, so {keys} can't be tested here ({len(rows)} rows). "
        "Instead, these rows show that `cnictl-bridge` refuses ADD with error 2, names the key, and leaves nothing.",
    ]


_DRAWN = (
    (r"veth[0-9a-f]{8,11}", "veth…"),
    (r"CNI-[0-9a-f]{24}", "CNI-…"),
    (r"Mac doesn't match: [0-9a-f:]{17}", "Mac doesn't match: …"),
    (r"\{Dst:\{IP:\S+ Mask:[0-9a-f]+\}", "{Dst:NET"),
    (r"^(to \w+), IPv\d", r"\1"),
    (r"\{[\d.:]+ [0-9a-f]{32}\}", "{everywhere}"),
    (r"(?<![\w.:])(2001:db8|203\.0|0\.0\.0\.0|::/0)[\w.:]*/\d+", "NET"),
    (r"(?<![\w.:])(10\.2\d\.\d+\.\d+|2001:db8:[\w:]+|203\.0\.113\.0)(?![\w:])", "ADDRESS"),
)
"""Patterns for random names and for addresses that differ only by family, and their replacements."""


def _plain(reason: str) -> str:
    """Return a reason in words that are the same for every family and run, cut to one line."""
    reason = " ".join(reason.split())
    for pattern, word in _DRAWN:
        reason = re.sub(pattern, word, reason)
    fact, colon, rest = reason.partition(": ")
    got = GOT if rest.startswith(GOT) else ""
    values = rest.removeprefix(got).split(EXPECTED)
    reason = fact + colon + got + EXPECTED.join(", ".join(dict.fromkeys(value.split(", "))) for value in values)
    return reason if len(reason) <= _LONGEST else reason[: _LONGEST - 1] + "…"


def _cell(words: str) -> str:
    return words.replace("|", "\\|").replace("<", "&lt;")
