"""Find the two ends of `cnictl ping` by name: this host, pods, peers, addresses, DNS names."""

import difflib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cnictl.core import attachments
from cnictl.core.attachments import Record
from cnictl.core.cidr import AddressError, format_address, parse_address, parse_cidr
from cnictl.core.errors import Problem, UsageProblem
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Netlink
from cnictl.node.host import route_lookup
from cnictl.node.host.route_lookup import Packet
from cnictl.node.spec import pod_names
from cnictl.node.spec.node_spec import NodeSpec, by_family, is_ipv6, of_family
from cnictl.node.spec.peers import is_link_local
from cnictl.node.state import learned_peers
from cnictl.probe import existing, one_host, resolvers
from cnictl.probe.host import Host
from cnictl.probe.netns_thread import inside
from cnictl.probe.place import Place, as_target, parse_place, without_port
from cnictl.probe.pods import CheckedPod
from cnictl.probe.ports import UDP
from cnictl.probe.resolvers import NotResolved, Resolved
from cnictl.probe.targets import DEFAULT_EXTERNALS, external_address, own_address

HOST, POD, EXTERNAL = "host", "pod", "external"
"""The words for this host, for a new probe pod, and for an address outside the cluster."""
PEER, ADDRESS, DNS_NAME, NAMESPACE = "peer", "address", "name", "namespace"
_CLOSE = 0.6
_SOURCES = "FROM is host, pod, a pod of this node (cnictl pod list), or the path of a network namespace"
_AN_ADDRESS = "name a pod of another node by its address"


@dataclass(frozen=True)
class Origin:
    """Where requests come from."""

    name: str
    kind: str
    """HOST, POD or NAMESPACE."""
    pod: CheckedPod
    """Its namespace (empty for this host) and addresses (none for this host)."""

    @property
    def is_host(self) -> bool:
        """Whether requests come from this host itself."""
        return self.kind == HOST

    def source(self, to: str, link: str = "") -> str:
        """Return the source address of requests to an address, through `link` if given; empty if there is none."""
        if self.kind == POD and not link:
            return of_family(self.pod.addresses, to)
        return inside(self.pod.netns, lambda: route_lookup.source_to(to, link))

    def has_family(self, ipv6: bool) -> bool:
        """Return whether requests of a family can be sent from here."""
        return self.is_host or any(is_ipv6(address) == ipv6 for address in self.pod.addresses)


@dataclass(frozen=True)
class Target:
    """Where requests go."""

    name: str
    """The name as it was given, without the port."""
    kind: str
    """HOST, POD, EXTERNAL, PEER, ADDRESS or DNS_NAME."""
    address: str
    place: Place
    scope: str = ""
    """The link of a link-local address."""
    resolved: Resolved | None = None
    """How a DNS name was resolved."""
    pod: CheckedPod | None = None
    """The pod of this node that has the address."""


@dataclass(frozen=True)
class Names:
    """What can be named on this host."""

    spec: NodeSpec | None
    """None on a host that is not set up as a node."""
    peers: dict[str, tuple[str, ...]]
    """Addresses by the name of a peer."""
    pods: tuple[str, ...]
    """The pods of this node: `namespace/name`, or the container id of one without a name."""

    @property
    def pod_cidrs(self) -> tuple[str, ...]:
        """The pod CIDRs of this node and its peers."""
        return (*self.spec.subnets, *(peer.pod_cidr for peer in self.spec.known_peers)) if self.spec else ()

    def similar_names(self, text: str, only_sources: bool = False) -> list[str]:
        """Return the known names that `text` probably means, the closest first. `only_sources`: those FROM can have."""
        short = [pod.rpartition("/")[2] for pod in self.pods if "/" in pod]
        targets = () if only_sources else (*self.peers, EXTERNAL)
        known = dict.fromkeys([*self.pods, *short, *targets, HOST, POD])
        return difflib.get_close_matches(text, known, 3, _CLOSE)


def names(spec: NodeSpec | None) -> Names:
    """Return the names of this host's pods and of the peers that its source knows."""
    learned = learned_peers.load() if spec is not None and spec.reach.source else None
    peers: dict[str, tuple[str, ...]] = {}
    for row in learned.nodes if learned is not None else ():
        if row.get("name") and row.get("address"):
            peers[row["name"]] = (*peers.get(row["name"], ()), row["address"])
    pods = dict.fromkeys(record.pod or record.container for record in attachments.every_record())
    return Names(spec, peers, tuple(pods))


