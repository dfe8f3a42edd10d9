"""Do what `cnictl plugin` asks for: install a version of the plugin, switch to another, delete one, list them.

Which version is in use is part of the node's desired state: where the host is a node, node.toml names it from then on.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

import cnictl
from cnictl.core import attachments, liveness
from cnictl.core.errors import Problem
from cnictl.core.paths import NODE_FILE
from cnictl.node import spine
from cnictl.node.host import runtimes
from cnictl.node.plugin import install, releases
from cnictl.node.plugin.releases import PLUGIN
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
    """What a command did or would do: its changes; none where everything was already so."""

    changes: tuple[Change, ...]
    state: str
    """`already so`, `changed` or `would change`."""


def put_newest(plugin: Plugin, dry_run: bool, wait: float = RUN_LOCK_WAIT, pin: bool = True) -> VersionOutcome:
    """Install this cnictl's own version. Raises Problem with the launchers as they were.

    `pin`: node.toml names the version from then on.
    """
    with _alone(dry_run, wait):
        after = plugin.newest()
        chosen = after["version"] if pin else chosen_version()
        return _carry_out(plugin, after, chosen, "plugin install", dry_run, with_program=True)


def switch(plugin: Plugin, name: str, dry_run: bool, wait: float = RUN_LOCK_WAIT) -> VersionOutcome:
    """Switch to an installed version while no call of the plugin is under way. Raises Problem."""
    with _alone(dry_run, wait, calls=False):
        return _carry_out(plugin, plugin.switched(name), name, "plugin use", dry_run)


def take_away(
    plugin: Plugin, name: str, force: bool, dry_run: bool, wait: float = RUN_LOCK_WAIT, shown: Change | None = None
) -> VersionOutcome:
    """Delete the version `name`, or with an empty name the plugin as a whole.

    Raises Problem if `name` is current, if without `force` pods or a conf still need the plugin, or if the plugin is
    not as it was when the change was `shown`.
    """
    with _alone(dry_run, wait, calls=False):
        before = plugin.observe()
        if shown is not None and before != shown.before:
            raise Problem("the plugin changed while cnictl waited for the answer; nothing was changed", "run it again")
        if not name:
            if before is not None and not force:
                _refuse_while_needed()
            return _carry_out(plugin, None, "", "plugin uninstall", dry_run)
        if before is None or name not in before["versions"]:
            there = ", ".join(before["versions"]) if before else "none"
            raise Problem(f"there is no version {name} of the plugin", f"versions there: {there}")
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
    found = install.installed(bin_dirs or runtimes.bin_dirs(runtimes.find()), lib_dir)
    chosen, versions = "", []
    with suppress(Problem, OSError):
        chosen = chosen_version()
    for name in found.versions:
        library = releases.examine(f"{found.lib_dir}/{name}")
        versions.append(
            {
                "version": name,
                "current": name == found.current,
                "installed": releases.noted(library.folder, "installed"),
                "interpreter": library.interpreter,
                "library": library.folder,
                "state": "broken" if library.fault else "ok",
                "fault": library.fault,
            }
        )
    launchers = [{"path": f"{folder}/{PLUGIN}", "state": "ok", "fault": ""} for folder in found.bin_dirs]
    for folder in found.other_bin_dirs:
        fault = "is not the current version's" if os.path.lexists(f"{folder}/{PLUGIN}") else "is missing"
        launchers.append({"path": f"{folder}/{PLUGIN}", "state": "broken", "fault": fault})
    return {
        "lib_dir": found.lib_dir,
        "current": found.current,
        "chosen": chosen,
        "cnictl": cnictl.__version__,
        "cnictl_is_newer": newer_than_in_use(found.lib_dir, found.current),
        "versions": versions,
        "launchers": launchers,
    }


def broken(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the runtimes start and what is wrong with it, of a `listing`: not of versions that are not in use."""
    return [one for one in (*found["versions"], *found["launchers"]) if one["fault"] and one.get("current", True)]


def chosen_version() -> str:
    """Return the version that node.toml names; empty if it names none, or this host is not set up as a node."""
    spec = node_file.load()
    return spec.plugin_version if spec is not None else ""


def newer_than_in_use(lib_dir: str, current: str) -> bool:
    """Return whether this cnictl is of a newer release than the plugin in use."""
    release = releases.noted(f"{lib_dir}/{current}", "version") if current else ""
    return bool(release) and _ordered(cnictl.__version__) > _ordered(release)


def _ordered(release: str) -> tuple[tuple[int, ...], bool]:
    """Return what orders releases; `0.2.0.dev0` is what comes before `0.2.0` (PEP 440)."""
    numbers, development, _ = release.partition("+")[0].partition(".dev")
    return tuple(int(number) for number in re.findall(r"\d+", numbers)), not development


def _carry_out(
    plugin: Plugin, after: State | None, chosen: str, command: str, dry_run: bool, with_program: bool = False
) -> VersionOutcome:
    """Bring the plugin to `after`, and have node.toml name the version `chosen`; undone whole if it fails.

    `with_program`: the copy of cnictl that a node's units start becomes that of this cnictl, too.
    """
    spec = node_file.load()
    steps = [_step(plugin, after)]
    if with_program and spec is not None and systemd_runs():
        copied = ProgramCopy(needed=True)
        steps.insert(0, _step(copied, copied.newest()))
    if spec is not None and spec.plugin_version != chosen:
        spec = replace(spec, plugin_version=chosen)
        steps.insert(0, _step(NodeFile(), NodeFile().desired(spec)))
    todo = Plan(tuple(steps))
    if not todo.changes:
        return VersionOutcome((), "already so")
    if dry_run:
        return VersionOutcome(todo.changes, "would change")
    journal, in_effect = Journal(command), original_state.specs()[-1:]
    spine.apply(todo, lambda *_: None, journal)
    if spec is not None and in_effect == [replace(spec, plugin_version=one.plugin_version) for one in in_effect]:
        original_state.add_spec(spec)  # else the file was edited: that is for `apply`
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
        shown = ", ".join(live[:5]) + (f" and {len(live) - 5} more" if len(live) > 5 else "")
        raise Problem(
            f"{len(live)} live pod{'s need' if len(live) != 1 else ' needs'} the plugin to end: {shown}",
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
    """Hold the node, and without `calls` keep the plugin's calls away too. A dry run leaves not even a lock file."""
    if dry_run:
        yield
        return
    with exclusive(wait), nullcontext() if calls else plugin_calls.kept_out():
        yield
