"""Help is wrapped once and shows its examples unchanged; the hint for a mistyped word is the most similar one."""

import os
import re
import subprocess
import sys

import pytest
import typer

from cnictl.cli import help_text
from tests.schemas import commands

PROGRAM = (sys.executable, "-I", "-c", "import sys; sys.argv[0] = 'cnictl'; from cnictl.cli.entry import main; main()")
NARROW, WIDE = 60, 100


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"COLUMNS": "80"}
    return subprocess.run([*PROGRAM, *words], capture_output=True, text=True, check=False, env=environment)


def rendered(words: str, width: int, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    command = commands()[words]
    context = typer.Context(command, info_name=f"cnictl {words}")
    return help_text.text(command, context)


@pytest.mark.parametrize("words", commands())
@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_text_is_wrapped_once(words: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is too long, and none is so short that the next word would fit."""
    text = rendered(words, width, monkeypatch)
    prose, _, _ = text.partition("\n\nOptions:")
    for paragraph in prose.partition("\n\nExamples:")[0].split("\n\n"):
        lines = paragraph.split("\n")
        for line, following in zip(lines, [*lines[1:], ""], strict=True):
            assert len(line) <= width or " " not in line.strip()
            assert not following or len(line) + 1 + len(following.split()[0]) > width


@pytest.mark.parametrize("words", commands())
def test_examples_are_unchanged_under_a_heading(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, source = rendered(words, NARROW, monkeypatch), commands()[words].help or ""
    assert "{" not in text.partition("\n")[0]
    assert text.count("Examples:\n") == source.count("\b\n")
    assert "\b" not in text
    for example in re.findall(r"\x08\n((?:.+\n?)+)", source):
        for line in example.splitlines():
            assert line.strip() in text


def test_every_option_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    text = rendered("nat enable", WIDE, monkeypatch)
    options = [line.split()[0].rstrip(",") for line in text.partition("Options:\n")[2].splitlines() if line[2] == "-"]
    assert options == ["--backend", "--dry-run", "--exit-code", "--no-wait", "--confirm-within", "-o", "--help"]


@pytest.mark.parametrize("words", commands())
def test_range_is_in_words(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not re.search(r"x>=|<=x", rendered(words, WIDE, monkeypatch))


def test_value_out_of_range_is_refused_in_the_words_of_the_help() -> None:
    assert "17 is not in the range 1 to 16." in run("lab", "up", "--nodes", "17").stderr
    assert "-1 is not in the range at least 0." in run("logs", "-n", "-1").stderr


def test_program_and_group_without_arguments_show_their_commands() -> None:
    for words, command in (((), "init-node"), (("ipam",), "release")):
        done = run(*words)
        assert (done.returncode, done.stderr) == (2, "")
        assert f"\n  {command} " in done.stdout
        assert done.stdout == run(*words, "--help").stdout


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("ipam lst", "ipam list"),
        ("statsu", "status"),
        ("brige", "bridge"),
        ("gc", "ipam gc"),
        ("add-peer 10.244.1.0/24=10.0.0.2", "route add-peer"),
        ("route add 10.244.1.0/24=10.0.0.2", "route add-peer"),
        ("route rm 10.244.1.0/24", "route del-peer"),
        ("nat off", "nat disable"),
        ("lab ls", "lab status"),
        ("pod ls", "pod list"),
        ("help", "--help"),
        ("help ping", "ping --help"),
        ("help route add-peer 10.244.1.0/24", "route add-peer --help"),
        ("ipam help gc", "ipam gc --help"),
        ("get pods", "pod list"),
        ("list leases", "ipam list"),
        ("init", "init-node"),
    ],
)
def test_hint_for_a_mistyped_command_is_the_similar_one(typed: str, meant: str) -> None:
    done = run(*typed.split())
    assert done.returncode == 2
    assert done.stderr.startswith("cnictl: No such command ")
    assert done.stderr.endswith(f"  hint: did you mean cnictl {meant}?\n")
    assert run(*meant.split(), "--help").returncode == 0


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("ipam list --nam x", "--name"),
        ("doctor --dry", "--dry-run"),
        ("apply --confirm 60", "--confirm-within"),
        ("nat enable --no-wiat", "--no-wait"),
        ("--verson", "--version"),
        ("ipam --hlp", "--help"),
    ],
)
def test_hint_for_a_mistyped_option_is_the_similar_one(typed: str, meant: str) -> None:
    done = run(*typed.split())
    assert done.returncode == 2
    assert done.stderr.startswith("cnictl: No such option: --")
    assert done.stderr.endswith(f"  hint: did you mean {meant}?\n")


def test_word_of_another_program_is_no_pods_name() -> None:
    """`pod add` would show the help of `pod show`, whose POD any word can be."""
    done = run("pod", "add", "--help")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("cnictl: No such command 'add' (see: cnictl pod --help)")


@pytest.mark.parametrize("typed", ["frobnicate", "ipam frobnicate", "ipam list --frobnicate"])
def test_word_unlike_any_other_has_no_hint(typed: str) -> None:
    done = run(*typed.split())
    assert (done.returncode, done.stdout, "hint" in done.stderr) == (2, "", False)


def test_headings_are_bold_only_at_a_terminal_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1mOptions:\x1b[0m" in rendered("status", WIDE, monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in rendered("status", WIDE, monkeypatch)
