"""The commands with their summaries, and the loader that imports a command's module when it is needed.

Listing commands and completing their names imports no command's module, so the summaries are here too.
"""

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    """A command whose module is imported when more than its name and summary is needed."""

    def __init__(
        self, name: str, place: str, summary: str, settings: Mapping[str, Any] | None = None, hidden: bool = False
    ) -> None:
        """`place` is the function as MODULE:NAME in `cnictl.cli`, `settings` is click's context settings.

        A hidden command is for programs: help does not list it.
        """
        super().__init__(name, short_help=summary, hidden=hidden)
        self.context_settings = dict(settings or {})
        self.place = place
        del self.callback, self.params, self.help

    def __getattr__(self, attribute: str) -> Any:
        """Import the function, and take the attributes from it that `__init__` left out."""
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


class _Postponing(MetaPathFinder):
    """Finds cnictl's modules, and has each executed only when something of it is used."""

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
    """Postpone the execution of cnictl's modules until something of them is used. The result executes the rest.

    Help and completion need a command's options, not what the command works with. A command that runs needs all of it
    at once: it may start threads or enter a namespace without cnictl's files.
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


def _group(name: str, summary: str, *commands: Command) -> TyperGroup:
    return TyperGroup(name=name, help=summary, short_help=summary, no_args_is_help=True, commands=list(commands))


class Commands(TyperGroup):
    """The program with all its commands."""

    def __init__(self, **settings: Any) -> None:
        """`settings` are typer's."""
        super().__init__(**settings | {"commands": _commands()})


