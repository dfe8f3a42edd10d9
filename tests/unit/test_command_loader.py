"""The loader of commands: what is imported for what is typed, and that its summaries are the commands' own."""

import os
import subprocess
import sys

import pytest

from tests.schemas import commands


@pytest.mark.parametrize("words", commands())
def test_summary_in_the_list_is_the_first_paragraph_of_the_commands_help(words: str) -> None:
    command = commands()[words]
    paragraph = " ".join((command.help or "").partition("\n\n")[0].split())
    assert command.short_help == paragraph


def loaded(*words: str, completing: str = "") -> set[str]:
    """Modules that the program has imported once it has done this."""
    program = (
        "import atexit, sys; atexit.register(lambda: print('\\nloaded', *sys.modules)); sys.argv[0] = 'cnictl'; "
        "from cnictl.cli.main import main; main()"
    )
    completion = {
        "_CNICTL_COMPLETE": "complete_bash",
        "COMP_WORDS": completing,
        "COMP_CWORD": str(len(completing.split(" ")) - 1),
    }
    environment = os.environ | (completion if completing else {})
    done = subprocess.run(
        [sys.executable, "-c", program, *words], env=environment, capture_output=True, text=True, check=False
    )
    return set(done.stdout.rpartition("loaded ")[2].split())


COMMAND_MODULES = {f"cnictl.cli.{command.place.partition(':')[0]}" for command in commands().values()}


@pytest.mark.parametrize(
    ("words", "completing"),
    [
        (("--help",), ""),
        (("bridge", "--help"), ""),
        ((), "cnictl in"),
        ((), "cnictl bridge u"),
    ],
)
def test_list_and_completion_of_names_import_no_command(words: tuple[str, ...], completing: str) -> None:
    modules = loaded(*words, completing=completing)
    assert "cnictl.cli.groups" in modules
    assert not modules & COMMAND_MODULES
    assert "cnictl.node" not in modules


def test_command_imports_no_other_commands_module() -> None:
    assert loaded("ipam", "list", "--help") & COMMAND_MODULES == {"cnictl.cli.ipam"}


@pytest.mark.parametrize(
    ("words", "completing"),
    [
        (("ipam", "list"), ""),
        (("ipam", "list", "--help"), ""),
        ((), "cnictl ipam list --"),
        ((), "cnictl init-node --"),
        ((), "cnictl route add-peer --"),
    ],
)
def test_what_is_typed_often_loads_no_pyroute2(words: tuple[str, ...], completing: str) -> None:
    modules = loaded(*words, completing=completing)
    assert "cnictl.cli.main" in modules
    assert "pyroute2" not in modules
