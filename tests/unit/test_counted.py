"""Counts agree with their nouns, and one function decides it."""

import re
from pathlib import Path

import pytest

from cnictl.core.counted import counted

_CODE = Path(__file__).parents[2] / "cnictl"
_DECIDES_ITSELF = re.compile(r"""(?<!exist)\{['"]e?s['"] if .* else ['"]{2}""")  # a verb is no plural


@pytest.mark.parametrize(
    ("count", "noun", "plural", "words"),
    [
        (0, "address", "", "0 addresses"),
        (1, "address", "", "1 address"),
        (2, "address", "", "2 addresses"),
        (1, "more line", "", "1 more line"),
        (12, "more line", "", "12 more lines"),
        (1, "kind of packets", "kinds of packets", "1 kind of packets"),
        (3, "kind of packets", "kinds of packets", "3 kinds of packets"),
    ],
)
def test_noun_agrees_with_its_number(count: int, noun: str, plural: str, words: str) -> None:
    assert counted(count, noun, plural) == words


def test_no_other_place_adds_the_ending_of_a_plural() -> None:
    places = [str(path) for path in _CODE.rglob("*.py") if _DECIDES_ITSELF.search(path.read_text(encoding="utf-8"))]
    assert not places
