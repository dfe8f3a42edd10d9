"""Decide which announced nodes become peers. A source is not trusted: a wrong or hostile announcement changes nothing.

All functions are pure; `Host` describes the host. `cnictl node list` shows the reason of each refusal.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from cnictl.core import untrusted_text
from cnictl.core.cidr import AddressError, Cidr, format_address, parse_address, parse_cidr, parse_pod_cidr
from cnictl.core.errors import UsageProblem
from cnictl.node.reach.source import Announcement, Snapshot
from cnictl.node.spec.node_spec import NodeSpec, Peer
from cnictl.node.spec.overlaps import CidrIndex
from cnictl.node.spec.peers import FAMILIES, host_address, is_link_local

ROUTED, PENDING, REFUSED, SELF, CONFLICT = "routed", "pending", "refused", "this node", "conflict"
ABSENT = "absent"
"""States of an announced node, per address family."""

MAX_JUDGED_NODES = 8192
"""The most nodes of a snapshot that are judged. Each accepted one needs a route and an entry in the firewall."""

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?\Z")


Entry = tuple[str, str, str]
"""Name, pod CIDR and address of a node that was accepted."""


@dataclass(frozen=True)
class Host:
    """The properties of this host that decide about peers."""

    own: Mapping[str, str]
    """This host's addresses, and the link of each."""
    gateways: frozenset[str]
    """The default gateways' addresses."""
    connected: tuple[Cidr, ...]
    """The networks that this host has a route to without a gateway, other than over the pods' bridge."""
    off_link: Mapping[str, str]
    """Announced addresses that are not on a link of this host, each with the reason in words."""


@dataclass(frozen=True)
class JudgedNode:
    """One announced node in one address family, and the decision about it."""

    name: str
    pod_cidr: str
    """The node's pod CIDR; empty if it has none."""
    address: str
    state: str
    why: str = ""
    """The reason in words; empty for most nodes that are `ROUTED`."""
    is_static: bool = False
    """Whether the node file has a peer with this pod CIDR; then that static peer is in effect."""


@dataclass(frozen=True)
class Judgement:
    """The decisions about all nodes of a snapshot."""

    nodes: tuple[JudgedNode, ...]
    conflict: str = ""
    """The conflict in words, if the source assigns this node a different pod CIDR, or its pod CIDR to another node."""
    is_listed: bool = False
    """Whether the source announces this node."""

    @property
    def peers(self) -> tuple[Peer, ...]:
        """The accepted peers."""
        return tuple(
            Peer(node.pod_cidr, node.address) for node in self.nodes if node.state == ROUTED and not node.is_static
        )


def judge(snapshot: Snapshot, spec: NodeSpec, host: Host, known: Iterable[Entry] = ()) -> Judgement:
    """Decide about each announced node. Static peers win over announced ones.

    A node that is announced as it is `known` wins over one that claims its pod CIDR or its address. A node whose new
    announcement is refused stays as it is known.
    """
    return _Judge(spec, host, snapshot.nodes[:MAX_JUDGED_NODES], known).judgement(snapshot)


def is_own(announced: Announcement, spec: NodeSpec, own: Iterable[str]) -> bool:
    """Return whether an announcement is this node's own: it has the configured name, else one of its addresses."""
    if spec.reach.node:
        return announced.name == spec.reach.node
    return not {_canonical(address) for address in announced.addresses}.isdisjoint(own)


