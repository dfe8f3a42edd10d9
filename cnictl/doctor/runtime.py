"""Check what the container runtimes read, and what an earlier set-up of this host left behind."""

import json
import os
import shlex
from collections.abc import Iterable, Iterator
from typing import Any

from cnictl.core import skipped_entries
from cnictl.core.counted import counted
from cnictl.core.leases.lease import folder_networks
from cnictl.core.process import run
from cnictl.doctor import ipam
from cnictl.doctor.before import preflight_check
from cnictl.doctor.check import Check, Finding, HostFault, Remedy
from cnictl.doctor.facts import Facts, text_of
from cnictl.node import hint
from cnictl.node.addresses import lease_list, reclaim
from cnictl.node.host import runtimes
from cnictl.node.plugin import install
from cnictl.node.resources.cni_conf import FILE_NAME, CniConf, is_foreign
from cnictl.node.resources.plugin import Plugin

_ENDINGS = (".conf", ".conflist", ".json")


def confs() -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Return every CNI conf of the runtimes' folders in their order; None for one that can't be read."""
    for folder in runtimes.conf_dirs(runtimes.find()):
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            skipped_entries.skip_unreadable(folder, error)
            continue
        for name in names:
            if name.endswith(_ENDINGS) and not os.path.isdir(f"{folder}/{name}"):
                try:
                    document = json.loads(text_of(f"{folder}/{name}"))
                except ValueError:
                    document = None
                yield f"{folder}/{name}", document if isinstance(document, dict) else None


def _chained(document: dict[str, Any]) -> list[dict[str, Any]]:
    plugins = document.get("plugins")
    return [plugin for plugin in plugins if isinstance(plugin, dict)] if isinstance(plugins, list) else [document]


def _chain(facts: Facts) -> Iterable[HostFault]:
    """Report chained plugins of cnictl's conf that are missing, or too old for its CNI version."""
    if facts.spec is None:
        return
    folders = runtimes.bin_dirs(runtimes.find())
    for path, document in confs():
        if os.path.basename(path) != FILE_NAME or document is None:
            continue
        version = str(document.get("cniVersion") or "0.1.0")
        for plugin in _chained(document)[1:]:
            name = str(plugin.get("type", ""))
            places = [f"{folder}/{name}" for folder in folders]
            there = next((place for place in places if os.access(place, os.X_OK)), "")
            if not there:
                yield HostFault(
                    name,
                    f"{path} chains it, but it is not in {', '.join(folders)}: no pod can start",
                    hint.advice(
                        "install it there (Debian: containernetworking-plugins)",
                        because="the distribution installs programs",
                    ),
                    False,
                )
            elif version not in _versions(there):
                yield HostFault(
                    there,
                    f"does not support CNI {version}, which {path} needs",
                    hint.advice("install a newer version", because="the distribution installs programs"),
                    False,
                )


def _versions(path: str) -> list[str]:
    done = run([path], '{"cniVersion": "1.0.0"}', check=False, environment={"CNI_COMMAND": "VERSION"})
    try:
        return [str(version) for version in json.loads(done.stdout)["supportedVersions"]]
    except (ValueError, LookupError, TypeError):
        return []


def _unreadable(facts: Facts) -> Iterable[HostFault]:
    if facts.spec is None:
        return
    for path, document in confs():
        if document is None and os.path.basename(path) != FILE_NAME:
            yield HostFault(
                path,
                "is not a CNI configuration: a runtime that reads it reports the node as not ready",
                hint.command(f"mv {shlex.quote(path)} {shlex.quote(path)}.off", "or make it valid JSON"),
                False,
            )


def _second_default(facts: Facts) -> Iterable[HostFault]:
    del facts
    for path, document in confs():
        for plugin in _chained(document or {}):
            ipam_conf = plugin.get("ipam")
            routes = ipam_conf.get("routes") if isinstance(ipam_conf, dict) else None
            twice = any(isinstance(route, dict) and route.get("dst") in ("0.0.0.0/0", "::/0") for route in routes or [])
            if plugin.get("type") == "bridge" and plugin.get("isDefaultGateway") and twice:
                yield HostFault(
                    path,
                    "has isDefaultGateway and a default route in ipam: the reference plugin fails with 'file exists'",
                    hint.advice(
                        "remove the route, or set the type to cnictl-bridge", because="the conf belongs to the operator"
                    ),
                    False,
                )


