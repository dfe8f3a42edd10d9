"""Install, switch, delete and list versions of the plugin, for `cnictl plugin`.

The version in use is part of the node's desired state: if the host is a node, node.toml names it afterwards.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

import cnictl
from cnictl.core import attachments, liveness
from cnictl.core.counted import counted, first_of
from cnictl.core.errors import Problem
from cnictl.core.paths import NODE_FILE
from cnictl.node import spine
from cnictl.node.host import runtimes
from cnictl.node.plugin import install, plugin_version
from cnictl.node.plugin.plugin_version import PLUGIN
from cnictl.node.resources.boot_unit import systemd_runs
from cnictl.node.resources.cni_conf import FILE_NAME
from cnictl.node.resources.plugin import Plugin
from cnictl.node.resources.program import ProgramCopy
from cnictl.node.resources.textfile import NodeFile
from cnictl.node.spec import node_file
from cnictl.node.spine import Change, Plan, Resource, State, Step
from cnictl.node.state import original_state, plugin_calls
from cnictl.node.state.journal import DONE, Journal
from cnictl.node.state.run_lock import RUN_LOCK_WAIT, exclusive


@dataclass(frozen=True)
class VersionOutcome:
    """What a command did or would do: its changes; none if there was nothing to change."""

    changes: tuple[Change, ...]
    state: str
    """`unchanged`, `changed` or `would change`."""


def install_own(plugin: Plugin, dry_run: bool, wait: float = RUN_LOCK_WAIT, pin: bool = True) -> VersionOutcome:
    """Install this cnictl's own version of the plugin, and use it. Raises Problem, with the launchers unchanged.

    `pin`: node.toml names the version afterwards.
    """
    with _alone(dry_run, wait):
        after = plugin.with_own_version()
        chosen = after["version"] if pin else chosen_version()
        return _carry_out(plugin, after, chosen, "plugin install", dry_run, with_program=True)


def switch(plugin: Plugin, name: str, dry_run: bool, wait: float = RUN_LOCK_WAIT) -> VersionOutcome:
    """Switch to an installed version once no call of the plugin is running. Raises Problem."""
    with _alone(dry_run, wait, calls=False):
        return _carry_out(plugin, plugin.switched(name), name, "plugin use", dry_run)


def uninstall(
    plugin: Plugin, name: str, force: bool, dry_run: bool, wait: float = RUN_LOCK_WAIT, shown: Change | None = None
) -> VersionOutcome:
    """Delete the version `name`, or with an empty name the plugin as a whole.

    Raises Problem if `name` is current, if without `force` pods or a conf still need the plugin, or if the plugin is
    not as it was when the change was `shown`.
    """
    with _alone(dry_run, wait, calls=False):
        before = plugin.observe()
        if shown is not None and before != shown.before:
            raise Problem(
                "the plugin changed while cnictl waited for the answer; nothing was changed", "run the command again"
            )
        if not name:
            if before is not None and not force:
                _refuse_while_needed()
            return _carry_out(plugin, None, "", "plugin uninstall", dry_run)
        if before is None or name not in before["versions"]:
            names = ", ".join(before["versions"]) if before else "none"
            raise Problem(f"there is no version {name} of the plugin", f"the installed versions: {names}")
        if name == before["version"]:
            raise Problem(f"version {name} is the one in use", "cnictl plugin use VERSION switches to another first")
        chosen = chosen_version()
        if name == chosen:
            raise Problem(
                f"{NODE_FILE} names version {name} as the one to use",
                "cnictl apply puts it into use; cnictl plugin use VERSION chooses another",
            )
        rest = [other for other in before["versions"] if other != name]
        return _carry_out(plugin, {**before, "versions": rest}, chosen, "plugin uninstall", dry_run)


def listing(lib_dir: str, bin_dirs: tuple[str, ...]) -> dict[str, Any]:
    """Return the versions and launchers with their faults, as JSON values."""
    installed = install.installed(bin_dirs or runtimes.bin_dirs(runtimes.find()), lib_dir)
    chosen, versions = "", []
    with suppress(Problem, OSError):
        chosen = chosen_version()
    for name in installed.versions:
        version = plugin_version.examine(f"{installed.lib_dir}/{name}")
        versions.append(
            {
                "version": name,
                "current": name == installed.current,
                "installed": plugin_version.noted(version.folder, "installed"),
                "interpreter": version.interpreter,
                "library": version.folder,
                "state": "broken" if version.fault else "ok",
                "fault": version.fault,
            }
        )
    launchers = [{"path": f"{folder}/{PLUGIN}", "state": "ok", "fault": ""} for folder in installed.bin_dirs]
    for folder in installed.other_bin_dirs:
        fault = "is not the current version's" if os.path.lexists(f"{folder}/{PLUGIN}") else "is missing"
        launchers.append({"path": f"{folder}/{PLUGIN}", "state": "broken", "fault": fault})
    return {
        "lib_dir": installed.lib_dir,
        "current": installed.current,
        "chosen": chosen,
        "cnictl": cnictl.__version__,
        "cnictl_is_newer": newer_than_in_use(installed.lib_dir, installed.current),
        "versions": versions,
        "launchers": launchers,
    }


def broken(listed: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the entries of a `listing` that have a fault: launchers, and the version in use."""
    entries = (*listed["versions"], *listed["launchers"])
    return [entry for entry in entries if entry["fault"] and entry.get("current", True)]


