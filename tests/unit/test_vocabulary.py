"""The same metavar stands for the same kind of value in every command's help."""

import re
from collections.abc import Iterator

import pytest

from tests.schemas import commands

VALUES = {
    "ADDRESS", "BACKEND", "BYTES", "CHECK", "CIDR", "COMMAND", "COUNT", "DURATION", "FILE", "FOLDER", "FROM", "LINK",
    "NAME",
    "NAMES",
    "NODE", "NUMBER", "PEER", "POD", "ROUTE", "RUN", "SECONDS", "SHELL", "TO", "VERB", "VERSION",
}  # fmt: skip
"""Every metavar in help."""
OF_OPTIONS = {"--subnet": "CIDR", "--network": "CIDR", "--name": "NAME", "--lab": "NAME", "--peer": "PEER"}
HOLDS_A_CIDR = ("CIDR", "PEER")


def values() -> Iterator[tuple[str, str, str, str]]:
    """Yield each visible option or argument that takes a value: command, name, metavar, help."""
    for words, command in commands().items():
        for parameter in command.params:
            shown = not getattr(parameter, "hidden", False) and not getattr(parameter, "is_flag", False)
            if shown and parameter.type.name != "choice":
                word = (parameter.metavar or "").strip("[]").removeprefix("-- ").removesuffix("...")
                yield words, parameter.opts[0], word, getattr(parameter, "help", None) or ""


@pytest.mark.parametrize(("command", "option", "word", "text"), list(values()))
def test_value_has_a_word_of_the_vocabulary(command: str, option: str, word: str, text: str) -> None:
    assert word in VALUES, f"{command} {option}: {word or 'no metavar'}"
    assert word == OF_OPTIONS.get(option, word), f"{command} {option}: {word}"
    takes_cidr = re.search(r"\bCIDR\b|\d/\d", text) is not None
    assert not takes_cidr or word in HOLDS_A_CIDR, f"{command} {option} takes a CIDR, and its metavar is {word}"
    assert text, f"{command} {option} has no help"


def test_every_word_of_the_vocabulary_is_in_use() -> None:
    assert {word for _, _, word, _ in values()} == VALUES


def test_network_and_name_are_distinguished_in_every_command() -> None:
    named = {(command, option) for command, option, _, _ in values()}
    assert {command for command, option in named if option == "--network"} == {"init-node", "bridge up"}
    assert {command.split()[0] for command, option in named if option == "--name"} == {"init-node", "ipam", "pod"}
    assert {command.split()[0] for command, option in named if option == "--lab"} == {"lab"}
