"""Check the peers' pod CIDRs and addresses, each by itself and against this node's own.

Wrong values are usage errors that name the value and suggest a correction.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

from cnictl.core.cidr import (
    AddressError,
    Cidr,
    format_address,
    parse_address,
    parse_cidr,
    parse_interface,
    parse_pod_cidr,
)
from cnictl.core.errors import UsageProblem
from cnictl.node.spec import swapped
from cnictl.node.spec.node_spec import Peer
from cnictl.node.spec.overlaps import overlapping
from cnictl.node.spec.pod_names import address_in
from cnictl.node.spec.suggestions import meant_free, meant_network

FAMILIES = {32: "IPv4", 128: "IPv6"}
"""The address families by the number of bits in an address."""

LINK_NAME_MAX = 15
"""The most characters of a link's name (linux/if.h, IFNAMSIZ 16 with the NUL)."""

_NO_HOST = tuple(parse_cidr(text) for text in ("127.0.0.0/8", "224.0.0.0/3", "::1/128", "ff00::/8", "::ffff:0:0/96"))
"""Addresses that no host can have: loopback, multicast, class E and IPv4-mapped (RFC 1112, RFC 4291)."""
_SWAPPED = "the pod CIDR and the node's address are the wrong way round"


def parse_peer(text: str, usage: str = "--peer") -> Peer:
    """Return the peer that a command line names, CIDR=VIA or CIDR=VIA%LINK. Raises UsageProblem.

    `usage` is the text before the peer in a hint.
    """
    pod_cidr, equals, rest = text.partition("=")
    right = swapped.peer(pod_cidr, rest)
    if right is not None:
        raise UsageProblem(f"peer {text!r}: {_SWAPPED}", f"{usage} {as_option(right)}")
    via, percent, dev = rest.partition("%")
    if not equals or not pod_cidr or not via:
        raise UsageProblem(
            f"peer {text!r} is not CIDR=VIA[%LINK], such as 10.244.1.0/24=10.0.10.51 "
            "(the other node's pod CIDR and its own address)"
        )
    if percent and not dev:
        raise UsageProblem(f"peer {text!r} names no link after the '%'", f"{usage} {pod_cidr}={via}")
    return Peer(pod_cidr, via, dev)


def parse_peers(words: Sequence[str], link: str = "") -> tuple[Peer, ...]:
    """Return the peers that the arguments of `route add-peer` name, in canonical form. Raises UsageProblem.

    Each word is CIDR=VIA[%LINK]; two words without `=` are one peer's CIDR and VIA[%LINK]. `link` is the link of peers
    that name none.
    """
    if len(words) == 2 and not any("=" in word for word in words):
        words = ["=".join(words)]
    named = [parse_peer(word, "cnictl route add-peer") for word in words]
    if link and all(peer.dev for peer in named):
        raise UsageProblem(f"--dev {link} is for peers without a link, but each peer names its own")
    peers = [check_peer(replace(peer, dev=peer.dev or link)) for peer in named]
    for first, second in overlapping([parse_cidr(peer.pod_cidr) for peer in peers]):
        earlier, later = peers[first], peers[second]
        both = f"{as_option(earlier)} and {as_option(later)}"
        raise UsageProblem(
            f"two peers have the pod CIDR {earlier.pod_cidr}: {both}"
            if earlier.pod_cidr == later.pod_cidr
            else f"the pod CIDRs of two peers overlap: {both}",
            "each node needs its own pod CIDR: name one of the two",
        )
    return tuple(peers)


def as_option(peer: Peer) -> str:
    """Return a peer as the command line names it: CIDR=VIA or CIDR=VIA%LINK."""
    return f"{peer.pod_cidr}={place(peer)}"


def place(peer: Peer) -> str:
    """Return a peer's address as the command line names it: VIA or VIA%LINK."""
    return f"{peer.via}%{peer.dev}" if peer.dev else peer.via


@lru_cache(maxsize=1 << 16)  # a command checks its node's peers several times, and there may be thousands
def check_peer(peer: Peer) -> Peer:
    """Return a peer in canonical form, checked without regard to others. Raises UsageProblem."""
    right = swapped.peer(peer.pod_cidr, peer.via)
    if right is not None:
        words = f"peer {peer.pod_cidr} through {peer.via}: {_SWAPPED}"
        raise UsageProblem(words, f"pod CIDR {right.pod_cidr}, address {right.via}")
    try:
        cidr = parse_pod_cidr(peer.pod_cidr, "peer")
        via = host_address(peer.via, f"address of peer {cidr}")
    except AddressError as error:
        raise UsageProblem(str(error)) from None
    if len(via) * 8 != cidr.bits:
        raise UsageProblem(
            f"peer {cidr}: its address {peer.via} is {FAMILIES[len(via) * 8]}; "
            f"give the node's {FAMILIES[cidr.bits]} address"
        )
    if peer.dev:
        check_link_name(peer.dev, f"device of peer {cidr}")
    elif is_link_local(via):
        raise UsageProblem(
            f"peer {cidr}: {peer.via} is link-local and needs its link: {cidr}={peer.via}%LINK, such as {peer.via}%eth0"
        )
    return Peer(str(cidr), format_address(via), peer.dev)


def is_link_local(packed: bytes) -> bool:
    """Return whether an address is a link-local IPv6 address (RFC 4291, section 2.5.6)."""
    return len(packed) == 16 and packed[0] == 0xFE and packed[1] & 0xC0 == 0x80


def parse_pods(text: str) -> str:
    """Return a peer's pod CIDR in canonical form. Raises UsageProblem."""
    try:
        return str(parse_pod_cidr(text, "peer"))
    except AddressError as error:
        raise UsageProblem(str(error)) from None


