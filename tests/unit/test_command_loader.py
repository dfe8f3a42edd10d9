"""The command loader imports only what a command needs, and its summaries match the commands' own."""

import subprocess
import sys

import pytest

from tests.schemas import commands


@pytest.mark.parametrize("words", commands())
def test_summary_in_the_list_is_the_first_paragraph_of_the_commands_help(words: str) -> None:
    command = commands()[words]
    paragraph = " ".join((command.help or "").partition("\n\n")[0].split())
    assert command.short_help == paragraph


def loaded(*words: str, postponed: bool = False) -> set[str]:
    """Return the modules that the program has executed when it ends, or those that it has postponed."""
    program = (
        "import atexit, sys; kind = lambda name: object.__getattribute__(sys.modules[name], '__class__').__name__; "
        "wanted = lambda: [name for name in sys.modules if (kind(name) == '_LazyModule') == POSTPONED]; "
        "atexit.register(lambda: print('\\nloaded', *wanted())); sys.argv[0] = 'cnictl'; "
        "from cnictl.cli.main import main; main()"
    ).replace("POSTPONED", str(postponed))
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    return set(done.stdout.rpartition("\nloaded")[2].split())


COMMAND_MODULES = {f"cnictl.cli.{command.place.partition(':')[0]}" for command in commands().values()}


@pytest.mark.parametrize("words", [("--help",), ("bridge", "--help"), ("brid",)])
def test_list_of_commands_imports_no_command(words: tuple[str, ...]) -> None:
    modules = loaded(*words)
    assert "cnictl.cli.groups" in modules
    assert not modules & COMMAND_MODULES
    assert not modules & {"cnictl.node", "rich"}


def test_command_imports_no_other_commands_module() -> None:
    assert loaded("ipam", "list", "--help") & COMMAND_MODULES == {"cnictl.cli.ipam"}


@pytest.mark.parametrize("words", ["ipam list", "ipam list --help", "init-node --help", "route add-peer --help"])
def test_frequent_commands_load_no_slow_library(words: str) -> None:
    modules = loaded(*words.split())
    assert "cnictl.cli.main" in modules
    assert not modules & {"pyroute2", "netaddr", "rich"}


@pytest.mark.parametrize(
    "words",
    [
        "init-node",
        "apply",
        "bridge up",
        "nat enable",
        "route add-peer",
        "ipam list",
        "ipam release",
        "status",
        "doctor",
        "history",
        "undo",
        "confirm",
        "metrics",
        "pod",
        "watch",
        "plugin use",
        "cluster status",
        "cluster test",
    ],
)
def test_help_executes_no_module_of_the_commands_work(words: str) -> None:
    modules = loaded(*words.split(), "--help")
    assert "cnictl.cli.groups" in modules
    lower_packages = tuple(
        f"cnictl.{package}." for package in ("node", "probe", "views", "doctor", "lab", "watch", "cluster")
    )
    packages = {
        "cnictl.cluster.hosts",  # for the shortest time of --confirm-within
        "cnictl.node.addresses",
        "cnictl.node.host",
        "cnictl.node.plugin",
        "cnictl.node.resources",
        "cnictl.node.runs",
        "cnictl.node.reach",
        "cnictl.node.spec",
        "cnictl.node.state",
    }
    assert {name for name in modules if name.startswith(lower_packages)} <= packages
    assert "tomlkit" not in modules


def test_running_command_executes_its_modules() -> None:
    assert loaded("route", "list", "--help", postponed=True)
    assert not loaded("route", "add-peer", "10.244.1.0/24", postponed=True)
