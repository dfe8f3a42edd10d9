"""The interface of every source of peers, such as a cluster file or a Kubernetes API server."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from cnictl.core.errors import Problem


@dataclass(frozen=True)
class Announcement:
    """One node as a source announces it, unchecked: `accept` decides what may be used."""

    name: str
    pod_cidrs: tuple[str, ...]
    """At most one for each address family, as text; empty if none has been assigned yet."""
    addresses: tuple[str, ...]
    """The node's own addresses as text, the preferred one of each family first."""


@dataclass(frozen=True)
class Snapshot:
    """All nodes that a source knows, at one moment."""

    nodes: tuple[Announcement, ...]
    version: str
    """Identifies the moment, so that `watch` can continue from it. Empty if the source has no versions."""
    networks: tuple[str, ...] = ()
    """The cluster's pod networks, at most one for each address family; empty if the source does not know them."""


class SourceLost(Problem):
    """The source can't be asked now: it is down, refuses, or does not answer in time. The known peers stay."""


class Source(Protocol):
    """A source of peers: it knows the cluster's nodes."""

    @property
    def title(self) -> str:
        """The source's name as people read it: `file /etc/cnictl/cluster.toml`, `kubernetes https://10.0.0.1:6443`."""

    @property
    def confirmed_at(self) -> float:
        """When the source last confirmed the latest result of `list` or `watch`, in seconds since the epoch.

        0 before a watch has confirmed one. May be read from another thread.
        """

    def list(self) -> Snapshot:
        """Return all nodes. Raises SourceLost; UsageProblem if its configuration or content is wrong."""

    def watch(self, version: str) -> Iterator[Snapshot]:
        """Yield all nodes after each change since `version`, for ever.

        Raises SourceLost if the source is lost or no longer knows `version`; then the caller waits, lists, and watches
        again. Ends after `close`.
        """

    def close(self) -> None:
        """Have `watch` end soon; called from another thread."""


class Fixed:
    """A source that never changes: the content of a cluster file that is not in its place yet."""

    def __init__(self, title: str, snapshot: Snapshot) -> None:
        self.title = title
        self.confirmed_at = 0.0
        self._snapshot = snapshot

    def list(self) -> Snapshot:
        """Return all nodes."""
        return self._snapshot

    def watch(self, version: str) -> Iterator[Snapshot]:  # noqa: ARG002
        """Yield nothing."""
        return iter(())

    def close(self) -> None:
        """Do nothing."""
