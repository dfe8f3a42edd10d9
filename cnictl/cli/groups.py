"""Define the commands, and import a command's module only when it is needed."""

import importlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from cnictl.cli import help_text, mistyped
from cnictl.core.errors import UsageProblem


class Command(TyperCommand):
    """A command whose module is imported when more than its name and summary is needed."""

    def __init__(self, words: str) -> None:
        """`words` are the command's words, a key of `_COMMANDS`."""
        self.place = _COMMANDS[words]
        super().__init__(words.rpartition(" ")[2], hidden=words in _HIDDEN)
        self.context_settings = dict(_SETTINGS.get(words, {}))
        del self.callback, self.params, self.help, self.short_help

    def __getattr__(self, attribute: str) -> Any:
        """Import the function, and take the attributes from it that `__init__` left out."""
        if attribute == "short_help":
            self.short_help = _summary(self.place)
            return self.short_help
        if attribute not in ("callback", "params", "help"):
            raise AttributeError(attribute)
        single = typer.Typer(add_completion=False)
        with _postponed() as execute:
            single.command(self.name)(_function(self.place))
            loaded = typer.main.get_command(single)

        def callback(**values: Any) -> Any:
            execute()
            return loaded.callback(**values) if loaded.callback is not None else None

        self.callback, self.params, self.help = callback, loaded.params, loaded.help
        return vars(self)[attribute]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words after the command (typer)."""
        with _in_context(ctx):
            return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help (typer)."""
        formatter.write(help_text.text(self, ctx))


class Group(TyperGroup):
    """A group of commands, one of which may be the default."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the default command if none was given, and return the remaining words (typer)."""
        default = DEFAULTS.get(self.name or "")
        if default and args and args[0] not in (*self.commands, "--help", "-h") and not mistyped.is_usual(args[0]):
            args = [default, *args]
        with _in_context(ctx):
            return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help (typer)."""
        formatter.write(help_text.text(self, ctx))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the arguments name (typer). Raises UsageProblem, with the command that was meant."""
        if not ctx.resilient_parsing and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            path = str(ctx.command_path)
            near = mistyped.command(args, path.partition(" ")[2], [*_COMMANDS.keys() - _HIDDEN])
            # `probing` recognizes other versions of cnictl by the first three words
            message = f"No such command {args[0]!r} (see: {path} --help)"
            raise UsageProblem(message, f"did you mean {path.partition(' ')[0]} {near}?" if near else "")
        return super().resolve_command(ctx, args)


@contextmanager
def _in_context(context: Any) -> Iterator[None]:
    """Give a usage error the context of its command: typer's parser omits it for an option without its argument."""
    try:
        yield
    except Exception as error:
        if getattr(error, "ctx", context) is None:
            error.ctx = context  # type: ignore[attr-defined]
        raise


class _Postponing:
    """Finds cnictl's modules, and postpones the execution of each until it is used.

    It does not inherit from `importlib.abc.MetaPathFinder`: importing that takes a tenth of a short command's time.
    """

    def __init__(self) -> None:
        self.postponed: list[str] = []

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the module's specification (importlib.abc)."""
        spec = PathFinder.find_spec(name, path, target) if name.startswith("cnictl.") else None
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
            self.postponed.append(name)
        return spec


@contextmanager
def _postponed() -> Iterator[Callable[[], None]]:
    """Postpone the execution of cnictl's modules until they are used. The yielded function executes the rest.

    Help and completion need a command's options, not what the command works with. A command that runs needs all of it
    immediately: it may start threads or enter a namespace without cnictl's files.
    """
    finder = _Postponing()

    def execute() -> None:
        for name in finder.postponed:
            _ = sys.modules[name].__doc__

    sys.meta_path.insert(0, finder)
    try:
        yield execute
    finally:
        sys.meta_path.remove(finder)


def _function(place: str) -> Callable[..., None]:
    module, _, name = place.partition(":")
    function: Callable[..., None] = getattr(importlib.import_module(f"cnictl.cli.{module}"), name)
    return function


def _summary(place: str) -> str:
    """Return the first paragraph of a function's docstring, read from the source: importing all takes 0.3 seconds."""
    module, _, name = place.partition(":")
    source = Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
    match = re.search(rf'^def {name}\(.*?"""(.*?)(?:\n\n|""")', source, re.DOTALL | re.MULTILINE)
    assert match is not None
    return " ".join(match[1].split())


