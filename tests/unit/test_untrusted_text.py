"""Untrusted names and words are shown on one line, shortened, without characters that control a terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnictl.core.untrusted_text import LONGEST_NAME, line, word


@given(st.text(), st.integers(2, 300))
def test_any_text_becomes_printable_and_bounded(text: str, longest: int) -> None:
    for shown in (line(text, longest), word(text, longest)):
        assert shown.isprintable() and len(shown) <= longest
        shown.encode()
    assert " " not in word(text, longest)


@given(st.text(st.characters(categories=["L", "N", "P"]), max_size=200))
def test_plain_name_stays_as_it_is(text: str) -> None:
    assert line(text) == word(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\nb\r", "a\\nb\\r"),
        ("a\u202eb", "a\\u202eb"),
        ("a\udc80b", "a\\udc80b"),
        ("x" * 300, "x" * (LONGEST_NAME - 1) + "…"),
    ],
)
def test_escapes(text: str, shown: str) -> None:
    assert word(text) == shown


def test_blanks_are_escaped_only_in_a_word() -> None:
    assert (line("a b"), word("a b")) == ("a b", "a\\x20b")