def _unread(facts: Facts) -> Iterable[HostFault]:
    if facts.spec is None:
        return
    found_runtimes = runtimes.find()
    launchers = install.installed(runtimes.bin_dirs(found_runtimes)).bin_dirs
    written = (CniConf(facts.spec).observe() or {"files": ()})["files"]
    confs = [os.path.dirname(path) for path in written if not is_foreign(path)]
    for runtime, fault in runtimes.not_reading(found_runtimes, launchers, confs):
        yield HostFault(runtime, f"{fault}: cnictl's files are in another folder", hint.command("cnictl apply"))


def _install_there(facts: Facts, finding: Finding) -> Remedy:  # noqa: ARG001
    return Remedy((Plugin.id, CniConf.id))


def _remnant_leases(facts: Facts) -> Iterable[HostFault]:
    names = {str(document.get("name")) for _, document in confs() if document}
    if facts.spec is not None:
        names.add(facts.spec.name)
    for network in folder_networks():
        if network in names:
            continue
        listing = lease_list.listing_of(network, facts.spec)
        if listing.rows and all(not reclaim.keep_reason(row) for row in listing.rows):
            yield HostFault(
                network,
                "no conf has this network, but pods that are gone still hold leases of "
                f"{counted(len(listing.rows), 'address')}",
                hint.command(f"cnictl ipam gc --name {network}"),
            )


def _collect(facts: Facts, finding: Finding) -> Remedy:
    return ipam.gc_remedy(finding.subject, lambda: [lease_list.listing_of(finding.subject, facts.spec)])


CHECKS = (
    Check(
        "unit-code", 1, "warning",
        "what cnictl's units and their drop-ins start: owner, mode and ACL of files and folders",
        "Whoever can change what a unit starts becomes root at the next boot.",
        "grep Exec /etc/systemd/system/cnictl*.service\nls -ld /usr/local/lib/cnictl/cli",
        preflight_check("unit-code"), behind=("boot-unit",),
    ),
    Check(
        "conf-order", 40, "error", "the runtimes' conf dirs, by name: what sorts before 10-cnictl.conflist",
        "A runtime uses the first conf by name, and new pods get that network.",
        "ls /etc/cni/net.d\nmv /etc/cni/net.d/00-other.conflist ~", preflight_check("conf-order"),
    ),
    Check(
        "runtime-folders", 40, "error",
        "the configuration that each runtime was started with (/proc/PID/cmdline): its folders for plugins and confs",
        "A runtime does not find a plugin or a conf in another folder.",
        "tr '\\0' ' ' < /proc/$(pgrep -o -x containerd)/cmdline\ncnictl init-node --bin-dir DIR --conf-dir DIR",
        _unread, _install_there,
    ),
    Check(
        "conf-broken", 40, "error", "every conf in the runtimes' conf dirs, read as JSON",
        "containerd stops reading at a broken conf that sorts before cnictl's.",
        "jq . /etc/cni/net.d/*", _unreadable, behind=("conf-order",),
    ),
    Check(
        "chained-plugin", 41, "error",
        "for each plugin that cnictl's conf chains: whether a bin dir has it, its mode, and its VERSION",
        "If a plugin of the chain is missing, every pod fails.",
        "CNI_COMMAND=VERSION /opt/cni/bin/portmap </dev/null", _chain, behind=("cni-conf", "plugin"),
    ),
    Check(
        "loopback", 41, "error", "the `loopback` plugin in the CRI runtime's bin dir",
        "The CRI runtime calls this plugin for each pod. If it is missing, every pod fails, although the node is "
        "reported as ready.",
        "containerd config dump | grep -A3 cni\napt install containernetworking-plugins", preflight_check("loopback"),
    ),
    Check(
        "second-default", 42, "warning", "confs of the reference bridge: isDefaultGateway, ipam.routes",
        "The plugin adds the default route twice and fails the second time.", "grep -r isDefaultGateway /etc/cni/net.d",
        _second_default,
    ),
    Check(
        "residue", 43, "warning", "leases of networks that no conf and no node.toml names, if all their pods are gone",
        "Tools that count pods by their leases count leases from an earlier set-up too.",
        "ls /var/lib/cni/networks\ncnictl ipam gc --name OLD", _remnant_leases, _collect,
    ),
)  # fmt: skip
