"""Remove what a node accumulates while it runs: leases, records, log and locks.

Folders that existed before cnictl stay, and so do those that contain something that is not cnictl's.
"""

import contextlib
import glob
import os

from cnictl.core import attachments, bridge_notes, durable, isolation, macspoof
from cnictl.core.leases.lease_store import Store
from cnictl.core.leases.shared_store import may_be_shared
from cnictl.core.netlink.messages import Netlink
from cnictl.core.paths import (
    ATTACHMENTS_DIR,
    LIB_DIR,
    METRICS_FILE,
    NETWORKS_DIR,
    NODE_FILE,
    NODE_LOCK,
    PLUGIN_LOG,
    RUN_DIR,
    SPARE_ATTACHMENTS_DIR,
    SPARE_DIR,
    STATE_DIR,
    WATCH_FILE,
)
from cnictl.node.host import firewall, runtimes
from cnictl.node.plugin import install, program, version_folder
from cnictl.node.resources import boot_unit, firewalld, network_manager, networkd
from cnictl.node.resources.plugin import Plugin
from cnictl.node.resources.textfile import SYSCTL_FILE
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.node.state import folders, journal, learned_peers, original_state, pending
from cnictl.node.state.run_lock import RUN_LOCK

_FORMER = "folders"
_LOG_DIR = os.path.dirname(PLUGIN_LOG)


def remember(spec: NodeSpec) -> None:
    """Record which of the folders for leases and the log existed before cnictl."""
    known = original_state.recall(_FORMER) or {}
    filled = (os.path.dirname(NETWORKS_DIR), NETWORKS_DIR, f"{NETWORKS_DIR}/{spec.name}", _LOG_DIR)
    new = {folder: os.path.isdir(folder) for folder in filled if folder not in known}
    if new:
        original_state.amend(_FORMER, {**known, **new})


def sweep(names: list[str], ours: list[str]) -> None:
    """Remove what is left of these networks once their attachments are gone, and all of cnictl's records.

    `ours`: networks in which no other plugin had an attachment. Their folders are removed, unless a record says that
    they existed before cnictl.
    """
    were_there = {f"{NETWORKS_DIR}/{name}": False for name in ours} | (original_state.recall(_FORMER) or {})
    for name in names:
        _forget_records(name)
    for folder in (SPARE_ATTACHMENTS_DIR, SPARE_DIR):
        _rmdir(folder)
    for name in names:
        store = Store(name)
        if not were_there.get(store.folder, True) and not store.count() and not store.shared:
            _remove_files(store.folder, ("lock", "last_reserved_ip."))
    macspoof.remove_others(())  # of pods whose records are lost
    isolation.remove_others((), everything=True)
    with Netlink() as netlink:
        bridge_notes.settle(netlink)
    sweep_chains()
    _remove_files(_LOG_DIR, (os.path.basename(PLUGIN_LOG),))
    for folder in sorted(were_there, reverse=True):
        if not were_there[folder]:
            _rmdir(folder)
    sweep_cut_off()
    pending.disarm()
    journal.remove_all()
    for key in original_state.snapshot():
        original_state.forget(key)
    learned_peers.forget()
    for file in (METRICS_FILE, WATCH_FILE, NODE_LOCK, RUN_LOCK):
        if os.path.lexists(file):
            os.unlink(file)
    for folder in (ATTACHMENTS_DIR, STATE_DIR, SPARE_ATTACHMENTS_DIR, SPARE_DIR, f"{RUN_DIR}/probe", RUN_DIR, LIB_DIR):
        _rmdir(folder)


def sweep_cut_off() -> None:
    """Remove what a killed run left: temporary files, a half-built plugin, and the folders for them."""
    runtimes_here = runtimes.find()
    lib_dirs, bin_dirs = plugin_folders()
    for folder in (*lib_dirs, program.HOME):
        version_folder.clear_half_built(folder)
    files = (NODE_FILE, SYSCTL_FILE, network_manager.CONF_FILE, firewalld.ZONE, firewalld.POLICY, *boot_unit.FILES)
    written_to = {
        *(os.path.dirname(path) for file in files for path in (file, os.path.realpath(file))),
        *(folder for file in networkd.FILES for folder in glob.glob(os.path.dirname(file))),
        *(STATE_DIR, RUN_DIR, *lib_dirs, *bin_dirs, *runtimes.conf_dirs(runtimes_here)),
    }
    for folder in written_to:
        durable.clear_temporary(folder)
    watched = {runtime.conf_dir for runtime in runtimes_here if runtime.settled}
    for folder in folders.remembered():
        if folder not in watched:
            folders.unmake(folder)


def sweep_chains() -> None:
    """Remove iptables' built-in chains, and their tables, that did not exist before cnictl and are empty now."""
    for family in firewall.PROGRAMS:
        for table, chain in (("filter", "FORWARD"), ("nat", "POSTROUTING")):
            firewall.drop_remnant(table, chain, family)


def plugin_folders() -> tuple[set[str], set[str]]:
    """Return the library and bin folders that hold the plugin, or that a run was to install it in."""
    bin_dirs = runtimes.bin_dirs(runtimes.find())
    plugin = install.installed(bin_dirs)
    entries = [entry for run in journal.runs() for entry in run.entries if entry.resource == Plugin.id]
    states = [state for entry in entries for state in (entry.before, entry.after) if state]
    return (
        {LIB_DIR, plugin.lib_dir, *(state["lib_dir"] for state in states)},
        {*bin_dirs, *plugin.bin_dirs, *plugin.other_bin_dirs}.union(*(state["bin_dirs"] for state in states)),
    )


def _forget_records(name: str) -> None:
    """Remove what is left in a network's folder of attachment records, and the records of other nodes' leases."""
    for record in attachments.all_records(name):
        if not record.host_veth and may_be_shared(record.data_dir):
            attachments.remove(name, record.container, record.ifname)
    for folder in (ATTACHMENTS_DIR, SPARE_ATTACHMENTS_DIR):
        _remove_files(f"{folder}/{name}", (attachments.CLAIM_MARK,))
        _rmdir(f"{folder}/{name}")


def _remove_files(folder: str, beginnings: tuple[str, ...]) -> None:
    """Remove the files in a folder whose names have one of these beginnings."""
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        if name.startswith(beginnings):
            os.unlink(f"{folder}/{name}")


def _rmdir(folder: str) -> None:
    """Remove a folder if it is empty."""
    with contextlib.suppress(OSError):  # missing, or it holds something else
        os.rmdir(folder)
