"""Combine the peers that a command line names with those of node.toml. Pure.

A peer that is not named stays, unless `--prune` is given. A peer that is named with another address keeps its address,
unless `--replace` is given: leaving something out of a command line is not an instruction to remove it.
"""

from dataclasses import dataclass

from cnictl.core.cidr import parse_cidr
from cnictl.core.errors import UsageProblem
from cnictl.node.spec.node_spec import Peer
from cnictl.node.spec.overlaps import overlapping
from cnictl.node.spec.peers import check_peer, place


@dataclass(frozen=True)
class NamedPeers:
    """The resulting peers, and what becomes of those in node.toml."""

    peers: tuple[Peer, ...]
    kept: tuple[Peer, ...] = ()
    """Peers that are not named and stay unchanged."""
    dropped: tuple[Peer, ...] = ()
    moved: tuple[tuple[Peer, Peer], ...] = ()
    """Peers with a new address: each as it was and as it is now."""

    def as_json(self) -> dict[str, list[dict[str, str]]]:
        """Return what becomes of each peer, as JSON values."""
        return {
            "kept": [{"pod_cidr": peer.pod_cidr, "via": peer.via} for peer in self.kept],
            "dropped": [{"pod_cidr": peer.pod_cidr, "via": peer.via} for peer in self.dropped],
            "moved": [{"pod_cidr": new.pod_cidr, "from": place(old), "to": place(new)} for old, new in self.moved],
        }

    def in_words(self) -> list[str]:
        """Return a line for each peer that is dropped or moved."""
        return [
            *(f"drops peer {peer.pod_cidr}, which is reached through {place(peer)}" for peer in self.dropped),
            *(f"moves peer {new.pod_cidr} from {place(old)} to {place(new)}" for old, new in self.moved),
        ]


def combine(known: tuple[Peer, ...], named: tuple[Peer, ...], prune: bool, replace: bool) -> NamedPeers:
    """Combine a node's `known` peers with the `named` ones. Raises UsageProblem.

    A peer that is named without a link keeps the one it has. Without `replace`, a known peer that is named with another
    address is refused; without `prune`, known peers that are not named stay.
    """
    wanted: dict[str, Peer] = {}
    for peer in map(check_peer, named):
        other = wanted.setdefault(peer.pod_cidr, peer)
        if other != peer:
            raise UsageProblem(f"peer {peer.pod_cidr} is given twice, through {place(other)} and {place(peer)}")
    moved: list[tuple[Peer, Peer]] = []
    result: list[Peer] = []
    for old in known:
        new = wanted.get(old.pod_cidr, old)
        if new.via == old.via and not new.dev:
            new = old
        if new != old:
            moved.append((old, new))
        if not prune or old.pod_cidr in wanted:
            result.append(new)
        wanted.pop(old.pod_cidr, None)
    if moved and not replace:
        old, new = moved[0]
        raise UsageProblem(
            f"peer {old.pod_cidr} is already reached through {place(old)}; to move it to {place(new)}, add --replace"
        )
    _refuse_overlap(result, tuple(wanted.values()))
    named_cidrs = {check_peer(peer).pod_cidr for peer in named}
    unnamed = tuple(old for old in known if old.pod_cidr not in named_cidrs)
    return NamedPeers(
        (*result, *wanted.values()), () if prune else unnamed, unnamed if prune else (), tuple(moved)
    )  # fmt: skip


def _refuse_overlap(kept: list[Peer], new: tuple[Peer, ...]) -> None:
    if not new:
        return
    peers = (*new, *kept)
    pairs = overlapping([parse_cidr(peer.pod_cidr) for peer in peers])
    for first, second in sorted(pair for pair in pairs if pair[0] < len(new) <= pair[1]):
        cidr, other = peers[first].pod_cidr, peers[second]
        raise UsageProblem(
            f"peer {cidr} overlaps peer {other.pod_cidr}, which this node reaches through {place(other)}; if "
            f"{cidr} takes its place, first: cnictl route del-peer {other.pod_cidr}"
        )