_COMMANDS = {
    "init-node": "node:init_node",
    "apply": "node:apply",
    "plan": "node:plan",
    "reset-node": "node:reset_node",
    "status": "status:status",
    "doctor": "doctor:doctor",
    "test-connectivity": "connectivity:test_connectivity",
    "ping": "ping:ping",
    "history": "history:history",
    "undo": "history:undo",
    "confirm": "confirm:confirm",
    "watch": "watch:watch",
    "logs": "logs:logs",
    "metrics": "metrics:metrics",
    "support-bundle": "support_bundle:support_bundle",
    "version": "version:version",
    "completion": "completion_command:completion",
    "cluster-probe": "cluster_probe:cluster_probe",
    "bridge up": "bridge:up",
    "bridge down": "bridge:down",
    "bridge show": "bridge:show",
    "nat enable": "nat:enable",
    "nat disable": "nat:disable",
    "nat show": "nat:show",
    "route add-peer": "route:add_peer",
    "route del-peer": "route:del_peer",
    "route list": "route:list_peers",
    "node list": "nodes:list_nodes",
    "pod list": "pod:list_pods",
    "pod show": "pod:show",
    "ipam list": "ipam:list_leases",
    "ipam show": "ipam:show",
    "ipam release": "ipam:release",
    "ipam gc": "ipam:gc",
    "ipam check": "ipam_check:check",
    "plugin install": "plugin:install",
    "plugin use": "plugin:use",
    "plugin uninstall": "plugin:uninstall",
    "plugin list": "plugin:list_versions",
    "kubernetes rbac": "kubernetes:rbac",
    "kubernetes kubeconfig": "kubernetes:kubeconfig",
    "cluster status": "cluster:status",
    "cluster test": "cluster_test:test",
    "cluster plan": "cluster:plan",
    "cluster apply": "cluster:apply",
    "cluster remove": "cluster:remove",
    "cluster install": "cluster_install:install",
    "cluster upgrade": "cluster_install:upgrade",
    "lab up": "lab:up",
    "lab down": "lab:down",
    "lab status": "lab:status",
    "lab exec": "lab:execute",
    "lab pod": "lab:pod",
    "lab demo": "lab_demo:demo",
}
"""Where each command's function is: MODULE:NAME in `cnictl.cli`."""
_GROUPS = {
    "bridge": "The pods' bridge: bring it up, remove it, show it.",
    "nat": "Masquerade: packets that leave the pod network get the node's address.",
    "route": "Routes to the pods of other nodes.",
    "node": "The cluster's nodes as this one knows them.",
    "pod": "This node's pods: list them, and show one from both ends.",
    "ipam": "Pod addresses: who holds them, which are stale, and how to free them.",
    "plugin": "The CNI plugin: install it for the runtimes, switch and list its versions.",
    "kubernetes": "Learn peers from a Kubernetes cluster: the rights that this needs, and the nodes' credential.",
    "cluster": "Manage all nodes of a cluster file over ssh: status, test, plan, apply, remove, install, upgrade.",
    "lab": "A cluster on one machine: its nodes are namespaces, and the host stays as it is. Needs no root.",
}
"""The groups of commands, with the first line of their help."""
DEFAULTS = {"pod": "show"}
"""The command of a group that runs if the words after the group's name begin with no command: `pod web`."""
_SETTINGS = {"lab exec": {"ignore_unknown_options": True, "allow_interspersed_args": False}}
"""click's context settings of the commands that have any."""
_HIDDEN = ("cluster-probe",)
"""Commands for programs, which help does not list."""


class Commands(Group):
    """The program with all its commands."""

    def __init__(self, **settings: Any) -> None:
        """`settings` are typer's."""
        super().__init__(**settings | {"commands": _commands()})


def _commands() -> list[TyperCommand | TyperGroup]:
    single: list[TyperCommand | TyperGroup] = [Command(words) for words in _COMMANDS if " " not in words]
    return single + [
        Group(
            name=name,
            help=summary,
            short_help=summary,
            no_args_is_help=True,
            commands=[Command(words) for words in _COMMANDS if words.startswith(f"{name} ")],
        )
        for name, summary in _GROUPS.items()
    ]


def load_all() -> None:
    """Import every command's module, to check that each can be imported or to save time later."""
    for command in _commands():
        for each in command.commands.values() if isinstance(command, TyperGroup) else [command]:
            assert isinstance(each, Command)
            _function(each.place)


def terminal() -> Any:
    """Return `cnictl.cli.terminal`, which draws with rich.

    Importing rich takes as long as a short command, and output to a pipe does not need it.
    """
    return importlib.import_module("cnictl.cli.terminal")
