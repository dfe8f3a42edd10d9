"""Keep the last good list of the cluster's nodes, /var/lib/cnictl/peers.json, and which of them became peers.

Whatever becomes of the source, this is what the node goes by: a source that is lost takes no route away.
"""

import json
import os
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from cnictl.core import durable, odd
from cnictl.core.paths import CONFLICT_FILE, STATE_DIR
from cnictl.node.spec.node_spec import NodeSpec, Peer, Reach

RECORD = f"{STATE_DIR}/peers.json"
_FORM = 1
_LARGEST = 16 << 20


@dataclass(frozen=True)
class Learned:
    """What this node knows from its source."""

    source: str = ""
    """The source in words."""
    reach: str = ""
    """Which source it was, by the node file (`identity`): a title may say more once the source has answered."""
    name: str = ""
    """This node's CNI network."""
    version: str = ""
    """The source's own name for the moment of the list."""
    read_at: float = 0.0
    """When the list was read, in seconds since the epoch by this host's clock."""
    stale_since: float = 0.0
    """Since when the source can't be asked; 0: it could at the last try."""
    trouble: str = ""
    """Why it can't be asked, or what is wrong with its last answer, in words."""
    conflict: str = ""
    """In words, where the source contradicts this node's pod CIDR."""
    nodes: tuple[dict[str, Any], ...] = ()
    """Every announced node as JSON: name, pod_cidr, address, state, why, typed, since."""
    networks: tuple[str, ...] = ()
    """The cluster's pod networks as the source has them."""
    peers: tuple[Peer, ...] = field(default=())
    """The accepted ones."""


def identity(reach: Reach) -> str:
    """Return what tells one source from another."""
    return f"{reach.source} {reach.file or reach.kubeconfig}".strip()


def load() -> Learned | None:
    """Return what was learned; None without a record, or with one that can't be read."""
    try:
        data = json.loads(durable.contents(RECORD, _LARGEST))
        if data.pop("form", None) != _FORM:
            return None
        known = {each.name for each in fields(Learned)}
        data = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items() if key in known}
        return Learned(**{**data, "peers": tuple(Peer(**peer) for peer in data.get("peers", ()))})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        odd.pass_over(RECORD, str(error))
        return None


def save(learned: Learned) -> None:
    """Keep what was learned, in one step. The plugin's STATUS reads of a conflict alone. Raises OSError."""
    data = {"form": _FORM, **asdict(learned)}
    durable.make_folder(STATE_DIR, 0o755)
    durable.replace(RECORD, json.dumps(data).encode(), 0o644)
    if learned.conflict:
        durable.replace(CONFLICT_FILE, f"{learned.name}\n{learned.conflict}\n".encode(), 0o644)
    elif os.path.lexists(CONFLICT_FILE):
        os.unlink(CONFLICT_FILE)


def forget() -> None:
    """Remove what was learned: this node has no source any more."""
    for path in (RECORD, CONFLICT_FILE):
        if os.path.lexists(path):
            os.unlink(path)


def with_learned(spec: NodeSpec) -> NodeSpec:
    """Return `spec` with the peers that were learned for it, in so far as they fit it; without a source, none."""
    learned = load() if spec.reach.source else None
    if learned is None or learned.reach != identity(spec.reach):
        return spec
    return fitting(spec, learned)


def fitting(spec: NodeSpec, learned: Learned) -> NodeSpec:
    """Return `spec` with the learned peers, except where it has a peer or a pod CIDR of its own."""
    taken = {peer.pod_cidr for peer in spec.peers} | set(spec.subnets)
    return replace(spec, learned=tuple(peer for peer in learned.peers if peer.pod_cidr not in taken))
