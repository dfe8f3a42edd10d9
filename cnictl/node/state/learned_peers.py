"""Keep the last good list of the cluster's nodes, /var/lib/cnictl/peers.json, and which of them became peers.

The node uses this list, whatever happens to the source: if the source is lost, no route is removed.
"""

import json
import os
import shlex
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from cnictl.core import durable, skipped_entries
from cnictl.core.paths import CLUSTER_FILE, CONFLICT_FILE, RUN_DIR, STATE_DIR
from cnictl.node.spec.node_spec import NodeSpec, Peer, Reach

RECORD = f"{STATE_DIR}/peers.json"
CONFIRMED = f"{RUN_DIR}/peers-current"
"""An empty file. Its modification time is the last time at which the recorded list was the source's."""
_FORM = 1
_LARGEST = 16 << 20


@dataclass(frozen=True)
class Learned:
    """What this node has learned from its source of peers."""

    source: str = ""
    """The source's title."""
    reach: str = ""
    """The source's `identity`: its title may change once it has answered."""
    name: str = ""
    """This node's CNI network."""
    version: str = ""
    """The source's version of the list."""
    read_at: float = 0.0
    """When the list was last known to be the source's, in seconds since the epoch by this host's clock."""
    stale_since: float = 0.0
    """The time since which the list is stale, in the same unit; 0: the last request succeeded."""
    trouble: str = ""
    """Why the source can't be asked, or what is wrong with its last answer, in words; ends with `todo`, if any."""
    todo: str = ""
    """What to do about the trouble, as the source itself says; empty if it says nothing."""
    conflict: str = ""
    """How the source contradicts this node's pod CIDR, in words; empty if it doesn't."""
    nodes: tuple[dict[str, Any], ...] = ()
    """Every announced node as JSON: name, pod_cidr, address, state, why, static, since."""
    networks: tuple[str, ...] = ()
    """The cluster's pod networks according to the source."""
    peers: tuple[Peer, ...] = field(default=())
    """The accepted nodes."""

    @property
    def trouble_alone(self) -> str:
        """The trouble without what to do about it."""
        return self.trouble.removesuffix(f"; {self.todo}") if self.todo else self.trouble


def identity(reach: Reach) -> str:
    """Return a text that identifies a source."""
    return f"{reach.source} {reach.file or reach.kubeconfig}".strip()


def from_argument(learned: Learned) -> str:
    """Return the argument of `init-node --from` that names the source: `kubernetes`, or the cluster file's path."""
    source, _, path = learned.reach.partition(" ")
    return shlex.quote(path or CLUSTER_FILE) if source == "file" else source


def load() -> Learned | None:
    """Return the record of learned peers; None if there is none, or if it can't be read."""
    try:
        data = json.loads(durable.contents(RECORD, _LARGEST))
        if data.pop("form", None) != _FORM:
            return None
        known = {each.name for each in fields(Learned)}
        data = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items() if key in known}
        learned = Learned(**{**data, "peers": tuple(Peer(**peer) for peer in data.get("peers", ()))})
        return learned if learned.stale_since else replace(learned, read_at=max(learned.read_at, _confirmed_at()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        skipped_entries.skip(RECORD, str(error))
        return None


def save(learned: Learned) -> None:
    """Write the record in one step, and a file with its conflict for the plugin's STATUS. Raises OSError."""
    data = {"form": _FORM, **asdict(learned)}
    durable.make_folder(STATE_DIR, 0o755)
    durable.replace(RECORD, json.dumps(data).encode(), 0o644)
    if learned.conflict:
        text = f"{learned.name}\n{learned.conflict}\n{from_argument(learned)}\n"
        durable.replace(CONFLICT_FILE, text.encode(), 0o644)
    elif os.path.lexists(CONFLICT_FILE):
        os.unlink(CONFLICT_FILE)


def confirm(at: float) -> None:
    """Note that the source still had the recorded list `at` this time, in seconds since the epoch. Raises OSError.

    Only a file's time changes: the record of 5,000 nodes has a megabyte. The file is in /run, so a reboot forgets it.
    """
    durable.make_folder(RUN_DIR)
    os.close(os.open(CONFIRMED, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644))
    os.utime(CONFIRMED, (at, at))


def _confirmed_at() -> float:
    try:
        return os.stat(CONFIRMED).st_mtime
    except OSError:
        return 0.0


def forget() -> None:
    """Remove the record: this node no longer has a source."""
    for path in (RECORD, CONFIRMED, CONFLICT_FILE):
        if os.path.lexists(path):
            os.unlink(path)


def with_learned(spec: NodeSpec) -> NodeSpec:
    """Return `spec` with the recorded peers that fit it; none if it has no source."""
    learned = load() if spec.reach.source else None
    if learned is None or learned.reach != identity(spec.reach):
        return spec
    return fitting(spec, learned)


def fitting(spec: NodeSpec, learned: Learned) -> NodeSpec:
    """Return `spec` with the learned peers, except those whose pod CIDR a static peer or the node itself has."""
    taken = {peer.pod_cidr for peer in spec.peers} | set(spec.subnets)
    return replace(spec, learned=tuple(peer for peer in learned.peers if peer.pod_cidr not in taken))