class _Judge:
    """Judges announcements in order. If two exclude each other, the earlier one wins."""

    def __init__(
        self, spec: NodeSpec, host: Host, nodes: tuple[Announcement, ...], known: Iterable[Entry] = ()
    ) -> None:
        self._spec, self._host, self._nodes = spec, host, nodes
        self._known: dict[str, list[tuple[str, str]]] = {}
        """Pod CIDR and address of each accepted entry, by name."""
        for name, pod_cidr, address in known:
            self._known.setdefault(name, []).append((pod_cidr, address))
        self._subnets = {cidr.bits: cidr for cidr in map(parse_cidr, spec.subnets)}
        self._networks = {cidr.bits: cidr for cidr in map(parse_cidr, spec.networks)}
        self._static = {peer.pod_cidr: peer for peer in spec.peers}
        self._static_index = CidrIndex(map(parse_cidr, self._static))
        self._narrower = [
            cidr for cidr in map(parse_cidr, self._static) if cidr.prefix > self._subnets[cidr.bits].prefix
        ]
        self._taken: dict[str, str] = {}
        """The node of each accepted pod CIDR. All pod CIDRs of an address family have the same prefix length."""
        self._addresses: dict[str, str] = {}
        self._names: set[str] = set()
        self._conflicts: list[str] = []

    def judgement(self, snapshot: Snapshot) -> Judgement:
        own = [node for node in self._nodes if is_own(node, self._spec, self._host.own)]
        judged: list[JudgedNode] = []
        for node in own:
            judged += self._judge_own(node)
        if not own:
            why = "the source does not list this node, so nodes that use it have no route to the pods here"
            judged.append(JudgedNode(_shown(self._spec.reach.node), ", ".join(self._spec.subnets), "", ABSENT, why))
        others = [node for node in self._nodes if node not in own]
        order = sorted(range(len(others)), key=lambda at: self._is_new(others[at]))
        rows = {at: self._judge_node(others[at]) for at in order}
        by_name: dict[str, list[JudgedNode]] = {}
        for at, node in enumerate(others):
            judged += rows[at]
            by_name.setdefault(node.name, []).extend(rows[at])
        for name in self._known:
            judged += self._kept(name, by_name.get(name, ()))
        if len(snapshot.nodes) > MAX_JUDGED_NODES:
            why = f"{len(snapshot.nodes)} nodes are announced, but at most {MAX_JUDGED_NODES} are used"
            judged.append(JudgedNode("", "", "", REFUSED, why))
        return Judgement(tuple(judged), "; ".join(self._conflicts), bool(own))

    def _judge_own(self, node: Announcement) -> list[JudgedNode]:
        """Judge this node's own announcement. Another pod CIDR than the node's is a conflict, and changes nothing."""
        name = _shown(node.name)
        mine = list(self._spec.subnets)
        theirs = [_canonical_cidr(text) for text in node.pod_cidrs]
        if theirs and set(theirs) != set(mine) and not set(mine) <= set(theirs):
            given, have = ", ".join(theirs), ", ".join(mine)
            why = f"the source gives this node {given}, but its pods have addresses of {have}"
            self._conflicts.append(why)
            return [JudgedNode(name, given, _first(node.addresses), CONFLICT, why)]
        return [JudgedNode(name, ", ".join(theirs) or ", ".join(mine), _first(node.addresses), SELF)]

    def _is_new(self, node: Announcement) -> bool:
        """Return whether a node was not accepted before as it is announced now."""
        addresses = set(map(_canonical, node.addresses))
        known = self._known.get(node.name, ())
        return not any(pod_cidr in node.pod_cidrs and address in addresses for pod_cidr, address in known)

    def _kept(self, name: str, rows: Iterable[JudgedNode]) -> Iterator[JudgedNode]:
        """Yield the known entry of a node in each family in which its new announcement is refused."""
        refused = {row.why for row in rows if row.state == REFUSED}
        routed = {parse_cidr(row.pod_cidr).bits for row in rows if row.state == ROUTED}
        for pod_cidr, address in self._known.get(name, ()) if refused else ():
            cidr = parse_cidr(pod_cidr)
            subnet = self._subnets.get(cidr.bits)
            fits = subnet is not None and not cidr.overlaps(subnet) and cidr.bits not in routed
            if fits and pod_cidr not in self._static and not self._refusal(name, cidr, address):
                self._taken[pod_cidr] = self._addresses[address] = name
                routed.add(cidr.bits)
                why = f"as before, because its new entry is refused: {'; '.join(sorted(refused))}"
                yield JudgedNode(_shown(name), pod_cidr, address, ROUTED, why)

    def _judge_node(self, node: Announcement) -> list[JudgedNode]:
        name = _shown(node.name)
        if not _NAME.match(node.name):
            return [JudgedNode(name, "", "", REFUSED, "its name is not a host name")]
        if node.name in self._names:
            return [JudgedNode(name, "", "", REFUSED, "another announced node has the same name")]
        self._names.add(node.name)
        if not node.pod_cidrs:
            return [JudgedNode(name, "", _first(node.addresses), PENDING, "it has no pod CIDR yet")]
        judged = []
        families = set()
        for text in node.pod_cidrs[:4]:
            pod_cidr = untrusted_text.line(text[:64])
            try:
                cidr = parse_pod_cidr(text, "pod CIDR")
            except AddressError as error:
                judged.append(JudgedNode(name, pod_cidr, "", REFUSED, untrusted_text.line(str(error))[:200]))
                continue
            families.add(cidr.bits)
            if cidr.bits not in self._subnets:
                continue  # this node has no pods of that family
            address = _of_family(node.addresses, cidr.bits)
            why = self._refusal(node.name, cidr, address)
            if why:
                judged.append(JudgedNode(name, str(cidr), address, REFUSED, why))
                continue
            self._taken[str(cidr)] = self._addresses[address] = node.name
            static = self._static.get(str(cidr))
            why = f"node.toml has it via {static.via}" if static is not None and static.via != address else ""
            judged.append(JudgedNode(name, str(cidr), address, ROUTED, why, static is not None))
        for bits in self._subnets if families else ():
            if bits not in families:
                why = f"it has no {FAMILIES[bits]} pod CIDR yet"
                judged.append(JudgedNode(name, "", _of_family(node.addresses, bits), PENDING, why))
        return judged

    def _refusal(self, name: str, cidr: Cidr, address: str) -> str:
        return self._cidr_refusal(name, cidr) or self._address_refusal(name, cidr, address)

    def _cidr_refusal(self, name: str, cidr: Cidr) -> str:
        subnet, network = self._subnets[cidr.bits], self._networks[cidr.bits]
        if cidr == subnet:
            if not self._conflicts:  # one conflict is enough
                self._conflicts.append(f"the source assigns this node's pod CIDR {cidr} to node {name} as well")
            return f"{cidr} is this node's own pod CIDR"
        if cidr.overlaps(subnet):
            return f"it overlaps this node's pod CIDR {subnet}"
        if not network.covers(cidr):
            return f"it lies outside the pod network {network}"
        if cidr.prefix != subnet.prefix:
            return f"its prefix length is {cidr.prefix}, but that of this node's pod CIDR is {subnet.prefix}"
        if str(cidr) in self._taken:
            return f"node {self._taken[str(cidr)]} already has this pod CIDR"
        inner = [static for static in self._narrower if static.bits == cidr.bits and cidr.covers(static)]
        for static in (*self._static_index.covering(cidr), *inner):
            if static != cidr:
                return f"it overlaps the static peer {static}"
        for connected in self._host.connected:
            if connected.bits == cidr.bits and cidr.covers(connected):
                return f"it overlaps {connected}, which is on a link of this node"
        return ""

    def _address_refusal(self, name: str, cidr: Cidr, address: str) -> str:
        if not address:
            return f"it has no {FAMILIES[cidr.bits]} address"
        try:
            packed = host_address(address, "address")
        except (UsageProblem, AddressError):
            return f"{address} is not an address that a host can have"
        if is_link_local(packed):
            return f"{address} is link-local, and a source does not name its link"
        for pods in (*self._subnets.values(), *self._networks.values()):
            if pods.bits == len(packed) * 8 and pods.holds(packed):
                return f"its address {address} lies in the pod network"
        if address in self._host.own:
            return f"{address} is this node's own address"
        if address in self._host.gateways:
            return f"{address} is this node's default gateway"
        if self._addresses.get(address, name) != name:
            return f"{address} is the address of node {self._addresses[address]}"
        return self._host.off_link.get(address, "")


def addresses_of(snapshot: Snapshot) -> list[str]:
    """Return the announced addresses in canonical form; malformed ones are left out."""
    texts = (address for node in snapshot.nodes[:MAX_JUDGED_NODES] for address in node.addresses[:8])
    return list(dict.fromkeys(address for address in map(_canonical, texts) if address))


def _canonical(text: str) -> str:
    try:
        return format_address(parse_address(text))
    except AddressError:
        return ""


def _canonical_cidr(text: str) -> str:
    try:
        return str(parse_cidr(text))
    except AddressError:
        return untrusted_text.line(text[:64])


def _bits(address: str) -> int:
    return len(parse_address(address)) * 8 if address else 0


def _first(addresses: tuple[str, ...]) -> str:
    return next(filter(None, map(_canonical, addresses)), "")


def _of_family(addresses: tuple[str, ...], bits: int) -> str:
    return next((address for address in map(_canonical, addresses) if _bits(address) == bits), "")


def _shown(name: str) -> str:
    return untrusted_text.line(name[:253])
