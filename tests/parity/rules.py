"""Judge the facts of both sides: what must hold, what may differ and why, and which plugin is better.

A row's verdict follows from three lists, none of which names a row:

- what must hold on a side but does not (`shortfalls`), by the specification, the key's documentation or common sense;
- what else differs (`differences`);
- the differences that are by design (`BY_DESIGN`), each with its reason.

Ours is *worse* if a fact that must hold does not, or if a fact differs without a reason. It is *better* if only the
reference falls short. Otherwise the two are the *same*.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tests.parity.answers import OK, REFUSED, Facts
from tests.parity.scenario import Row

SAME, BETTER, WORSE, NOT_SHOWN = "same", "better", "worse", "not shown"
ABSENT = "not seen"
OTHER_POD = "the other pod: "
GOT, EXPECTED = "got ", ", expected "
"""The words around the value of a fact that is wrong, and before the right value."""

NOT_COMPARED = frozenset({"code", "message", "pod.mac"})
"""Codes and messages of errors, because a separate fact says what they must name, and random values."""

BY_DESIGN: tuple[tuple[str, Callable[[Any, Any], bool], str], ...] = (
    (
        "result.routes",
        lambda reference, ours: _without_gateways(reference) == _without_gateways(ours),
        "if a route has no `gw` in the conf, the result names the gateway of the range",
    ),
    (
        "pod.accept_dad",
        lambda reference, ours: (reference, ours) == ("1", "0"),
        "without `enabledad`, duplicate address detection is off on the pod's interface (accept_dad 0)",
    ),
    (
        "pod.link_local_ready",
        lambda _, ours: bool(ours),
        "the pod may send by its link-local address as soon as ADD returns",
    ),
    (
        "pod.accepts_ra",
        lambda reference, ours: bool(reference) and not ours,
        "a pod with configured addresses ignores router advertisements",
    ),
    (
        "masquerade after the last DEL",
        lambda reference, ours: (reference, ours) == ([], ["nftables"]),
        "the masquerade rules belong to the network, not to a pod, and stay with its bridge after the last pod",
    ),
    (
        "node.masquerade",
        lambda reference, ours: (reference, ours) == (["iptables"], ["nftables"]),
        "without `ipMasqBackend`, the plugin uses nftables for masquerade",
    ),
)
"""Facts that differ by design: the fact, a test of its values (reference, ours), and the reason."""


def _without_gateways(routes: list[str]) -> list[Any]:
    return [{key: value for key, value in json.loads(route).items() if key != "gw"} for route in routes]


@dataclass(frozen=True)
class Verdict:
    """A row's verdict and its reasons."""

    row: Row
    verdict: str
    reference: tuple[str, ...]
    """The reference's shortfalls."""
    ours: tuple[str, ...]
    """Our shortfalls, and what differs without a reason."""
    by_design: tuple[str, ...]
    codes: tuple[int, int] = (0, 0)
    """The error codes, the reference's first; 0: none."""


def shortfalls(wanted: Facts, seen: Facts) -> dict[str, str]:
    """Return the wanted facts that do not hold, each with a description."""
    unmet = {}
    for fact, value in wanted.items():
        if isinstance(value, Needed):
            if not value.holds(seen):
                unmet[fact] = value.words(seen)
        elif fact.startswith(OTHER_POD) and fact not in seen:
            continue  # that pod's ADD was refused, which ADD's row shows
        elif seen.get(fact, ABSENT) != value:
            unmet[fact] = _words(fact, value, seen)
    if "outcome" in unmet:
        # the other facts follow from the outcome, except what a refusal leaves
        more = ("left",) if seen.get("outcome") != OK else ()
        return {fact: words for fact, words in unmet.items() if fact in ("outcome", *more)}
    return unmet


class Needed:
    """A condition on several facts, or on a part of one."""

    def __init__(self, holds: Callable[[Facts], bool], otherwise: str) -> None:
        self.holds = holds
        self.otherwise = otherwise

    def words(self, seen: Facts) -> str:
        """Return the description of the condition that does not hold."""
        return self.otherwise.format_map(_Shown(seen))


class _Shown(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return ABSENT


def _words(fact: str, value: Any, seen: Facts) -> str:
    got = seen.get(fact, ABSENT)
    if fact == "outcome":
        if value == OK and got == REFUSED:
            return f"refused, code {seen.get('code')}: {seen.get('message', '')}"
        if value == REFUSED and got == OK:
            return "accepted"
        return f"{got}: {seen.get('message', '')}".rstrip(": ")
    if fact == "left" and got != ABSENT:
        return f"left behind: {', '.join(got)}"
    return f"{fact}: {GOT}{_shown(got)}{EXPECTED}{_shown(value)}"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def differences(row: Row, reference: Facts, ours: Facts) -> tuple[list[str], list[str]]:
    """Return what differs without a reason, and what differs by design, among the facts that have no wanted value."""
    without: list[str] = []
    design: list[str] = []
    if ours.get("outcome") != OK:
        return without, design  # both refuse, and the wanted facts cover a refusal
    for fact in sorted((set(reference) | set(ours)) - NOT_COMPARED - set(row.wanted)):
        theirs, own = reference.get(fact, ABSENT), ours.get(fact, ABSENT)
        if theirs == own or ABSENT in (theirs, own):
            continue
        reason = next((why for name, excuses, why in BY_DESIGN if name == fact and excuses(theirs, own)), "")
        if reason:
            design.append(reason)
        else:
            without.append(f"{fact} differs: reference {_shown(theirs)}; ours {_shown(own)}")
    return without, design


def judge(row: Row, seen: Mapping[str, Facts], kernel: frozenset[str]) -> Verdict:
    """Return the row's verdict from both sides' facts of its verb."""
    reference, ours = seen["reference"], seen["ours"]
    wanted = row.wanted
    missing = bool(row.needs) and row.needs not in kernel
    if missing:
        wanted = refusal_without(row)
    short_ours = list(shortfalls(wanted, ours).values())
    short_reference = [] if missing else list(shortfalls(wanted, reference).values())
    without: list[str] = []
    design: list[str] = []
    if not missing and not short_ours and reference.get("outcome") == ours.get("outcome"):
        without, design = differences(row, reference, ours)
    codes = (reference.get("code", 0), ours.get("code", 0))
    if short_ours or without:
        verdict = WORSE
    elif missing:
        verdict = NOT_SHOWN
    else:
        verdict = BETTER if short_reference else SAME
    return Verdict(
        replace(row, wanted={}), verdict, tuple(short_reference), tuple(short_ours + without), tuple(design), codes
    )


def refusal_without(row: Row) -> Facts:
    """Return the facts that must hold if the kernel lacks what a key needs: error 2 naming the key, nothing left."""
    if row.verb == "ADD":
        names = Needed(
            lambda seen: "vlan" in seen.get("message", "").lower(), "the refusal doesn't name the key: {message}"
        )
        return {"outcome": REFUSED, "code": 2, "left": [], "names": names}
    return {"left": []} if row.verb in ("DEL", "GC") else {}
