"""The Nodes of a Kubernetes cluster as a source of peers: listed, then watched. cnictl never writes to the cluster.

Needs lightkube (`pip install cnictl[kubernetes]`); `cnictl.node.reach.extras` imports this module when it is needed.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import yaml
from lightkube.resources.core_v1 import ConfigMap

from cnictl.core import cidr, untrusted_text
from cnictl.node.reach import kubernetes_access as access
from cnictl.node.reach.kubernetes_api import MAX_API_NODES, Api, Node, announced, of_each_family
from cnictl.node.reach.source import Announcement, Snapshot, SourceLost

SILENCE = 90.0
"""Seconds of silence after which a watch counts as dead. API servers send a bookmark each minute."""
_LARGEST_YAML = 1 << 14
"""Characters; a longer document in a ConfigMap is not parsed. kubeadm's have about 2,000."""


class KubernetesSource:
    """A cluster's Nodes. One thread lists and watches; another thread may call `close`."""

    def __init__(self, kubeconfig: str, silence: float = SILENCE) -> None:
        """Each `list` reads `kubeconfig` again, so that a renewed credential is used."""
        self._path = kubeconfig
        self._silence = silence
        self._api: Api | None = None
        self._follower: _Follower | None = None
        self._last = Snapshot((), "")
        self._closed = False

    @property
    def title(self) -> str:
        """The API server if the kubeconfig has been read, else the kubeconfig's path."""
        return self._api.title if self._api is not None else f"kubernetes {self._path}"

    @property
    def confirmed_at(self) -> float:
        """The time of the watch's last event, bookmarks included; see `Source`."""
        return self._follower.heard_at if self._follower is not None else 0.0

    def list(self) -> Snapshot:
        """Return all Nodes and the cluster's pod networks. Raises as `Source`; a missing right is SourceLost too."""
        api = self._connect()
        with api.reading("list", "nodes"):
            nodes, version = api.nodes()
        self._last = Snapshot(nodes, version, _networks(api))
        return self._last

    def watch(self, version: str) -> Iterator[Snapshot]:
        """Yield all Nodes after changes since `version`, which the last `list` returned. See `Source`.

        Changes that arrive faster than the caller takes them are yielded together. The updates that kubelets send all
        the time change no peer and are not yielded.
        """
        api, last = self._api, self._last
        if api is None or version != last.version:
            raise SourceLost(f"{self.title} was not listed at version {version!r}", "list it again")
        follower = self._follower = _Follower(api, last)
        try:
            follower.start()
            while not self._closed:
                nodes = follower.wait()
                if nodes != last.nodes and not self._closed:
                    last = replace(last, nodes=nodes)
                    yield last
        except SourceLost:
            if not self._closed:
                raise
        finally:
            api.end()

    def close(self) -> None:
        """Make `watch` end immediately, whatever it waits for."""
        self._closed = True
        if self._api is not None:
            self._api.end()
        if self._follower is not None:
            self._follower.end()

    def _connect(self) -> Api:
        if self._api is not None:
            self._api.end()
        self._api = Api(self._path, self._silence)
        if self._closed:  # while it connected
            self._api.end()
        return self._api


class _Follower(threading.Thread):
    """A thread that keeps the list of Nodes up to date from the server's events.

    A name lookup or a connection attempt can't be interrupted, but a wait for this thread can.
    """

    def __init__(self, api: Api, listed: Snapshot) -> None:
        super().__init__(daemon=True, name="kubernetes-watch")
        self._api = api
        self._version = listed.version
        self._nodes = {node.name: node for node in listed.nodes}
        self._news = threading.Condition()
        self._changed = False
        self._failure: SourceLost | None = None
        self.heard_at = 0.0
        """When the last event came, in seconds since the epoch."""

    def wait(self) -> tuple[Announcement, ...]:
        """Wait until the Nodes may have changed; return all of them. Raises SourceLost if the watch has ended."""
        with self._news:
            self._news.wait_for(lambda: self._changed or self._failure)
            if not self._changed and self._failure is not None:
                raise self._failure
            self._changed = False
            return tuple(self._nodes.values())

    def end(self) -> None:
        """Wake everyone who waits."""
        with self._news:
            self._failure = self._failure or SourceLost(f"{self._api.title} is no longer watched")
            self._news.notify_all()

    def run(self) -> None:
        """Follow until the source is lost."""
        try:
            self._api.follow(self._version, self._note)
        except SourceLost as lost:
            self._failure = lost
        except Exception as error:  # our own bug must not leave `wait` waiting for ever
            self._failure = SourceLost(
                f"{self._api.title}: {type(error).__name__}: {untrusted_text.line(str(error), 300)}"
            )
        self.end()

    def _note(self, kind: str, node: Node) -> None:
        announcement = announced(node)
        name = announcement.name
        with self._news:
            before = self._nodes.get(name)
            if kind == "DELETED":
                self._nodes.pop(name, None)
            elif kind in ("ADDED", "MODIFIED"):
                self._nodes[name] = announcement
            if len(self._nodes) > MAX_API_NODES:
                raise SourceLost(f"{self._api.title} has more than {MAX_API_NODES} Nodes")
            if self._nodes.get(name) != before:
                self._changed = True
                self._news.notify_all()
            elif not self._changed:  # else the caller has not taken what came before
                self.heard_at = time.time()


def _networks(api: Api) -> tuple[str, ...]:
    """Return the cluster's pod networks from kubeadm's configuration, else from kube-proxy's."""
    places = zip(
        access.NETWORK_CONFIG_MAPS,
        ("ClusterConfiguration", "config.conf"),
        (("networking", "podSubnet"), ("clusterCIDR",)),
        strict=True,
    )
    for name, key, path in places:
        with api.reading("get", "configmaps"):
            config_map = api.get(ConfigMap, name, access.NAMESPACE)
        text = ((config_map.data or {}).get(key) if config_map is not None else "") or ""
        networks = _cidrs_in(text, path)
        if networks:
            return networks
    return ()


def _cidrs_in(text: str, path: tuple[str, ...]) -> tuple[str, ...]:
    """Return the CIDRs, separated by commas, in the value of a YAML document that a path of keys leads to."""
    value: Any = None
    if len(text) <= _LARGEST_YAML:
        with contextlib.suppress(yaml.YAMLError, ValueError, RecursionError):
            value = yaml.safe_load(text)
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    texts = [part.strip() for part in value.split(",")][:4] if isinstance(value, str) else []
    return of_each_family([part for part in texts if _is_cidr(part)])


def _is_cidr(text: str) -> bool:
    try:
        cidr.parse_cidr(text)
    except cidr.AddressError:
        return False
    return True