def _commands() -> list[TyperCommand | TyperGroup]:
    return [
        Command(
            "init-node",
            "node:init_node",
            "Set this host up as a node: forwarding, bridge, masquerade, peer routes, plugin, and the CNI conf last.",
        ),
        Command(
            "apply",
            "node:apply",
            "Make this host match /etc/cnictl/node.toml: to repair drift, at boot, or after an edit of the file.",
        ),
        Command(
            "plan",
            "node:plan",
            "Show how this host differs from /etc/cnictl/node.toml: what `cnictl apply` would change, as a diff.",
        ),
        Command(
            "reset-node",
            "node:reset_node",
            "Remove everything that cnictl made on this host, and restore what it changed.",
        ),
        Command(
            "status",
            "status:status",
            "Show this node: bridge and pods, addresses, rules with their counters, peers, plugin, conf, and drift.",
        ),
        Command(
            "doctor",
            "doctor:doctor",
            "Find what keeps this node's pods from working: one line for each fault, with its fix.",
        ),
        Command(
            "test-connectivity",
            "connectivity:test_connectivity",
            "Ping from a pod everything that a pod should reach, and name the cause of each failure.",
        ),
        Command(
            "history",
            "history:history",
            "List the runs that changed this host, latest first, or show each change of one run with its manual "
            "command.",
        ),
        Command(
            "undo",
            "history:undo",
            "Undo a run: restore everything that it changed, node.toml included, and nothing else.",
        ),
        Command(
            "confirm",
            "confirm:confirm",
            "Keep the changes of the last run with --confirm-within. Without `confirm` they are undone when its "
            "time is up.",
        ),
        Command(
            "watch",
            "watch:watch",
            "Repair this node whenever something else changes it, until watch is stopped.",
        ),
        Command(
            "logs",
            "logs:logs",
            "Show the plugin's latest calls, oldest first: verb, pod, address, duration, and the error if a call "
            "failed.",
        ),
        Command(
            "metrics",
            "metrics:metrics",
            "Print this node's metrics in Prometheus' text format, or write them to a file in one step.",
        ),
        Command(
            "pod",
            "pod:pod",
            "Show everything about one attachment: lease, both ends of its veth pair, port, routes, "
            "counters, connections.",
        ),
        Command(
            "support-bundle",
            "support_bundle:support_bundle",
            "Write one tar.gz for those who help you: plan, doctor, rules, routes, links, leases, logs, versions.",
        ),
        Command(
            "cluster-probe",
            "cluster_probe:cluster_probe",
            "Internal: the host's side of `cnictl cluster test`, over stdin and stdout.",
            hidden=True,
        ),
        _group(
            "bridge",
            "The pods' bridge: bring it up, remove it, show it.",
            Command(
                "up",
                "bridge:up",
                "Make the bridge, give it the subnet's first address, and let the host forward its pods' packets.",
            ),
            Command(
                "down",
                "bridge:down",
                "Remove the bridge until the next `bridge up`, `apply` or pod; node.toml stays as it is.",
            ),
            Command(
                "show",
                "bridge:show",
                "Show the bridge, its addresses and ports, and, as root, the pod on each port.",
            ),
        ),
        _group(
            "nat",
            "Masquerade: what pods send outside leaves with the node's address.",
            Command(
                "enable",
                "nat:enable",
                "Masquerade what pods send outside the pod network. Between pods, the source stays the pod's own "
                "address.",
            ),
            Command(
                "disable",
                "nat:disable",
                "Remove the masquerade rules, and tell the plugin not to load them again. At a terminal it asks first.",
            ),
            Command(
                "show",
                "nat:show",
                "Show the masquerade rules that are loaded, with the packets and bytes that each has counted.",
            ),
        ),
        _group(
            "route",
            "Routes to the pods of other nodes.",
            Command("add-peer", "route:add_peer", "Route other nodes' pods through those nodes' addresses."),
            Command(
                "del-peer",
                "route:del_peer",
                "Drop other nodes: remove the routes to their pods, and nothing else. At a terminal it asks first.",
            ),
            Command(
                "list",
                "route:list_peers",
                "List the peers and the state of the route to each.",
            ),
        ),
        _group(
            "node",
            "The cluster's nodes as this one knows them.",
            Command(
                "list",
                "nodes:list_nodes",
                "List the nodes that this node's source of peers knows: for each its state, and whether it answers.",
            ),
        ),
        _group(
            "ipam",
            "Pod addresses: who holds them, which are stale, and how to free them.",
            Command(
                "list",
                "ipam:list_leases",
                "List the addresses of a network that are held: container, interface, pod, age and state.",
            ),
            Command(
                "show",
                "ipam:show",
                "Show everything about one lease: its record, its host veth and bridge, its network namespace.",
            ),
            Command(
                "release",
                "ipam:release",
                "Release one address, or all addresses of a pod: its veth, leases and record go together.",
            ),
            Command("gc", "ipam:gc", "Free every address that is provably stale, and say what was left and why."),
            Command(
                "check",
                "ipam_check:check",
                "Check every leased address: live, stale boot, namespace gone, torn, seen twice. Find those held "
                "without a lease.",
            ),
        ),
        _group(
            "plugin",
            "The CNI plugin: install it for the runtimes, switch and list its versions.",
            Command("install", "plugin:install", "Install this cnictl's plugin and let the runtimes start it."),
            Command("use", "plugin:use", "Let the runtimes start another version that is already installed."),
            Command("uninstall", "plugin:uninstall", "Delete one version that is not in use, or the whole plugin."),
            Command(
                "list",
                "plugin:list_versions",
                "Show the installed versions, their interpreters, which one is in use, and whether it is sound.",
            ),
        ),
        _group(
            "kubernetes",
            "Learn peers from a Kubernetes cluster: the rights that this needs, and the nodes' credential.",
            Command(
                "rbac",
                "kubernetes:rbac",
                "Print the ServiceAccount, the roles and the token Secret for `kubectl apply`.",
            ),
            Command(
                "kubeconfig",
                "kubernetes:kubeconfig",
                "Write the nodes' credential, which holds the token of the ServiceAccount that `rbac` prints.",
            ),
        ),
        _group(
            "cluster",
            "Manage all nodes of a cluster file over ssh: status, test, plan, apply, remove.",
            Command(
                "status",
                "cluster:status",
                "Show every host of the cluster file on one screen, and what is wrong between them.",
            ),
            Command(
                "test",
                "cluster_test:test",
                "Ping between probe pods on all hosts, and name the cause of each failure and its host.",
            ),
            Command(
                "plan",
                "cluster:plan",
                "Show what `cnictl cluster apply` would change on each host. Nothing is changed.",
            ),
            Command(
                "apply",
                "cluster:apply",
                "Make all hosts match the cluster file.",
            ),
            Command(
                "remove",
                "cluster:remove",
                "Remove a node: reset its host, and delete its line and the routes to it.",
            ),
        ),
        _group(
            "lab",
            "A cluster on one machine: its nodes are namespaces, and the host stays as it is. Needs no root.",
            Command(
                "up",
                "lab:up",
                "Bring up a lab: nodes on one link, and a host outside. Each has its own network, firewall and root "
                "folder.",
            ),
            Command(
                "down",
                "lab:down",
                "End a lab and everything that runs in it. At a terminal it asks first. A lab that is not up is no "
                "error.",
            ),
            Command(
                "status", "lab:status", "Show a lab's machines and their addresses; exit status 1 if it is not up."
            ),
            Command(
                "exec",
                "lab:execute",
                "Run a command on a node of a lab, as root there. The exit status is the command's.",
                {"ignore_unknown_options": True, "allow_interspersed_args": False},
            ),
            Command(
                "demo",
                "lab_demo:demo",
                "Play the walk-through on two nodes of a lab of its own, or build a cluster there from one file.",
            ),
        ),
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