def origin(text: str, known: Names, probe: CheckedPod | None = None) -> Origin:
    """Return the origin that FROM names; `probe` is the pod that was made for it. Raises Problem."""
    if text == HOST:
        return Origin("this host", HOST, CheckedPod("this host", "", ()))
    if probe is not None:
        return Origin(f"probe pod {probe.name}", POD, probe)
    if text.startswith("/"):
        return Origin(text, NAMESPACE, _namespace(text))
    if existing.known_as(text):
        pod = existing.existing_pod(text)
        return Origin(pod.name, POD, pod)
    _refuse_target_as_source(text, known)
    like = known.similar_names(text, only_sources=True)
    raise Problem(f"no pod of this node is called {text!r}", _suggestion(like, "FROM may also be host or pod"))


def target(
    text: str, known: Names, source: Origin, ipv6: bool | None = None, probe: CheckedPod | None = None
) -> Target:
    """Return the target that TO names. `ipv6` requires a family; `probe` is the pod that was made for it.

    DNS names are resolved as `source` resolves them. Raises UsageProblem, Problem.
    """
    place = parse_place(text)
    name = place.name
    if probe is not None:
        return Target(name, POD, _choose(name, probe.addresses, source, ipv6), place, pod=probe)
    if name in (HOST, EXTERNAL):
        return Target(name, name, _choose(name, _well_known(name, known.spec, source), source, ipv6), place)
    address, _, scope = name.partition("%")
    if packed := pod_names.address_in(address):
        plain = format_address(packed)
        one_host.refuse_group(plain, known.pod_cidrs, _is_broadcast(plain, source))
        chosen = _choose(name, (plain,), source, ipv6)
        return Target(name, ADDRESS, chosen, place, _scope(chosen, scope), pod=_pod_at(chosen))
    _refuse_broken_address(name)
    by_name = existing.known_as(name)
    if by_name and name in known.peers:
        pods = ", ".join(f"pod {record.pod or record.container} at {' '.join(record.addresses)}" for record in by_name)
        peer = f"peer {name} at {' '.join(known.peers[name])}"
        raise Problem(
            f"{name}: a pod and a peer have this name: {pods}; {peer}", _pod_or_peer(by_name, known.peers[name])
        )
    if by_name:
        pod = existing.existing_pod(name)
        return Target(pod.name, POD, _choose(name, pod.addresses, source, ipv6), place, pod=pod)
    if name in known.peers:
        return Target(name, PEER, _choose(name, known.peers[name], source, ipv6), place)
    resolved = _resolve(name, known, source, ipv6)
    chosen = _choose(name, resolved.addresses, source, ipv6)
    one_host.refuse_group(chosen, known.pod_cidrs)
    return Target(name, DNS_NAME, chosen, place, resolved=resolved, pod=_pod_at(chosen))


def _namespace(path: str) -> CheckedPod:
    """Return a network namespace as a pod, with its addresses. Raises CniError if there is none at the path."""

    def read_addresses() -> list[str]:
        with Netlink() as netlink:
            return [
                format_address(packed)
                for link in rtnetlink.all_links(netlink)
                for family in (rtnetlink.AF_INET, rtnetlink.AF_INET6)
                for packed, _ in rtnetlink.addresses(netlink, link.index, family)
                if link.name != "lo" and not is_link_local(packed)
            ]

    if not os.path.exists(path):
        raise Problem(f"{path}: there is no network namespace", "ip netns list")
    return CheckedPod(path, path, tuple(sorted(inside(path, read_addresses), key=is_ipv6)))


def _well_known(name: str, spec: NodeSpec | None, source: Origin) -> Sequence[str]:
    """Return the addresses of this host, or those outside the cluster."""
    if spec is None and name == EXTERNAL:
        return DEFAULT_EXTERNALS
    if spec is None:
        own = [route_lookup.source_to(outside) for outside in DEFAULT_EXTERNALS]
        return [address for address in own if address]
    parts = by_family(spec)
    if name == EXTERNAL:
        declared = [external_address(part) for part in parts]
        return [*declared, *(other for other in DEFAULT_EXTERNALS if source.is_host and not of_family(declared, other))]
    return [own_address(part, Host(part, spec), external_address(part)) for part in parts]


def _pod_or_peer(pods: Sequence[Record], peer: Sequence[str]) -> str:
    return f"name the pod {existing.one_of(pods)}, or the peer {peer[0]}"


