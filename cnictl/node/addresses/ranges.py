"""Find out from this host's files which addresses a network gives to pods, and where its leases are."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cnictl.core import durable, skipped_entries
from cnictl.core.cidr import AddressError, parse_pod_cidr
from cnictl.core.conf.network import parse_conf
from cnictl.core.errors import Problem
from cnictl.core.leases.pool import Range, RangeSet
from cnictl.core.paths import NETWORKS_DIR
from cnictl.node.host import runtimes
from cnictl.node.spec.node_spec import NodeSpec

CONF_ENDINGS = (".conflist", ".conf", ".json")
"""The endings of the files that libcni reads as network configurations."""

_ADDRESS_KEYS = ("type", "ranges", "subnet", "rangeStart", "rangeEnd", "gateway", "dataDir")


@dataclass(frozen=True)
class Ranges:
    """A network's range sets, if a file names them, and the lease store's parent folder."""

    sets: tuple[RangeSet, ...]
    data_dir: str = NETWORKS_DIR


def of_network(network: str, spec: NodeSpec | None, conf_dirs: Iterable[str] | None = None) -> Ranges:
    """Return the ranges from node.toml, else from the network's CNI conf."""
    if spec is not None and spec.name == network:
        try:
            return Ranges(tuple(RangeSet([Range(parse_pod_cidr(subnet))]) for subnet in spec.subnets))
        except AddressError:
            pass  # the node file is checked when it is loaded; here, try the conf
    folders = runtimes.conf_dirs(runtimes.find()) if conf_dirs is None else conf_dirs
    for document in _configurations(folders):
        if document.get("name") == network:
            ranges = of_configuration(document)
            if ranges is not None:
                return ranges
    return Ranges(())


def of_configuration(document: dict[str, Any]) -> Ranges | None:
    """Return the ranges of our plugin, or of one that uses host-local, in a conf or conflist; None without one."""
    name = document.get("name")
    plugins = document.get("plugins")
    for plugin in plugins if isinstance(plugins, list) else [document]:
        if not isinstance(plugin, dict):
            continue
        section = plugin.get("ipam")
        ipam: dict[str, Any] = section if isinstance(section, dict) else {}
        if plugin.get("type") != "cnictl-bridge" and ipam.get("type") != "host-local":
            continue
        general = {key: plugin[key] for key in ("cniVersion", "subnet") if key in plugin}
        addresses = {key: ipam[key] for key in _ADDRESS_KEYS if key in ipam}
        try:
            conf = parse_conf({"name": name, "cniVersion": "1.0.0", **general, "ipam": addresses}, with_ranges=False)
        except Problem:
            return None  # host-local itself refuses it
        if conf.served:
            return Ranges(conf.sets, conf.data_dir)
    return None


def _configurations(folders: Iterable[str]) -> Iterable[dict[str, Any]]:
    """Yield the network configurations of these folders, in the order in which runtimes read them."""
    for folder in folders:
        try:
            names = sorted(name for name in os.listdir(folder) if name.endswith(CONF_ENDINGS))
        except OSError as error:
            skipped_entries.skip_unreadable(folder, error)
            continue
        for name in names:
            try:
                document = json.loads(durable.contents(f"{folder}/{name}"))
            except (OSError, ValueError):
                continue  # the runtime reports a broken conf
            if isinstance(document, dict):
                yield document
