"""Which function serves which command, and the loader that imports its module when the command is asked for.

The list of commands, and completion of their names, import none of these modules: the summaries stand here.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    """A command whose module is imported once more is asked of it than its name and its summary."""

    def __init__(self, name: str, place: str, summary: str, settings: Mapping[str, Any] | None = None) -> None:
        """`place` is the function as MODULE:NAME in `cnictl.cli`, `settings` is click's context settings."""
        super().__init__(name, short_help=summary)
        self.context_settings = dict(settings or {})
        self.place = place
        del self.callback, self.params, self.help

    def __getattr__(self, attribute: str) -> Any:
        """Import the function, and take from it what `__init__` left out."""
        if attribute not in ("callback", "params", "help"):
            raise AttributeError(attribute)
        single = typer.Typer(add_completion=False)
        single.command(self.name)(_function(self.place))
        loaded = typer.main.get_command(single)
        self.callback, self.params, self.help = loaded.callback, loaded.params, loaded.help
        return vars(self)[attribute]


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
            "Make this host as /etc/cnictl/node.toml says: what the boot unit runs, and what repairs drift.",
        ),
        Command(
            "plan",
            "node:plan",
            "Show what `cnictl apply` would change: this host against /etc/cnictl/node.toml, as a diff, with "
            "the commands.",
        ),
        Command(
            "reset-node",
            "node:reset_node",
            "Remove all that cnictl made on this host, and only that; put back what it changed.",
        ),
        Command(
            "status",
            "status:status",
            "Show this node: bridge and pods, addresses, rules with what they counted, peers, plugin, conf, "
            "and its drift.",
        ),
        Command(
            "doctor",
            "doctor:doctor",
            "Find what keeps this node's pods from working, each fault in one line with its fix.",
        ),
        Command(
            "test-connectivity",
            "connectivity:test_connectivity",
            "Ping from a pod to all that a pod should reach, and name the cause of each failure.",
        ),
        Command(
            "history",
            "history:history",
            "List the runs that changed this host, latest first; of one run, show each change and its manual command.",
        ),
        Command(
            "undo",
            "history:undo",
            "Take a run back: everything it changed returns to what it was before, node.toml too, and "
            "nothing else does.",
        ),
        Command(
            "confirm",
            "confirm:confirm",
            "Keep what the last run with --confirm-within made. Without this, it is undone by itself when "
            "its time is up.",
        ),
        Command(
            "watch",
            "watch:watch",
            "Put back what something else takes from this node, as the kernel tells of it; runs until it is ended.",
        ),
        Command(
            "logs",
            "logs:logs",
            "Show the plugin's latest calls, oldest first: verb, pod, address, duration, and the error of "
            "one that failed.",
        ),
        Command(
            "metrics",
            "metrics:metrics",
            "Print this node's metrics in Prometheus' text format, or write them to a file in one go.",
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
            "Write one tar.gz with what somebody who helps needs: plan, doctor, rules, routes, links, "
            "leases, logs, versions.",
        ),
        _group(
            "bridge",
            "The pods' bridge: bring it up, take it down, look at it.",
            Command(
                "up",
                "bridge:up",
                "Make the bridge, give it the subnet's first address, let the host forward its pods' packets.",
            ),
            Command(
                "down",
                "bridge:down",
                "Take the bridge away until the next `bridge up`, `apply` or pod; what the node should be stays "
                "as it is.",
            ),
            Command(
                "show",
                "bridge:show",
                "Show the bridge, its address and its ports, with the pod behind each (as root).",
            ),
        ),
        _group(
            "nat",
            "Masquerade: what pods send outside leaves with the node's address.",
            Command(
                "enable",
                "nat:enable",
                "Masquerade what pods send outside the pod network; between pods of all nodes the source stays "
                "the pod's own.",
            ),
            Command(
                "disable",
                "nat:disable",
                "Take the masquerade rules away, and tell the plugin not to bring them back. At a terminal it "
                "asks first.",
            ),
            Command(
                "show",
                "nat:show",
                "Show the masquerade rules that are loaded, what each is for and what it counted.",
            ),
        ),
        _group(
            "route",
            "Routes to the pods of other nodes.",
            Command("add-peer", "route:add_peer", "Route another node's pods through that node's address."),
            Command(
                "del-peer",
                "route:del_peer",
                "Drop another node: its route goes, and nothing else. At a terminal it asks first.",
            ),
            Command(
                "list",
                "route:list_peers",
                "List the peers and the state of the route to each.",
            ),
        ),
        _group(
            "ipam",
            "Pod addresses: who holds them, which are stale, and freeing them.",
            Command(
                "list",
                "ipam:list_leases",
                "List every address of a network that is held: container, interface, pod, age and state.",
            ),
            Command(
                "show",
                "ipam:show",
                "Show everything about one lease: its record, its host veth and bridge, its network namespace.",
            ),
            Command(
                "release",
                "ipam:release",
                "Release one address, or all that a container holds: veth, leases and record go together.",
            ),
            Command("gc", "ipam:gc", "Free every address that is provably stale, and say what was left and why."),
            Command(
                "check",
                "ipam_check:check",
                "Sort every address that is held: live, stale boot, namespace gone, torn, held without a lease, "
                "seen twice.",
            ),
        ),
        _group(
            "plugin",
            "Install the CNI plugin for the runtimes, switch versions, list them.",
            Command("install", "plugin:install", "Install this cnictl's plugin and let the runtimes start it."),
            Command("use", "plugin:use", "Let the runtimes start another version that is already installed."),
            Command(
                "uninstall", "plugin:uninstall", "Delete one version that is not in use, or the plugin as a whole."
            ),
            Command(
                "list",
                "plugin:list_versions",
                "Show the installed versions, which one runs, with which interpreter, and whether all of it is sound.",
            ),
        ),
        _group(
            "cluster",
            "All nodes of one cluster file at once, over ssh: look at them, change them.",
            Command(
                "status",
                "cluster:status",
                "Show every host of the cluster file on one screen, and what is wrong between them.",
            ),
            Command(
                "plan",
                "cluster:plan",
                "Show what `cnictl cluster apply` would change on each host. Nothing is changed.",
            ),
            Command(
                "apply",
                "cluster:apply",
                "Make all hosts as the cluster file says: new nodes are set up, and every other one learns of them.",
            ),
            Command(
                "remove",
                "cluster:remove",
                "Take a node out of the cluster: its line goes, its routes go everywhere, and the host itself is "
                "reset.",
            ),
        ),
        _group(
            "lab",
            "A cluster on one machine: nodes as namespaces, with or without root, nothing of the host touched.",
            Command(
                "up",
                "lab:up",
                "Bring up a lab: nodes on one link, each with a network, a firewall and a root of its own, and a "
                "host outside.",
            ),
            Command(
                "down",
                "lab:down",
                "End a lab and everything in it; without one, nothing is to be done. At a terminal it asks first.",
            ),
            Command(
                "status", "lab:status", "Show a lab's machines and their addresses; exit status 1 if it is not up."
            ),
            Command(
                "exec",
                "lab:execute",
                "Run a command on a node of a lab, as its root; the exit status is the command's.",
                {"ignore_unknown_options": True, "allow_interspersed_args": False},
            ),
            Command(
                "demo",
                "lab_demo:demo",
                "Play the walk-through's story on two nodes of a lab of its own, in less than 20 seconds.",
            ),
        ),
    ]


def load_all() -> None:
    """Import every command's module, to prove that each can be imported or to be quick later."""
    for command in _commands():
        for each in command.commands.values() if isinstance(command, TyperGroup) else [command]:
            assert isinstance(each, Command)
            _function(each.place)


def terminal() -> Any:
    """Return `cnictl.cli.terminal`, which draws with rich.

    Loading rich takes as long as a short command, and a pipe needs none of it.
    """
    return importlib.import_module("cnictl.cli.terminal")
