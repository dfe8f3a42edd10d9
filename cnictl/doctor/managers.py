"""Check whether NetworkManager or systemd-networkd manages the bridge or its ports despite cnictl's files."""

import os
from collections.abc import Iterable

from cnictl.doctor.check import Check, Finding, HostFault, Remedy, command_action
from cnictl.doctor.facts import Facts, in_order, said_by, text_of
from cnictl.node import hint
from cnictl.node.resources import network_manager, networkd
from cnictl.node.resources.networkd import DAEMON_CONF, FOLDERS, NETWORK_FILE, file_of, is_used

_DEVICES = ["nmcli", "-t", "-f", "DEVICE,STATE", "device"]
_LEFT_ALONE = ("unmanaged", "disconnected")
"""A bridge that was down when NetworkManager released it stays `disconnected` (seen with 1.42)."""
_SETTING = "ManageForeignRoutes"
_NO = ("0", "no", "n", "false", "f", "off")
"""The words that systemd reads as false."""


def _ours(facts: Facts) -> list[str]:
    """Return the bridge, its ports, and recorded host veths even if they are no longer on the bridge."""
    if facts.spec is None:
        return []
    recorded = {record.host_veth for record in facts.records if record.bridge == facts.spec.bridge}
    return [facts.spec.bridge, *sorted({link.name for link in facts.ports} | recorded & facts.links.keys())]


def _managed(facts: Facts) -> Iterable[HostFault]:
    if facts.spec is None or network_manager.PROCESS not in facts.processes:
        return
    states = dict(line.partition(":")[::2] for line in said_by(_DEVICES).splitlines())
    for name in _ours(facts):
        if states.get(name, "unmanaged") not in _LEFT_ALONE:
            yield HostFault(
                name,
                f"NetworkManager manages it ({states[name]}) despite {network_manager.CONF_FILE}",
                hint.advice(
                    "see NetworkManager --print-config: remove the line that sets unmanaged-devices again after "
                    f"{os.path.basename(network_manager.CONF_FILE)}; nmcli general reload",
                    because="the files belong to the operator, and cnictl does not know which one sets it",
                ),
            )


def _taken(facts: Facts) -> Iterable[HostFault]:
    if facts.spec is None or networkd.PROCESS not in facts.processes:
        return
    for name in _ours(facts):
        file = file_of(name)
        if not file or os.path.basename(file) == os.path.basename(NETWORK_FILE):
            continue
        first = os.path.basename(file) < os.path.basename(NETWORK_FILE)
        yield HostFault(
            name,
            f"systemd-networkd configures it from {file}",
            hint.advice(
                f"give {file} a name that comes after {os.path.basename(NETWORK_FILE)}; networkctl reload",
                because="the operator chooses the order of their own files",
            )
            if first
            else hint.command("networkctl reload"),
            not first,
        )


def _reload(facts: Facts, finding: Finding) -> Remedy:  # noqa: ARG001
    return Remedy(actions=(command_action("networkctl", "reload"),))


def _overridden(facts: Facts) -> Iterable[HostFault]:
    if facts.spec is None or not facts.spec.known_peers or not is_used():
        return
    value, source = "", ""
    for path in in_order([f"{folder}/networkd.conf.d" for folder in FOLDERS]):
        for line in text_of(path).splitlines():
            key, equals, assigned = line.partition("=")
            if equals and key.strip() == _SETTING:
                value, source = assigned.strip().lower(), path
    if source not in ("", DAEMON_CONF) and value not in _NO:
        yield HostFault(
            source,
            f"overrides {_SETTING}: systemd-networkd deletes the routes to peers when it restarts",
            hint.advice(
                f"remove that line from {source}, then: networkctl reload", because="the file belongs to the operator"
            ),
        )


CHECKS = (
    Check(
        "network-manager-takes", 20, "warning",
        "nmcli -t -f DEVICE,STATE device: the bridge and its ports are unmanaged",
        "A bridge that NetworkManager manages loses its address and ports at `nmcli networking off` or a suspend.",
        "nmcli device; NetworkManager --print-config | grep unmanaged\n"
        "rm /etc/NetworkManager/conf.d/99-zz.conf; nmcli general reload",
        _managed, None, ("network-manager",),
    ),
    Check(
        "networkd-takes", 21, "warning",
        "NETWORK_FILE of the bridge and its ports in /run/systemd/netif/links",
        "The first matching .network file by name applies. A file for `*` that sorts before cnictl's applies to the "
        "bridge and its ports.",
        "networkctl status cni0 | grep 'Network File'\n"
        "mv /etc/systemd/network/00-all.network /etc/systemd/network/90-all.network; networkctl reload",
        _taken, _reload, ("networkd-links",),
    ),
    Check(
        "networkd-override", 21, "warning",
        "ManageForeignRoutes in networkd.conf.d of /etc/systemd, /run/systemd and /usr/lib/systemd, by name",
        "The last file by name wins, so a file that sorts after cnictl's overrides it.",
        "systemd-analyze cat-config systemd/networkd.conf | grep ManageForeignRoutes",
        _overridden, None, ("networkd-routes",),
    ),
)  # fmt: skip
