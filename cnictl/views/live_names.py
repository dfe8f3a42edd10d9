"""List the names on this host that an argument can have, for completion: pods, addresses, peers, runs, links.

What can't be read is left out: most of it is root's. Each Tab waits for this, so a list loads only what it reads with.
"""

import os
from collections.abc import Iterator

from cnictl.core import attachments
from cnictl.core.cidr import is_address
from cnictl.core.paths import LIB_DIR, NETWORKS_DIR

Names = Iterator[tuple[str, str]]
"""A name and what it is, in a few words."""
_RUNS = 20
"""How many of the latest runs are listed."""


def pods() -> Names:
    """Yield each attachment's pod, or its container where the runtime named no pod."""
    for record in attachments.every_record():
        yield record.pod or record.container, ", ".join(record.addresses)


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
    """Yield each peer's pod CIDR."""
    from cnictl.node.spec import node_file

    spec = node_file.load()
    for peer in spec.known_peers if spec is not None else ():
        yield peer.pod_cidr, f"via {peer.via}"


def runs() -> Names:
    """Yield the latest runs, last first."""
    from cnictl.node.state import journal

    for number in journal.numbers()[: -_RUNS - 1 : -1]:
        yield str(number), journal.command_of(number)


def links() -> Names:
    """Yield each link of this host."""
    for name in _listed("/sys/class/net"):
        yield name, "link"


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
    """Yield the nodes of the cluster file in this folder, or else of this host's."""
    from cnictl.cluster import inventory

    for node in inventory.read("").cluster.nodes:
        yield node.name, ", ".join(node.addresses)


def _listed(folder: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        return []
