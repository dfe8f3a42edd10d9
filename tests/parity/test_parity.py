"""Check that the list is complete, the rules judge correctly, the document matches, and a part of the list passes."""

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.parity import report
from tests.parity.answers import OK, REFUSED, Facts
from tests.parity.product import BAD_SCENARIOS, KEYS, NOT_REFUSED, SCENARIOS, missing_cells
from tests.parity.rules import BETTER, NOT_SHOWN, SAME, WORSE, judge
from tests.parity.scenario import Row

_REFERENCE = "/usr/lib/cni/bridge"


def _verdict(reference: Facts, ours: Facts, wanted: Facts | None = None, needs: str = "") -> str:
    row = Row("vlan", "100", "ADD", "IPv4", wanted or {"outcome": OK}, needs)
    return judge(row, {"reference": reference, "ours": ours}, frozenset()).verdict


def test_every_key_verb_and_family_has_a_row_or_a_reason() -> None:
    assert missing_cells() == []
    assert {scenario.variant.key for scenario in SCENARIOS} == set(KEYS)


def test_every_key_has_a_value_that_is_refused() -> None:
    assert set(KEYS) - {scenario.variant.key for scenario in BAD_SCENARIOS} == set(NOT_REFUSED)


def test_row_names_are_unique() -> None:
    assert [name for name, number in Counter(row.id for row in report.all_rows()).items() if number > 1] == []


def test_the_document_matches_the_scenarios() -> None:
    text = report.DOCUMENT.read_text()
    assert text.rstrip().endswith(report.mark()), "make parity PARITY=--write"
    assert "0 worse" in text
    for scenario in SCENARIOS:
        assert f"| `{scenario.variant.key}` | {scenario.variant.value} |" in text


@pytest.mark.parametrize(
    ("reference", "ours", "verdict"),
    [
        ({"outcome": OK, "pod.mtu": 1500}, {"outcome": OK, "pod.mtu": 1500}, SAME),
        ({"outcome": OK}, {"outcome": REFUSED}, WORSE),
        ({"outcome": REFUSED}, {"outcome": REFUSED}, WORSE),
        ({"outcome": REFUSED}, {"outcome": OK}, BETTER),
        ({"outcome": OK, "pod.mtu": 1500}, {"outcome": OK, "pod.mtu": 1400}, WORSE),
        ({"outcome": OK, "node.masquerade": ["iptables"]}, {"outcome": OK, "node.masquerade": ["nftables"]}, SAME),
        ({"outcome": OK, "node.masquerade": ["nftables"]}, {"outcome": OK, "node.masquerade": []}, WORSE),
    ],
)
def test_a_verdict_follows_from_the_observations(reference: Facts, ours: Facts, verdict: str) -> None:
    assert _verdict(reference, ours) == verdict


def test_leftovers_make_a_side_worse() -> None:
    wanted: Facts = {"outcome": REFUSED, "left": []}
    clean: Facts = {"outcome": REFUSED, "left": []}
    littered: Facts = {"outcome": REFUSED, "left": ["a host veth"]}
    assert _verdict(clean, littered, wanted) == WORSE
    assert _verdict(littered, clean, wanted) == BETTER


def test_a_row_that_the_kernel_cannot_show_still_needs_a_clean_refusal() -> None:
    refusal: Facts = {"outcome": REFUSED, "code": 2, "message": "vlan: 100: not on this kernel", "left": []}
    assert _verdict({"outcome": REFUSED}, refusal, needs="vlan") == NOT_SHOWN
    assert _verdict({"outcome": REFUSED}, {**refusal, "left": ["the bridge cni0"]}, needs="vlan") == WORSE
    assert _verdict({"outcome": REFUSED}, {"outcome": OK}, needs="vlan") == WORSE


@pytest.mark.skipif(not os.path.exists(_REFERENCE), reason="the reference plugins are not here")
def test_no_row_of_a_sample_is_worse() -> None:
    """Run every eleventh scenario and fault; `make parity` runs all."""
    command = [sys.executable, "-m", "tests.parity", "--part", "1/11", "--jobs", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
