"""List the names on this host that an argument can have, for completion: pods, addresses, peers, runs, links.

Names that can't be read are left out; most are readable only by root. Each Tab waits for this module, so each function
imports only what it needs.
"""

import os
from collections.abc import Iterator
from typing import Any

from cnictl.core import attachments
from cnictl.core.cidr import is_address
from cnictl.core.paths import LIB_DIR, NETWORKS_DIR

Names = Iterator[tuple[str, str]]
"""A name and what it is, in a few words."""
_RUNS = 20
"""How many of the latest runs are listed."""


def pods() -> Names:
    """Yield each attachment's pod, or its container if the runtime gave no pod name."""
    for record in attachments.every_record():
        yield record.pod or record.container, ", ".join(record.addresses)


def ends() -> Names:
    """Yield the words for the places that `ping` can use as its source or target."""
    yield "host", "this host"
    yield "pod", "a new probe pod"


def targets() -> Names:
    """Yield the word for an external address, and the name and address of each peer."""
    from cnictl.node.spec import node_file
    from cnictl.node.state import learned_peers

    yield "external", "an address outside the cluster"
    spec = node_file.load()
    learned = learned_peers.load() if spec is not None and spec.reach.source else None
    for row in learned.nodes if learned is not None else ():
        yield row.get("name", ""), row.get("address", "")
    for peer in spec.known_peers if spec is not None else ():
        yield peer.via, f"node of {peer.pod_cidr}"


def addresses() -> Names:
    """Yield each leased address."""
    for network, _ in networks():
        for name in _listed(f"{NETWORKS_DIR}/{network}"):
            if is_address(name):
                yield name, network


def networks() -> Names:
    """Yield each network that has leases."""
    for name in _listed(NETWORKS_DIR):
        yield name, "network"


def peers() -> Names:
    """Yield each peer as `--peer` takes it: `CIDR=VIA`, with `%LINK` if the peer has one."""
    for peer in _peers():
        yield f"{peer.pod_cidr}={peer.via}{f'%{peer.dev}' if peer.dev else ''}", "peer"


def peer_cidrs() -> Names:
    """Yield each peer's pod CIDR."""
    for peer in _peers():
        yield peer.pod_cidr, f"via {peer.via}"


def _peers() -> Iterator[Any]:
    from cnictl.node.spec import node_file

    spec = node_file.load()
    yield from spec.known_peers if spec is not None else ()


def runs() -> Names:
    """Yield the latest runs, newest first."""
    from cnictl.node.state import journal

    for number in journal.numbers()[: -_RUNS - 1 : -1]:
        yield str(number), journal.command_of(number)


def links_to_others() -> Names:
    """Yield each link of this host that can lead to other hosts."""
    from cnictl.node.host import uplinks
    from cnictl.node.spec import node_file

    spec = node_file.load()
    for name in uplinks.names(spec.bridge if spec is not None else ""):
        yield name, "link"


def bridges() -> Names:
    """Yield each bridge of this host."""
    from cnictl.node.host import uplinks

    for name in uplinks.bridges():
        yield name, "bridge"


def versions() -> Names:
    """Yield each installed version of the plugin."""
    from cnictl.node.plugin import version_folder

    for name in version_folder.names(LIB_DIR):
        yield name, "version"


def labs() -> Names:
    """Yield each lab of this user."""
    from cnictl.lab import state

    for name in _listed(str(state.folder_path())):
        if name.endswith(".json"):
            yield name.removesuffix(".json"), "lab"


def machines() -> Names:
    """Yield the machines of this user's labs."""
    from cnictl.lab import state

    for name, _ in labs():
        running = state.read(state.folder_path() / f"{name}.json")
        for machine, _ in running.machines if running is not None else ():
            yield machine.name, machine.address


def nodes() -> Names:
    """Yield the nodes in the current folder's cluster file, or else in this host's."""
    from cnictl.cluster import inventory

    for node in inventory.read("").cluster.nodes:
        yield node.name, ", ".join(node.addresses)


def _listed(folder: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        return []
