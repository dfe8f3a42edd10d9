"""What every source of peers offers, whatever it keeps the cluster's nodes in."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from cnictl.core.errors import Problem


@dataclass(frozen=True)
class Announcement:
    """One node as a source announces it. Nothing of it is checked: `accept` decides what may be used."""

    name: str
    pod_cidrs: tuple[str, ...]
    """At most one a family, as text; empty where the node has none yet."""
    addresses: tuple[str, ...]
    """The node's own addresses, as text, the preferred one of each family first."""


@dataclass(frozen=True)
class Snapshot:
    """All nodes that a source knows, at one moment."""

    nodes: tuple[Announcement, ...]
    version: str
    """Names the moment; what `watch` goes on from. Empty where the source has no such thing."""
    networks: tuple[str, ...] = ()
    """The cluster's pod networks, at most one a family; empty where the source does not know them."""


class SourceLost(Problem):
    """The source can't be asked now: it is down, refuses, or does not answer in time. What was known stays."""


class Source(Protocol):
    """Where the cluster's nodes are kept."""

    @property
    def title(self) -> str:
        """The source in words, for screens: `file /etc/cnictl/cluster.toml`, `kubernetes https://10.0.0.1:6443`."""

    def list(self) -> Snapshot:
        """Return all nodes. Raises SourceLost; UsageProblem where its configuration or content is wrong."""

    def watch(self, version: str) -> Iterator[Snapshot]:
        """Yield all nodes anew after each change since `version`, and wait for the next one.

        Raises SourceLost when the source is lost or has forgotten `version`: the caller waits, lists, and watches
        again. Ends after `close`.
        """

    def close(self) -> None:
        """Have `watch` end soon; called from another thread."""


class Fixed:
    """A source that never changes: what a file says that is not in its place yet."""

    def __init__(self, title: str, snapshot: Snapshot) -> None:
        self.title = title
        self._snapshot = snapshot

    def list(self) -> Snapshot:
        """Return all nodes."""
        return self._snapshot

    def watch(self, version: str) -> Iterator[Snapshot]:  # noqa: ARG002
        """Yield nothing."""
        return iter(())

    def close(self) -> None:
        """Do nothing."""
