"""`cnictl plugin`: install the CNI executable that runtimes start, and switch its versions."""

from __future__ import annotations  # a type would execute the module that the loader postpones

import os
from typing import Annotated

import typer

from cnictl.cli import asking, script
from cnictl.cli.asking import YesOption
from cnictl.cli.options import NoWaitOption
from cnictl.cli.output import (
    Format,
    ListOption,
    OutputOption,
    print_items,
    print_json,
    print_list,
    print_table,
    say,
    write,
)
from cnictl.core.errors import Problem
from cnictl.node import command_line
from cnictl.node.plugin import versions
from cnictl.node.resources import plugin as plugin_resource
from cnictl.node.runs import engine

LibDir = Annotated[
    str,
    typer.Option(
        "--lib-dir", metavar="FOLDER", help="The versions' folder. Default: the one in use, else /usr/local/lib/cnictl."
    ),
]
BinDir = Annotated[
    list[str],
    typer.Option(
        "--bin-dir", metavar="FOLDER", help="A runtime's plugin folder. Repeatable. Default: the runtimes' own."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Change nothing: show the changes and the manual commands.")]


def install(
    lib_dir: LibDir = "",
    bin_dir: BinDir = [],  # noqa: B006 - typer reads it and makes its own
    no_pin: Annotated[bool, typer.Option("--no-pin", help="Don't write the version into node.toml.")] = False,
    dry_run: DryRun = False,
    no_wait: NoWaitOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Install this cnictl's plugin and let the runtimes start it.

    The plugin's code is copied to LIB-DIR/VERSION, so pods still start after cnictl's own environment is removed. The
    copy must make, check and remove an attachment in a scratch namespace before a small launcher goes into each
    runtime's plugin folder. The previous version stays: `cnictl plugin use` goes back to it. On a node, node.toml then
    names the version, and `apply`, `watch` and `doctor` keep it in use.

    \b
    cnictl plugin install
    cnictl plugin install --bin-dir /opt/cni/bin --lib-dir /opt/cnictl --dry-run
    """
    _require_root("install", dry_run)
    plugin = plugin_resource.Plugin(None, _absolute(lib_dir), _all_absolute(bin_dir))
    _show(versions.install_own(plugin, dry_run, engine.Options(no_wait=no_wait).patience, not no_pin), output)


def use(
    version: Annotated[
        str, typer.Argument(metavar="VERSION", help="A version that `cnictl plugin list` shows, such as 0.1.0.")
    ],
    lib_dir: LibDir = "",
    bin_dir: BinDir = [],  # noqa: B006
    dry_run: DryRun = False,
    no_wait: NoWaitOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Let the runtimes start another version that is already installed.

    The version is tested in a scratch namespace first. The switch waits until no call of the plugin is running. On a
    node, node.toml then names the version: `apply`, `watch` and `doctor` keep it in use, and `undo` goes back.

    \b
    cnictl plugin use 0.1.0
    """
    _require_root("use", dry_run)
    plugin = plugin_resource.Plugin(None, _absolute(lib_dir), _all_absolute(bin_dir))
    _show(versions.switch(plugin, version, dry_run, engine.Options(no_wait=no_wait).patience), output)


def uninstall(
    version: Annotated[
        str, typer.Argument(metavar="[VERSION]", help="The version to delete. Default: the whole plugin.")
    ] = "",
    lib_dir: LibDir = "",
    bin_dir: BinDir = [],  # noqa: B006
    force: Annotated[bool, typer.Option("--force", help="Delete it although pods or a conf still need it.")] = False,
    yes: YesOption = False,
    dry_run: DryRun = False,
    no_wait: NoWaitOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Delete one version that is not in use, or the whole plugin.

    uninstall refuses to delete the whole plugin while pods are attached, because they need it to end, and while a conf
    names it: `cnictl reset-node` removes everything in the right order. At a terminal uninstall shows what it will
    remove, and asks.

    \b
    cnictl plugin uninstall 0.1.0
    cnictl plugin uninstall --dry-run
    """
    _require_root("uninstall", dry_run)
    plugin = plugin_resource.Plugin(None, _absolute(lib_dir), _all_absolute(bin_dir))
    shown = None
    if asking.can_ask(yes or dry_run) and (changes := versions.uninstall(plugin, version, force, True).changes):
        asking.show(change.summary for change in changes)
        asking.confirm("Delete this?")
        shown = next((change for change in changes if change.resource == plugin.id), None)
    _show(versions.uninstall(plugin, version, force, dry_run, engine.Options(no_wait=no_wait).patience, shown), output)


def list_versions(
    lib_dir: LibDir = "",
    bin_dir: BinDir = [],  # noqa: B006
    output: ListOption = Format.TABLE,
) -> None:
    """List the installed versions, their interpreters, which one is in use, and whether it works.

    Exit status 1 if what the runtimes start is broken.

    \b
    cnictl plugin list
    cnictl plugin list -o json
    """
    listing = versions.listing(_absolute(lib_dir), _all_absolute(bin_dir))
    broken = versions.broken(listing)
    if output is Format.JSON:
        print_items(listing.pop("versions"), listing)
    elif not listing["versions"] and not listing["launchers"]:
        say("the plugin is not installed: cnictl plugin install")
    else:
        rows = [
            (
                row["version"],
                "current" if row["current"] else "-",
                row["state"],
                row["interpreter"],
                row["library"],
                row["installed"],
            )
            for row in listing["versions"]
        ]
        columns = ("version", "in use", "state", "interpreter", "library", "installed")
        print_list(output, columns, rows, (row["version"] for row in listing["versions"]), more=1)
        if output is not Format.NAME:
            write()
            print_table(("launcher", "state"), [(row["path"], row["state"]) for row in listing["launchers"]])
        for row in broken:
            say(f"broken: {row.get('path') or row['version']}: {row['fault']} (hint: cnictl plugin install)")
        if listing["chosen"] not in ("", listing["current"]):
            say(f"node.toml names version {listing['chosen']}: cnictl apply puts it into use")
        if listing["cnictl_is_newer"]:
            say(
                f"this cnictl is {listing['cnictl']}, newer than the plugin in use: cnictl plugin install puts it "
                "into use"
            )
    if broken:
        raise typer.Exit(1)


def _show(outcome: versions.VersionOutcome, output: Format) -> None:
    changes = outcome.changes
    if output is Format.JSON:
        print_json({"state": outcome.state, "changes": [vars(change) for change in changes]})
    elif not changes:
        say("nothing to change: the plugin is as it should be")
    else:
        if outcome.state == "would change":
            script.show_changes(changes)
        else:
            print_table(("state", "step"), [(outcome.state, change.summary) for change in changes])


def _require_root(command: str, dry_run: bool) -> None:
    if os.geteuid() != 0 and not dry_run:
        raise Problem(f"cnictl plugin {command} needs root", command_line.as_root())


def _absolute(path: str) -> str:
    return os.path.abspath(path) if path else ""


def _all_absolute(paths: list[str]) -> tuple[str, ...]:
    return tuple(_absolute(path) for path in paths)
