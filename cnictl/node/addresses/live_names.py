"""List what can be named on this host now: its pods and its peers. Nothing is asked but files."""

from cnictl.core import attachments
from cnictl.core.errors import Problem
from cnictl.node.spec import node_file
from cnictl.node.state import learned_peers


def pods() -> list[str]:
    """Return the pods of this host: `namespace/name`, or the container's id for one without a name.

    Empty if the records can't be read.
    """
    try:
        records = list(attachments.every_record())
    except (OSError, Problem):
        return []
    return list(dict.fromkeys(record.pod or record.container for record in records))


def peers() -> dict[str, tuple[str, ...]]:
    """Return the addresses of each node that the source of peers knows, by its name; empty without a source."""
    try:
        spec = node_file.load()
        learned = learned_peers.load() if spec is not None and spec.reach.source else None
    except (OSError, Problem):
        return {}
    by_name: dict[str, tuple[str, ...]] = {}
    for row in learned.nodes if learned is not None else ():
        if row.get("name") and row.get("address"):
            by_name[row["name"]] = (*by_name.get(row["name"], ()), row["address"])
    return by_name


def peer_addresses() -> list[str]:
    """Return the addresses of this node's peers; empty if the node file can't be read."""
    try:
        spec = node_file.load()
    except (OSError, Problem):
        return []
    return list(dict.fromkeys(peer.via for peer in spec.known_peers)) if spec is not None else []
