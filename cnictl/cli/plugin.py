"""`cnictl plugin`: the CNI executable that runtimes start, and its versions."""

import os
from typing import Annotated

import typer

from cnictl.cli import asking
from cnictl.cli.asking import YesOption
from cnictl.cli.output import Format, OutputOption, print_items, print_json, print_table, say, write
from cnictl.cli.steps import NoWaitOption
from cnictl.core.errors import Problem
from cnictl.node.plugin import versions
from cnictl.node.plugin.versions import VersionOutcome
from cnictl.node.resources.plugin import Plugin
from cnictl.node.runs.engine import Options

LibDir = Annotated[
    str, typer.Option("--lib-dir", help="Folder for the versions. Default: where it is, else /usr/local/lib/cnictl.")
]
BinDir = Annotated[
    list[str],
    typer.Option("--bin-dir", help="A runtime's plugin folder; repeatable. Default: those the runtimes name."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and the commands it stands for.")]


def install(
    lib_dir: LibDir = "",
    bin_dir: BinDir = [],  # noqa: B006 - typer reads it and makes its own
    dry_run: DryRun = False,
    no_wait: NoWaitOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Install this cnictl's plugin and let the runtimes start it.

    The code is copied, with its bytecode, to LIB-DIR/VERSION: removing the environment that cnictl was installed in
    does not stop pods from starting. It has to make, check and remove an attachment in a scratch namespace before a
    small launcher goes into each runtime's plugin folder. The version before stays: `cnictl plugin use` goes back.
    On a node, node.toml names the version in use from then on, and `apply`, `watch` and `doctor` keep it.

    \b
    cnictl plugin install
    cnictl plugin install --bin-dir /opt/cni/bin --lib-dir /opt/cnictl --dry-run
    """
    _require_root("install", dry_run)
    plugin = Plugin(None, _absolute(lib_dir), _all_absolute(bin_dir))
    _show(versions.put_newest(plugin, dry_run, Options(no_wait=no_wait).patience), output)


def use(
    version: Annotated[str, typer.Argument(help="A version that `cnictl plugin list` shows.")],
    lib_dir: LibDir = "",
    bin_dir: BinDir = [],  # noqa: B006
    dry_run: DryRun = False,
    no_wait: NoWaitOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Let the runtimes start another version that is already installed.

    It is tested in a scratch namespace first, and the switch waits until no call of the plugin is under way. On a
    node, node.toml names the version from then on: `apply`, `watch` and `doctor` keep it, `undo` goes back.

    \b
    cnictl plugin use 0.1.0
    """
    _require_root("use", dry_run)
    plugin = Plugin(None, _absolute(lib_dir), _all_absolute(bin_dir))
    _show(versions.switch(plugin, version, dry_run, Options(no_wait=no_wait).patience), output)


def uninstall(
    version: Annotated[str, typer.Argument(help="The version to delete; without one, the plugin as a whole.")] = "",
    lib_dir: LibDir = "",
    bin_dir: BinDir = [],  # noqa: B006
    force: Annotated[bool, typer.Option("--force", help="Though pods or a conf still need the plugin.")] = False,
    yes: YesOption = False,
    dry_run: DryRun = False,
    no_wait: NoWaitOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Delete one version that is not in use, or the plugin as a whole.

    Refuses while pods are attached, for they could not end without it, and while the conf that names it is there:
    `cnictl reset-node` removes all in the right order. At a terminal it shows what goes, and asks.

    \b
    cnictl plugin uninstall 0.1.0
    cnictl plugin uninstall --dry-run
    """
    _require_root("uninstall", dry_run)
    plugin = Plugin(None, _absolute(lib_dir), _all_absolute(bin_dir))
    shown = None
    if asking.asks(yes or dry_run) and (changes := versions.take_away(plugin, version, force, True).changes):
        asking.show(change.summary for change in changes)
        asking.confirm("Delete this?")
        shown = next((change for change in changes if change.resource == plugin.id), None)
    _show(versions.take_away(plugin, version, force, dry_run, Options(no_wait=no_wait).patience, shown), output)


def list_versions(
    lib_dir: LibDir = "",
    bin_dir: BinDir = [],  # noqa: B006
    output: OutputOption = Format.TABLE,
) -> None:
    """Show the installed versions, which one runs, with which interpreter, and whether all of it is sound.

    Exit status 1 if what the runtimes start is broken.

    \b
    cnictl plugin list
    cnictl plugin list -o json
    """
    found = versions.listing(_absolute(lib_dir), _all_absolute(bin_dir))
    broken = [one for one in [*found["versions"], *found["launchers"]] if one["fault"] and one.get("current", True)]
    if output is Format.JSON:
        print_items(found.pop("versions"), found)
    elif not found["versions"] and not found["launchers"]:
        say("the plugin is not installed: cnictl plugin install")
    else:
        rows = [
            (one["version"], "current" if one["current"] else "", one["state"], one["interpreter"], one["library"])
            for one in found["versions"]
        ]
        print_table(("version", "in use", "state", "interpreter", "library"), rows)
        print_table(("launcher", "state"), [(one["path"], one["state"]) for one in found["launchers"]])
        for one in broken:
            say(f"broken: {one.get('path') or one['version']}: {one['fault']} (hint: cnictl plugin install)")
        if found["chosen"] not in ("", found["current"]):
            say(f"node.toml names version {found['chosen']}: cnictl apply puts it into use")
        if found["cnictl_is_newer"]:
            say(
                f"this cnictl is {found['cnictl']}, newer than the version in use: cnictl plugin install brings its own"
            )
    if broken:
        raise typer.Exit(1)


def _show(outcome: VersionOutcome, output: Format) -> None:
    changes = outcome.changes
    if output is Format.JSON:
        print_json({"state": outcome.state, "changes": [vars(change) for change in changes]})
    elif not changes:
        say("nothing to do: the plugin is already so")
    else:
        print_table(("step", "state"), [(change.summary, outcome.state) for change in changes])
        if outcome.state == "would change":
            for change in changes:
                for line in change.command.splitlines():
                    write(f"  # {line}")


def _require_root(command: str, dry_run: bool) -> None:
    if os.geteuid() != 0 and not dry_run:
        raise Problem(f"cnictl plugin {command} needs root", f"sudo cnictl plugin {command}")


def _absolute(path: str) -> str:
    return os.path.abspath(path) if path else ""


def _all_absolute(paths: list[str]) -> tuple[str, ...]:
    return tuple(_absolute(path) for path in paths)
