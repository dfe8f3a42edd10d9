"""The cluster file, `cluster.toml`: one file for all nodes of a cluster, read strictly, and a source of peers.

It lists the pod networks, and for each node its name, addresses and pod CIDRs. On a node its path is
/etc/cnictl/cluster.toml. It decides where routes lead, so only root may be able to change it.
"""

import difflib
import hashlib
import os
import re
import threading
import time
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tomlkit.exceptions import TOMLKitError

from cnictl.core import durable
from cnictl.core.cidr import AddressError, Cidr, format_address, parse_address, parse_cidr, parse_pod_cidr
from cnictl.core.errors import UsageProblem
from cnictl.core.paths import CLUSTER_FILE
from cnictl.node.plugin import ownership
from cnictl.node.preflight import root_alone
from cnictl.node.reach import cluster_text
from cnictl.node.reach.source import Announcement, Snapshot, SourceLost
from cnictl.node.spec import addressing, toml_fault, toml_text
from cnictl.node.spec.node_spec import NodeSpec, text_or_list
from cnictl.node.spec.peers import FAMILIES, host_address, is_link_local
from cnictl.node.spec.suggestions import meant_network

MAX_FILE_NODES = 5000
LARGEST_FILE = 4 << 20
"""The most bytes of a cluster file; each node needs about a hundred."""

_KEYS = ("network", "node_prefix", "nodes")
_NODE_KEYS = ("name", "address", "addresses", "pod_cidr", "ssh")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\Z")
_NAME_MAX = 253
_SSH = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_.-]{0,63}@)?[A-Za-z0-9_:][A-Za-z0-9_.:-]{0,252}\Z")
"""`user@host`, `host`, or an address of either family, without blank, quote, slash, `%` or leading dash."""
_DEFAULT_PREFIX = {32: 24, 128: 64}
_LOOK_SECONDS = 0.9


@dataclass(frozen=True)
class ClusterNode:
    """One node of the file, with its addresses and CIDRs in canonical form."""

    name: str
    addresses: tuple[str, ...]
    pod_cidrs: tuple[str, ...]
    """At most one for each address family; a family without an assigned pod CIDR is missing."""
    ssh: str = ""
    """The destination for ssh: `user@host` or a host; empty: the node's first address."""


@dataclass(frozen=True)
class Cluster:
    """The content of a cluster file."""

    networks: tuple[str, ...]
    node_prefixes: tuple[int, ...]
    """The prefix length of a node's pod CIDR in each of `networks`."""
    nodes: tuple[ClusterNode, ...]