def chosen_version() -> str:
    """Return the version that node.toml names; empty if it names none, or this host is not set up as a node."""
    spec = node_file.load()
    return spec.plugin_version if spec is not None else ""


def newer_than_in_use(lib_dir: str, current: str) -> bool:
    """Return whether this cnictl is newer than the plugin in use."""
    in_use = plugin_version.noted(f"{lib_dir}/{current}", "version") if current else ""
    return bool(in_use) and sort_key(cnictl.__version__) > sort_key(in_use)


def sort_key(version: str) -> tuple[tuple[int, ...], bool]:
    """Return a version's sort key; `0.2.0.dev0` comes before `0.2.0` (PEP 440)."""
    numbers, development, _ = version.partition("+")[0].partition(".dev")
    return tuple(int(number) for number in re.findall(r"\d+", numbers)), not development


def _carry_out(
    plugin: Plugin, after: State | None, chosen: str, command: str, dry_run: bool, with_program: bool = False
) -> VersionOutcome:
    """Bring the plugin to the state `after`, and have node.toml name the version `chosen`; on failure undo both.

    `with_program`: also replace the copy of cnictl that this node's units start by the running cnictl.
    """
    spec = node_file.load()
    steps = [_step(plugin, after)]
    if with_program and spec is not None and systemd_runs():
        copied = ProgramCopy(needed=True)
        steps.insert(0, _step(copied, copied.with_own_version()))
    if spec is not None and spec.plugin_version != chosen:
        spec = replace(spec, plugin_version=chosen)
        steps.insert(0, _step(NodeFile(), NodeFile().desired(spec)))
    todo = Plan(tuple(steps))
    if not todo.changes:
        return VersionOutcome((), "unchanged")
    if dry_run:
        return VersionOutcome(todo.changes, "would change")
    journal, in_effect = Journal(command), original_state.specs()[-1:]
    spine.apply(todo, lambda *_: None, journal)
    if spec is not None and in_effect == [replace(spec, plugin_version=old.plugin_version) for old in in_effect]:
        original_state.add_spec(spec)  # else the file was edited, and `apply` has to carry that out
    journal.end(DONE)
    return VersionOutcome(todo.changes, "changed")


def _step(resource: Resource, after: State | None) -> Step:
    before = resource.observe()
    summary, command = resource.describe(before, after)
    change = Change(resource.id, before, after, summary, command) if before != after else None
    return Step(resource, before, summary, change)


def _refuse_while_needed() -> None:
    live = [
        f"{record.network} {record.container[:12]}{f' ({record.pod})' if record.pod else ''}"
        for record in attachments.every_record()
        if liveness.judge(record).state != liveness.STALE
    ]
    if live:
        raise Problem(
            f"{counted(len(live), 'live pod')} can't be deleted without the plugin: {first_of(live, 5)}",
            "cnictl reset-node --yes --force ends their attachments first; --force here removes the plugin alone",
        )
    for folder in runtimes.conf_dirs(runtimes.find()):
        if os.path.lexists(f"{folder}/{FILE_NAME}"):
            raise Problem(
                f"{folder}/{FILE_NAME} still makes runtimes call the plugin",
                "cnictl reset-node --yes removes both; --force here removes the plugin alone",
            )


@contextmanager
def _alone(dry_run: bool, wait: float, calls: bool = True) -> Iterator[None]:
    """Hold the node; without `calls`, also hold off the plugin's calls. A dry run locks nothing."""
    if dry_run:
        yield
        return
    with exclusive(wait), nullcontext() if calls else plugin_calls.kept_out():
        yield
