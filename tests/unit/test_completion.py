"""Completion depends on the words before the cursor, knows every command, and prints no name that a shell would run."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from cnictl.cli import completion, completion_scripts, groups
from cnictl.cli.completion_words import CHOICES, COMMANDS, GROUPS
from cnictl.lab import plan, state
from cnictl.views import live_names
from tests.unit.test_vocabulary import VALUES

NO_NAMES = {"BYTES", "COUNT", "DURATION", "NUMBER", "SECONDS"}
"""Metavars for which nothing can be offered."""


def offered(*typed: str) -> list[str]:
    return [word for word, _ in completion.answer(["cnictl", *typed])[1]]


def test_every_command_that_help_lists_is_completed() -> None:
    assert COMMANDS.keys() == groups._COMMANDS.keys() - set(groups._HIDDEN)
    assert GROUPS == groups._GROUPS


def test_every_kind_of_value_has_completions_or_is_known_to_have_none() -> None:
    known = {*completion._LIVE, *completion._PATHS, *CHOICES}
    assert VALUES - known == NO_NAMES | {"SHELL"}
    places = {place for place in (*completion._LIVE, *completion._NEW, *CHOICES) if place not in VALUES}
    parameters = {
        f"{words} {name}"
        for words, (_, options, arguments) in COMMANDS.items()
        for name in (*(option[0][0] for option in options), *(word.removesuffix("...") for word in arguments))
    }
    assert places <= parameters


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (("pl",), ["plan", "plugin"]),
        (("ipam", "re"), ["release"]),
        (("--v",), ["--version"]),
        (("ipam", "list", "--na"), ["--name"]),
        (("nat", "enable", "--backend", ""), ["nft", "iptables"]),
        (("nat", "enable", "--backend=i"), ["--backend=iptables"]),
        (("status", "-o", "j"), ["json"]),
        (("status", "--output", "json", "--w"), ["--watch"]),
        (("doctor", "--only", "mtu-path", "--on"), ["--only"]),
        (("doctor", "--fix", "--fi"), []),
        (("undo", "--", "--d"), []),
        (("nothing", ""), []),
        (("ipam", "nothing", ""), []),
        (("lab", "exec", "node1", "--l"), []),
        (("lab", "exec", "--l"), ["--lab"]),
        (("init-node", "--subnet", ""), []),
        (("completion", "z"), ["zsh"]),
        (("pod", "l"), ["list"]),
        (("pod", "web", "--t"), ["--to"]),
        (("pod", "--t"), ["--to"]),
        (("pod", "show", "web", "--output", "w"), []),
        (("ping", "h"), ["host"]),
        (("ping", "-c", "3", "host", "ext"), ["external"]),
    ],
)
def test_completions_depend_on_the_words_before(typed: Sequence[str], words: list[str]) -> None:
    assert offered(*typed) == words


def test_files_are_left_to_the_shell() -> None:
    statuses = [completion.answer(["cnictl", *words.split(" ")])[0] for words in
                ("metrics --textfile ", "plugin list --lib-dir ", "lab exec node1 ls ", "pod ")]  # fmt: skip
    assert statuses == [completion.FILES, completion.FOLDERS, completion.FILES, completion.NO_FILES]


@pytest.mark.parametrize(
    ("taken_apart", "whole", "kept"),
    [
        (["cnictl", "pod", "fd00", "::", "5"], ["cnictl", "pod", "fd00::5"], 6),
        (["cnictl", "pod", "fd00", ":"], ["cnictl", "pod", "fd00:"], 5),
        (["cnictl", "doctor", "--only", "=", "rev"], ["cnictl", "doctor", "--only=rev"], 7),
        (["cnictl", "doctor", "--only", "=", "mtu-path", "--skip", ""], ["cnictl", "doctor", "--only=mtu-path",
                                                                     "--skip", ""], 0),
    ],
)  # fmt: skip
def test_words_that_bash_split_are_joined(taken_apart: list[str], whole: list[str], kept: int) -> None:
    assert completion._joined(taken_apart) == (whole, kept)


@pytest.mark.parametrize("name", ["$(reboot)", "`id`", "a b", "a'b", 'a"b', "a;b", "a\nb", "a\\b", "a|b", "~", "é"])
def test_name_with_shell_metacharacters_is_not_offered(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(completion._LIVE, "LINK", (lambda: iter([(name, ""), ("eth0", "a\x1b[2Jb")]),))
    assert completion.answer(["cnictl", "bridge", "up", "--bridge", ""])[1] == [("eth0", "")]


def test_unreadable_list_does_not_hide_another(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable() -> live_names.Names:
        raise PermissionError

    monkeypatch.setitem(completion._LIVE, "LINK", (unreadable, lambda: iter([("eth0", "")])))
    assert offered("bridge", "up", "--bridge", "") == ["eth0"]


def test_labs_and_their_machines_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "folder_path", lambda: tmp_path / "labs")
    assert offered("lab", "exec", "") == []
    machines = tuple((machine, os.getpid()) for machine in plan.machines(2))
    (tmp_path / "labs").mkdir()
    state.write(tmp_path / "labs" / "second.json", state.Running(os.getpid(), state.identity(os.getpid()), machines))
    assert offered("lab", "down", "--lab", "") == ["second"]
    assert offered("lab", "exec", "no") == ["node1", "node2"]


def test_completion_loads_neither_typer_nor_rich() -> None:
    program = (
        "import atexit, sys; atexit.register(lambda: print('\\nloaded', *sys.modules)); "
        "from cnictl.cli.entry import main; main()"
    )
    asked = {"_CNICTL_COMPLETE": "complete_bash", "COMP_WORDS": "cnictl\npod\n", "COMP_CWORD": "2"}
    for more, words in ((asked, ()), ({}, ("--version",))):
        done = subprocess.run([sys.executable, "-I", "-c", program, *words], env=os.environ | more, text=True,
                              capture_output=True, check=False)  # fmt: skip
        modules = set(done.stdout.partition("\nloaded")[2].split())
        assert "cnictl.cli.entry" in modules and done.stderr == ""
        assert not modules & {"typer", "click", "rich", "dataclasses", "json", "cnictl.cli.main"}


def test_wrapper_that_drops_the_variables_runs_no_command(tmp_path: Path) -> None:
    """sudo, for example, drops them: a script that passed the typed words as arguments would run the command."""
    (tmp_path / "cnictl").write_text(f"#!/bin/sh\necho $# > {tmp_path}/arguments\n")
    (tmp_path / "cnictl").chmod(0o755)
    typed = "COMP_WORDS=(cnictl reset-node --yes ''); COMP_CWORD=3; _cnictl cnictl"
    subprocess.run(["bash", "-c", f"{completion_scripts.BASH}\n{typed}"],
                   env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, check=True)  # fmt: skip
    assert (tmp_path / "arguments").read_text() == "0\n"