def to_drop(text: str, peers: tuple[Peer, ...]) -> str:
    """Return the pod CIDR of the peer to drop. If `text` is a peer's address, UsageProblem has the right command."""
    packed = address_in(text)
    if not packed:
        return parse_pods(text)
    pod_cidrs = [peer.pod_cidr for peer in peers if parse_address(peer.via) == packed]
    if pod_cidrs:
        commands = "; ".join(f"cnictl route del-peer {pod_cidr}" for pod_cidr in pod_cidrs)
        raise UsageProblem(f"{text} is the address of the peer with pod CIDR {' and '.join(pod_cidrs)}", commands)
    listed = ", ".join(peer.pod_cidr for peer in peers) or "none"
    raise UsageProblem(
        f"{text} is an address, and no peer is reached through it", f"give one of the pod CIDRs: {listed}"
    )


@lru_cache(maxsize=8)
def check_peers(peers: tuple[Peer, ...], own: tuple[Cidr, ...], around: tuple[Cidr, ...]) -> tuple[Peer, ...]:
    """Return the peers in canonical form, checked against the node's subnets and networks. Raises UsageProblem."""
    subnets, networks = ({cidr.bits: cidr for cidr in cidrs} for cidrs in (own, around))
    checked: list[Peer] = []
    cidrs: list[Cidr] = []
    for peer in map(check_peer, peers):
        cidr = parse_cidr(peer.pod_cidr)
        if cidr.bits not in subnets:
            family = FAMILIES[cidr.bits]
            raise UsageProblem(
                f"peer {cidr} is {family}, and this node has no {family} subnet: add one with --subnet, or drop it"
            )
        subnet, network = subnets[cidr.bits], networks[cidr.bits]
        if cidr == subnet:
            raise UsageProblem(f"peer {cidr} is this node's own subnet; each node needs its own pod CIDR")
        if cidr.overlaps(subnet):
            raise UsageProblem(f"peer {cidr} overlaps this node's subnet {subnet}{meant_free(cidr, subnet, network)}")
        if not network.covers(cidr):
            raise UsageProblem(f"peer {cidr} lies outside the pod network {network}{meant_network(cidr, network)}")
        for pods, whose in ((subnet, "this node's pod CIDR"), (network, "the pod network")):
            if pods.holds(parse_address(peer.via)):
                raise UsageProblem(
                    f"peer {cidr}: its address {peer.via} lies in {whose} {pods}; give the node's own address"
                )
        checked.append(peer)
        cidrs.append(cidr)
    for first, second in overlapping(cidrs):
        raise _shared(checked[first], checked[second])
    return tuple(checked)


def _shared(first: Peer, second: Peer) -> UsageProblem:
    """Return the error for two peers whose pod CIDRs overlap."""
    if first.pod_cidr == second.pod_cidr:
        return UsageProblem(f"peer {second.pod_cidr} is given twice, through {first.via} and {second.via}")
    return UsageProblem(
        f"peer {second.pod_cidr} overlaps peer {first.pod_cidr}, which is through {first.via}: "
        "each node needs its own pod CIDR, so name one of them"
    )


def check_not_ours(peers: tuple[Peer, ...], own: dict[str, str]) -> None:
    """Refuse a peer whose address this host has, or no host on its links can have. Raises UsageProblem.

    `own` maps this host's ADDRESS/PREFIX to links.
    """
    faults: dict[bytes, str] = {}
    for text, link in own.items():
        for address, fault in _no_neighbours(parse_interface(text)):
            faults.setdefault(address, f"{fault} (on {link})")
    for peer in peers:
        fault = faults.get(parse_address(peer.via), "")
        if fault:
            raise UsageProblem(f"peer {peer.pod_cidr}: {peer.via} is {fault}; give the address of the other node")


def _no_neighbours(interface: Cidr) -> Iterator[tuple[bytes, str]]:
    """Yield the addresses that can't be another host's on this interface, and in words why."""
    yield interface.packed, "this host's own address"
    if interface.bits == 32 and interface.prefix <= 30:  # RFC 3021: a /31 has only two hosts' addresses
        yield interface.nth(0), f"the network address of {interface.network}"
        yield interface.nth(interface.last - interface.first), f"the broadcast address of {interface.network}"


def host_address(text: str, subject: str) -> bytes:
    """Return a text as an address that a host can have. Raises UsageProblem, AddressError."""
    if "/" in text:
        raise UsageProblem(f"{subject} {text!r} has a prefix length; did you mean {text.partition('/')[0]}?")
    packed = parse_address(text, subject)
    if not any(packed) or any(block.holds(packed) for block in _NO_HOST):
        raise UsageProblem(f"{subject} {text!r} is not an address that a host can have")
    return packed


def check_link_name(name: str, subject: str) -> None:
    """Refuse what the kernel would refuse as a link's name (net/core/dev.c, dev_valid_name)."""
    if not name or name in (".", "..") or any(letter in "/:" or letter.isspace() for letter in name):
        raise UsageProblem(f"{subject} {name!r} is not a link name: it must not be empty or contain '/', ':' or space")
    if len(name.encode()) > LINK_NAME_MAX:
        raise UsageProblem(
            f"{subject} {name!r} has {len(name.encode())} characters; a link's name has at most {LINK_NAME_MAX}: "
            f"{name[:LINK_NAME_MAX]!r}?"
        )
    if not name.isascii() or '"' in name or "\\" in name or "%" in name:
        raise UsageProblem(f"{subject} {name!r} can't be matched by firewall rules: use letters, digits, '-', '_'")