class _NodeFault(UsageProblem):
    """A fault of the node at a position in the file."""

    def __init__(self, position: int, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.position = position


class _KeyFault(UsageProblem):
    """A fault of a key that is not a node's."""

    def __init__(self, key: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.key = key


def load(path: str) -> Cluster:
    """Return the content of the file at `path`. Raises UsageProblem; OSError if it can't be read."""
    return parse(text_of(read(path), path), path)


def read(path: str) -> bytes:
    """Return the file's bytes. Raises OSError, including for a file that is too large or not regular."""
    return durable.contents(path, LARGEST_FILE)


def text_of(contents: bytes, path: str) -> str:
    """Return a file's bytes as text. Raises UsageProblem that names the byte that is not UTF-8."""
    try:
        return contents.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageProblem(f"{path}: byte {error.start} is not UTF-8", "save it as UTF-8") from None


def parse(text: str, path: str = "cluster.toml") -> Cluster:
    """Parse a cluster file's text. Raises UsageProblem with the line, what is wrong there, and a hint."""
    document = _document(text, path)
    try:
        return _cluster(document)
    except _NodeFault as fault:
        known = cluster_text.lines(text)
        line = f"line {known[fault.position]}: " if fault.position < len(known) else ""
        raise UsageProblem(f"{path}: {line}{fault.message}", fault.hint) from None
    except _KeyFault as fault:
        line = f"line {cluster_text.line_of_key(text, fault.key)}: " if fault.key in document else ""
        raise UsageProblem(f"{path}: {line}{fault.message}", fault.hint) from None


def assign_free(text: str, path: str = "cluster.toml") -> tuple[str, dict[str, tuple[str, ...]]]:
    """Return the text with a pod CIDR for each node that lacks one, and the new CIDRs by node name.

    Each gets the lowest free CIDR of the network. Only the operator's machine assigns CIDRs: two hosts that do it at
    the same time could assign one CIDR twice. Raises UsageProblem if the file is wrong or no CIDR is free.
    """
    cluster = parse(text, path)
    taken = {pod_cidr for node in cluster.nodes for pod_cidr in node.pod_cidrs}
    networks = zip(map(parse_cidr, cluster.networks), cluster.node_prefixes, strict=True)
    free = {network.bits: _free(network, prefix, taken) for network, prefix in networks}
    assigned: dict[str, tuple[str, ...]] = {}
    written: dict[int, str | list[str]] = {}
    for position, node in enumerate(cluster.nodes):
        has = {parse_cidr(text).bits for text in node.pod_cidrs}
        new = tuple(next(cidrs) for bits, cidrs in free.items() if bits not in has)
        if new:
            assigned[node.name] = new
            written[position] = text_or_list((*node.pod_cidrs, *new))
    return (cluster_text.with_pod_cidrs(text, written) if written else text), assigned


def without_node(text: str, name: str, path: str = "cluster.toml") -> str:
    """Return the text without a node. Raises UsageProblem if the text has no node of that name, or no other."""
    names = [node.name for node in parse(text, path).nodes]
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        raise UsageProblem(f"{path} has no node {name!r}", f"did you mean {near[0]}?" if near else "")
    if len(names) == 1:
        raise UsageProblem(
            f"{name} is the only node in {path}: a cluster file names at least one",
            f"run `cnictl reset-node` on {name}, then remove the file",
        )
    return cluster_text.without(text, names.index(name))


def find_self(cluster: Cluster, own_addresses: Iterable[str]) -> ClusterNode:
    """Return the node that has one of this host's addresses. Raises UsageProblem unless there is exactly one."""
    own = {format_address(parse_address(text.partition("/")[0].partition("%")[0])) for text in own_addresses}
    nodes = [node for node in cluster.nodes if own.intersection(node.addresses)]
    if len(nodes) == 1:
        return nodes[0]
    if nodes:
        shared = ", ".join(f"{node.name} ({', '.join(a for a in node.addresses if a in own)})" for node in nodes[:5])
        raise UsageProblem(
            f"{len(nodes)} nodes of the cluster file have addresses of this host: {shared}",
            "give each node only its own addresses",
        )
    usable = [text for text in sorted(own) if not _is_local(text)]
    shown = ", ".join(usable[:8]) or "none"
    raise UsageProblem(
        f"no node of the cluster file has one of this host's addresses: {shown}",
        "write this host's address into the cluster file",
    )


class FileSource:
    """A cluster file on a node, as a source of peers. Only root may be able to change it and the folders above it."""

    def __init__(self, path: str = CLUSTER_FILE) -> None:
        """Use the file at `path`, without reading it yet."""
        self._path = path
        self._closed = threading.Event()
        self.confirmed_at = 0.0
        """See `Source`."""

    @property
    def title(self) -> str:
        """The source's name as people read it."""
        return f"file {self._path}"

    def list(self) -> Snapshot:
        """Return all nodes of the file. Raises SourceLost if it can't be read, UsageProblem if it is wrong."""
        contents = self._contents()
        return _snapshot(parse(text_of(contents, self._path), self._path), version_of(contents))

    def watch(self, version: str) -> Iterator[Snapshot]:
        """Yield all nodes whenever the content has changed and is valid. Raises SourceLost.

        The file is read each second: inotify would miss the replacement of a symbolic link in the path.
        """
        while not self._closed.wait(_LOOK_SECONDS):
            try:
                contents = self._contents()
                if version_of(contents) == version:
                    self.confirmed_at = time.time()
                    continue
                snapshot = _snapshot(parse(text_of(contents, self._path), self._path), version_of(contents))
            except UsageProblem as problem:
                raise SourceLost(problem.message, problem.hint) from None
            version = snapshot.version
            yield snapshot

    def close(self) -> None:
        """Make `watch` end within a second."""
        self._closed.set()

    def _contents(self) -> bytes:
        try:
            os.stat(self._path)
            fault = ownership.fault(self._path)
            if not fault:
                return read(self._path)
        except FileNotFoundError:
            raise SourceLost(
                f"{self._path} is missing", "`cnictl cluster apply` on the operator's machine copies it here"
            ) from None
        except OSError as error:
            raise SourceLost(f"{self._path}: {error.strerror}") from None
        raise UsageProblem(
            f"{self._path} is ignored, because users other than root can change it: {fault}",
            root_alone.to_root(self._path),
        )


def version_of(contents: bytes) -> str:
    """Return a digest of the file's content."""
    return hashlib.sha256(contents).hexdigest()


def _snapshot(cluster: Cluster, version: str) -> Snapshot:
    nodes = tuple(Announcement(node.name, node.pod_cidrs, node.addresses) for node in cluster.nodes)
    return Snapshot(nodes, version, cluster.networks)


def _document(text: str, path: str) -> dict[str, Any]:
    try:
        return toml_text.parse(text)
    except TOMLKitError as error:
        words, hint = toml_fault.explain(text, error)
        raise UsageProblem(f"{path}: {words}", hint) from None
    except (RecursionError, ValueError, OverflowError):  # thousands of nested brackets, a number of a megabyte
        raise UsageProblem(f"{path}: nested too deep, or has a number that is too long") from None


def _cluster(document: Mapping[str, Any]) -> Cluster:
    for key in document:
        if key not in _KEYS:
            raise _KeyFault(key, f"unknown key {_shown(key)}{_meant(key, _KEYS)}")
    for key in ("network", "nodes"):
        if key not in document:
            raise _KeyFault(key, f"{key!r} is missing")
    networks = _networks(document["network"])
    entries = document["nodes"]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _KeyFault("nodes", "'nodes' has to be a list of tables", 'nodes = [{ name = "node1", address = "…" }]')
    if not entries:
        raise _KeyFault("nodes", "'nodes' is empty: a cluster has at least one node")
    if len(entries) > MAX_FILE_NODES:
        raise _KeyFault("nodes", f"{len(entries)} nodes: a cluster file has at most {MAX_FILE_NODES:,}")
    nodes = tuple(_node(position, entry, networks) for position, entry in enumerate(entries))
    prefixes = _prefixes(document.get("node_prefix"), networks, nodes)
    _check_lengths(nodes, dict(zip((network.bits for network in networks), prefixes, strict=True)))
    _check_unique(nodes)
    return Cluster(tuple(map(str, networks)), prefixes, nodes)


def _networks(value: Any) -> tuple[Cidr, ...]:
    texts = _texts(value)
    if not texts:
        raise _KeyFault("network", f"network = {_shown(value)} has to be a CIDR in quotes, or a list of at most two")
    try:
        # check the networks as those of a node, with a subnet that certainly lies in them
        cidrs = [parse_cidr(text, "network") for text in texts]
        subnets = tuple(str(Cidr(cidr.packed, max(cidr.prefix, _DEFAULT_PREFIX[cidr.bits]))) for cidr in cidrs)
        spec = addressing.check(NodeSpec(subnets, texts))
    except (AddressError, UsageProblem) as error:
        raise _KeyFault("network", str(error), getattr(error, "hint", "")) from None
    return tuple(map(parse_cidr, spec.networks))


def _prefixes(value: Any, networks: tuple[Cidr, ...], nodes: tuple[ClusterNode, ...]) -> tuple[int, ...]:
    """Return the prefix length of pod CIDRs in each network; by default that of the first pod CIDR in the file."""
    if value is None:
        used: dict[int, int] = {}
        for cidr in (parse_cidr(text) for node in nodes for text in node.pod_cidrs):
            used.setdefault(cidr.bits, cidr.prefix)
        default = {bits: used.get(bits, prefix) for bits, prefix in _DEFAULT_PREFIX.items()}
        prefixes = [max(default[network.bits], network.prefix) for network in networks]
    else:
        prefixes = value if isinstance(value, list) else [value]
        if not all(type(prefix) is int for prefix in prefixes):
            raise _KeyFault("node_prefix", f"node_prefix = {_shown(value)} has to be a whole number such as 24")
        if len(prefixes) != len(networks):
            raise _KeyFault(
                "node_prefix",
                f"node_prefix = {_shown(value)} has to list one prefix length for each network, in the same order",
                f"node_prefix = {[_DEFAULT_PREFIX[network.bits] for network in networks]}",
            )
    for prefix, network in zip(prefixes, networks, strict=True):
        if not network.prefix <= prefix <= network.bits - 2:
            raise _KeyFault(
                "node_prefix",
                f"node_prefix {prefix} does not fit network {network}: use {network.prefix} to {network.bits - 2}",
            )
    return tuple(prefixes)


def _check_lengths(nodes: tuple[ClusterNode, ...], prefixes: Mapping[int, int]) -> None:
    """Refuse a pod CIDR whose length differs from the others', because nodes refuse such a peer. Raises _NodeFault."""
    for position, node in enumerate(nodes):
        for cidr in map(parse_cidr, node.pod_cidrs):
            if cidr.prefix != prefixes[cidr.bits]:
                raise _NodeFault(
                    position,
                    f"node {node.name}: pod_cidr {cidr} has to be a /{prefixes[cidr.bits]}, like those of all nodes",
                    "node_prefix at the top of the file sets another length for all",
                )


def _node(position: int, entry: Mapping[str, Any], networks: tuple[Cidr, ...]) -> ClusterNode:
    """Return a node, checked without regard to the others. Raises _NodeFault."""
    name = entry.get("name")
    if name is None:
        raise _NodeFault(position, "a node has no 'name'")
    if not isinstance(name, str) or not _NAME.match(name) or len(name) > _NAME_MAX:
        lower = name.lower() if isinstance(name, str) else ""
        hint = f"write {lower}" if lower and len(lower) <= _NAME_MAX and _NAME.match(lower) else ""
        raise _NodeFault(
            position,
            f"name {_shown(name)} is not a host name: lower-case letters, digits and '-', in parts joined by '.'",
            hint,
        )
    for key in entry:
        if key not in _NODE_KEYS:
            raise _NodeFault(position, f"node {name}: unknown key {_shown(key)}{_meant(key, _NODE_KEYS)}")
    ssh = entry.get("ssh", "")
    if "ssh" in entry and (not isinstance(ssh, str) or not _SSH.match(ssh)):
        raise _NodeFault(
            position,
            f"node {name}: ssh = {_shown(ssh)} is not a host or user@host",
            "a port, a key and a jump host belong in ~/.ssh/config",
        )
    try:
        return ClusterNode(name, _addresses(entry, networks), _pod_cidrs(entry, networks), ssh)
    except (AddressError, UsageProblem) as error:
        raise _NodeFault(position, f"node {name}: {error}", getattr(error, "hint", "")) from None


def _addresses(entry: Mapping[str, Any], networks: tuple[Cidr, ...]) -> tuple[str, ...]:
    if "address" in entry and "addresses" in entry:
        raise UsageProblem("'address' and 'addresses' exclude each other", "put all of them into 'addresses'")
    if "address" not in entry and "addresses" not in entry:
        raise UsageProblem("'address' is missing")
    value = entry.get("addresses", entry.get("address"))
    texts = _texts(value)
    if not texts:
        raise UsageProblem(f"address = {_shown(value)} has to be an address in quotes, or a list of them")
    addresses = []
    for text in texts:
        packed = host_address(text, "address")
        if is_link_local(packed):
            raise UsageProblem(f"address {text} is link-local: other nodes can't reach it without naming a link")
        for network in networks:
            if network.holds(packed):
                raise UsageProblem(f"address {text} lies in the pod network {network}; give the node's own address")
        addresses.append(format_address(packed))
    for network in networks:
        if not any(len(parse_address(address)) * 8 == network.bits for address in addresses):
            family = FAMILIES[network.bits]
            raise UsageProblem(f"an {family} address is missing, because network {network} is {family}")
    return tuple(dict.fromkeys(addresses))


def _pod_cidrs(entry: Mapping[str, Any], networks: tuple[Cidr, ...]) -> tuple[str, ...]:
    if "pod_cidr" not in entry:
        return ()
    texts = _texts(entry["pod_cidr"])
    if not texts:
        raise UsageProblem(f"pod_cidr = {_shown(entry['pod_cidr'])} has to be a CIDR in quotes, or a list of them")
    by_family: dict[int, Cidr] = {}
    around = {network.bits: network for network in networks}
    for text in texts:
        cidr = parse_pod_cidr(text, "pod_cidr")
        family = FAMILIES[cidr.bits]
        if cidr.bits not in around:
            raise UsageProblem(f"pod_cidr {cidr} is {family}, and there is no {family} network")
        if not around[cidr.bits].covers(cidr):
            meant = meant_network(cidr, around[cidr.bits])
            raise UsageProblem(f"pod_cidr {cidr} lies outside the pod network {around[cidr.bits]}{meant}")
        other = by_family.setdefault(cidr.bits, cidr)
        if other is not cidr:
            raise UsageProblem(f"pod_cidr {other} and {cidr} are both {family}: at most one of each family")
    return tuple(str(by_family[bits]) for bits in around if bits in by_family)


def _check_unique(nodes: tuple[ClusterNode, ...]) -> None:
    """Refuse two nodes with the same name, address or pod CIDR. Raises _NodeFault.

    All pod CIDRs of a family have the same length, so overlapping ones are equal.
    """
    names: dict[str, int] = {}
    addresses: dict[str, int] = {}
    pod_cidrs: dict[str, int] = {}
    logins: dict[str, int] = {}
    for position, node in enumerate(nodes):
        if names.setdefault(node.name, position) != position:
            raise _NodeFault(position, f"two nodes have the name {node.name}", "give each node its own name")
        if node.ssh and logins.setdefault(node.ssh, position) != position:
            raise _NodeFault(
                position, f"nodes {nodes[logins[node.ssh]].name} and {node.name} have the same ssh {node.ssh}"
            )
        for address in node.addresses:
            other = addresses.setdefault(address, position)
            if other != position:
                raise _NodeFault(position, f"nodes {nodes[other].name} and {node.name} have the same address {address}")
        for pod_cidr in node.pod_cidrs:
            other = pod_cidrs.setdefault(pod_cidr, position)
            if other != position:
                raise _NodeFault(
                    position,
                    f"nodes {nodes[other].name} and {node.name} have the same pod_cidr {pod_cidr}",
                    f"remove the pod_cidr of {node.name}: `cnictl cluster apply` assigns a free one",
                )


def _free(network: Cidr, prefix: int, taken: Container[str]) -> Iterator[str]:
    """Yield the free CIDRs of a network, the lowest first. Raises UsageProblem when none is left."""
    size = 1 << (network.bits - prefix)
    for first in range(network.first, network.last + 1, size):
        text = str(Cidr(first.to_bytes(len(network.packed), "big"), prefix))
        if text not in taken:
            yield text
    raise UsageProblem(
        f"no free /{prefix} is left in network {network}",
        "widen the network, or remove nodes that are gone from the file",
    )


def _is_local(text: str) -> bool:
    packed = parse_address(text)
    return is_link_local(packed) or packed[0] == 127 or text == "::1"


def _texts(value: Any) -> tuple[str, ...]:
    """Return a text, or a list of texts, as a tuple; empty if it is neither."""
    values = value if isinstance(value, list) else [value]
    return tuple(values) if all(isinstance(text, str) for text in values) else ()


def _meant(key: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(key, known, 1)
    return f"; did you mean {near[0]!r}?" if near else f"; the keys are {', '.join(known)}"


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:59]}…"
