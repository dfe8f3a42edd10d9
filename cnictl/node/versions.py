"""`cnictl plugin`: put a version of the plugin in place, switch, take away, list; apart from the node's other state."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cnictl.core.errors import CniError, Problem
from cnictl.core.locks import Locked
from cnictl.core.paths import NODE_LOCK
from cnictl.node import install, library, runtimes
from cnictl.node.journal import DONE, FAILED, UNDONE, Journal
from cnictl.node.library import PLUGIN
from cnictl.node.resources.cni_conf import FILE_NAME
from cnictl.node.resources.plugin import Plugin
from cnictl.node.run_lock import RUN_LOCK_WAIT, exclusive
from cnictl.node.spine import Change, State

_LOCK_WAIT = 20.0
"""Seconds to wait for calls under way to end; a call takes far less unless something hangs."""


@dataclass(frozen=True)
class Outcome:
    """What a command did or would do: its one change, or None where everything was already so."""

    change: Change | None
    state: str
    """`already so`, `changed` or `would change`."""


def put_newest(plugin: Plugin, dry_run: bool, wait: float = RUN_LOCK_WAIT) -> Outcome:
    """Install this cnictl's own version. Raises Problem with the launchers as they were."""
    with _alone(dry_run, wait):
        return _carry_out(plugin, plugin.newest, "plugin install", dry_run)


def switch(plugin: Plugin, name: str, dry_run: bool, wait: float = RUN_LOCK_WAIT) -> Outcome:
    """Make a version that is there current, between two calls of the plugin. Raises Problem."""
    with _alone(dry_run, wait), _no_call_under_way(dry_run):
        return _carry_out(plugin, lambda: plugin.switched(name), "plugin use", dry_run)


def take_away(
    plugin: Plugin, name: str, force: bool, dry_run: bool, wait: float = RUN_LOCK_WAIT, shown: Change | None = None
) -> Outcome:
    """Delete the version `name`, or with an empty name the plugin as a whole.

    Raises Problem if `name` is current, if without `force` pods or a conf still need the plugin, or if the plugin is
    not as it was when the change was `shown`.
    """
    with _alone(dry_run, wait), _no_call_under_way(dry_run):
        before = plugin.observe()
        if shown is not None and before != shown.before:
            raise Problem("the plugin changed while cnictl waited for the answer; nothing was changed", "run it again")
        if not name:
            if before is not None and not force:
                _refuse_while_needed()
            return _carry_out(plugin, lambda: None, "plugin uninstall", dry_run)
        if before is None or name not in before["versions"]:
            there = ", ".join(before["versions"]) if before else "none"
            raise Problem(f"there is no version {name} of the plugin", f"versions there: {there}")
        if name == before["version"]:
            raise Problem(f"version {name} is the one in use", "cnictl plugin use VERSION switches to another first")
        rest = [other for other in before["versions"] if other != name]
        return _carry_out(plugin, lambda: {**before, "versions": rest}, "plugin uninstall", dry_run)


def listing(lib_dir: str, bin_dirs: tuple[str, ...]) -> dict[str, Any]:
    """Versions, launchers, and what is wrong with them; JSON values."""
    found = install.installed(bin_dirs or runtimes.bin_dirs(runtimes.find()), lib_dir)
    versions = []
    for name in found.versions:
        one = library.examine(f"{found.lib_dir}/{name}")
        versions.append(
            {
                "version": name,
                "current": name == found.current,
                "installed": library.installed_at(one.folder),
                "interpreter": one.interpreter,
                "library": one.folder,
                "state": "broken" if one.fault else "ok",
                "fault": one.fault,
            }
        )
    launchers = [{"path": f"{folder}/{PLUGIN}", "state": "ok", "fault": ""} for folder in found.bin_dirs]
    for folder in found.other_bin_dirs:
        fault = "is not the current version's" if os.path.lexists(f"{folder}/{PLUGIN}") else "is missing"
        launchers.append({"path": f"{folder}/{PLUGIN}", "state": "broken", "fault": fault})
    return {"lib_dir": found.lib_dir, "current": found.current, "versions": versions, "launchers": launchers}


def _carry_out(plugin: Plugin, decide: Callable[[], State | None], command: str, dry_run: bool) -> Outcome:
    before, after = plugin.observe(), decide()
    if before == after:
        return Outcome(None, "already so")
    change = Change(plugin.id, before, after, *plugin.describe(before, after))
    if dry_run:
        return Outcome(change, "would change")
    journal = Journal(command)
    journal.begin(change.resource, before, after, change.command, change.summary)
    try:
        plugin.carry_out(change)
    except BaseException:
        journal.failed(change.resource)
        journal.end(UNDONE if plugin.observe() == before else FAILED)
        raise
    journal.end(DONE)
    return Outcome(change, "changed")


def _refuse_while_needed() -> None:
    live = install.live_attachments()
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
def _alone(dry_run: bool, wait: float) -> Iterator[None]:
    """Keep other commands away; a dry run leaves not even a lock file."""
    if dry_run:
        yield
        return
    with exclusive(wait):
        yield


@contextmanager
def _no_call_under_way(dry_run: bool) -> Iterator[None]:
    if dry_run:
        yield
        return
    lock = Locked(NODE_LOCK, wait=_LOCK_WAIT)
    try:
        lock.__enter__()
    except CniError as error:
        raise Problem(error.msg, error.details) from None
    try:
        yield
    finally:
        lock.__exit__()