def _choose(name: str, addresses: Sequence[str], source: Origin, ipv6: bool | None) -> str:
    """Return the first address whose family `source` can send from. Raises Problem if there is none."""
    wanted = [address for address in addresses if ipv6 is None or is_ipv6(address) == ipv6]
    if not wanted:
        family = "IPv6" if ipv6 else "IPv4"
        raise Problem(f"{name} has no {family + ' ' if ipv6 is not None else ''}address",
                      f"its addresses: {' '.join(addresses)}" if addresses else "")  # fmt: skip
    possible = [address for address in wanted if source.has_family(is_ipv6(address))]
    if not possible:
        family = "IPv6" if is_ipv6(wanted[0]) else "IPv4"
        own = " ".join(source.pod.addresses) or "none"
        raise Problem(f"{source.name} has no {family} address to reach {wanted[0]} from", f"its addresses: {own}")
    return possible[0]


def _scope(address: str, scope: str) -> str:
    if is_link_local(parse_address(address)) and is_ipv6(address) and not scope:
        raise UsageProblem(f"{address} is link-local: name the link too, such as {address}%eth0")
    return scope


def _pod_at(address: str) -> CheckedPod | None:
    """Return the live pod of this node that has an address."""
    try:
        return existing.existing_pod(address)
    except Problem:
        return None


def _refuse_broken_address(name: str) -> None:
    """Raise UsageProblem for a text that looks like an address but is not valid."""
    if ":" in name or not name.strip("0123456789./"):
        try:
            parse_address(name)
        except AddressError as error:
            raise UsageProblem(str(error)) from None


def _resolve(name: str, known: Names, source: Origin, ipv6: bool | None) -> Resolved:
    # the family of the wanted address; the DNS server may have another one
    families = [ipv6] if ipv6 is not None else [six for six in (False, True) if source.has_family(six)]
    families = families or [False, True]
    resolver = resolvers.resolver_of(source.pod.netns)
    if meant := without_port(name):
        raise UsageProblem(f"{name!r}: a port is missing: {meant}")
    if "/" in name:
        raise Problem(f"no pod of this node is called {name!r}", _suggestion(known.similar_names(name), _AN_ADDRESS))
    try:
        return resolvers.resolve(name, resolver, families)
    except NotResolved as failed:
        if failed.others:
            _choose(name, failed.others, source, ipv6)  # raises: it has none of the families
        message = f"{name!r} is not a pod of this node or a peer, and can't be resolved as a DNS name: {failed.message}"
        if failed.silent and not known.similar_names(name):
            asking = _typed(source) if resolver.netns else HOST
            to = as_target(failed.silent[0], 53, UDP)
            raise Problem(message, f"cnictl ping {asking} {to} shows why") from None
        raise Problem(message, _suggestion(known.similar_names(name), _AN_ADDRESS)) from None


def _refuse_target_as_source(text: str, known: Names) -> None:
    """Raise UsageProblem for a word or address that can only be TO."""
    packed = pod_names.address_in(text)
    address = format_address(packed) if packed else ""
    peers = known.spec.known_peers if known.spec is not None else ()
    if text == EXTERNAL:
        raise UsageProblem("external can only be TO: cnictl sends from this node", _SOURCES)
    if text in known.peers or address in (
        *(peer.via for peer in peers),
        *(a for listed in known.peers.values() for a in listed),
    ):
        raise UsageProblem(f"{text} is a peer, which can only be TO: cnictl sends from this node", _SOURCES)
    if packed and route_lookup.look_up(Packet(address)).kind == route_lookup.LOCAL:
        raise UsageProblem(f"{text} is an address of this host: write host", _SOURCES)
    via = next((peer.via for peer in peers if packed and parse_cidr(peer.pod_cidr).holds(packed)), "")
    if via:
        raise UsageProblem(f"{text} is an address of the pods of peer {via}: run the command there", _SOURCES)
    if packed:
        raise UsageProblem(f"no pod of this node has the address {text}", _SOURCES)


def _is_broadcast(address: str, source: Origin) -> bool:
    """Return whether an address is the broadcast address of a link of the sender."""
    kind = inside(source.pod.netns, lambda: route_lookup.look_up(Packet(address), entries=False).kind)
    return kind == route_lookup.BROADCAST


def _typed(source: Origin) -> str:
    """Return the word or address to give for an origin."""
    return HOST if source.is_host else next(iter(source.pod.addresses), source.name)


def _suggestion(like: Sequence[str], others: str) -> str:
    """Return the hint for a name that is not known: the known names that are like it, else `others`."""
    if like:
        return f"did you mean {_alternatives(like)}?"
    return f"cnictl pod list shows the pods of this node; {others}"


def _alternatives(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last
