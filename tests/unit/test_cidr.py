"""Parse addresses strictly: each refusal names the value and, if there is one, the correction."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnictl.core.cidr import (
    AddressError,
    Cidr,
    format_address,
    parse_address,
    parse_cidr,
    parse_interface,
    parse_pod_cidr,
    unmapped,
)


@pytest.mark.parametrize(
    ("text", "packed"),
    [
        ("10.244.0.1", b"\x0a\xf4\x00\x01"),
        ("0.0.0.0", bytes(4)),
        ("255.255.255.255", b"\xff" * 4),
        ("::", bytes(16)),
        ("fd00::1", b"\xfd" + bytes(14) + b"\x01"),
        ("::ffff:10.0.0.1", bytes(10) + b"\xff\xff\x0a\x00\x00\x01"),
    ],
)
def test_addresses_are_bytes_in_network_order(text: str, packed: bytes) -> None:
    assert parse_address(text) == packed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("10.244.0", "has 3 parts"),
        ("10", "has 1 part,"),
        ("10.244.0.0.1", "has 5 parts"),
        ("10.244.0.256", "octet 256 is over 255"),
        ("10.244.0.99999999999999999999", "is over 255"),
        ("10.244.0.x", "octet 'x' is not a number"),
        (f"10.244.0.{'9' * 5000}", "is over 255"),
        (f"10.244.0.{'0' * 5000}", "has a leading zero, write 0"),
        ("10.244..1", "octet '' is not a number"),
        ("10.244.0.-1", "octet '-1' is not a number"),
        ("10.244.0.01", "has a leading zero, write 1"),
        ("010.244.0.1", "has a leading zero, write 10"),
        (" 10.244.0.1", "octet ' 10' is not a number"),
        ("10.244.0.1\n", "is not a number"),
        ("10.244.0.1\0", "is not a number"),
        ("10.244.0.\u0661", "is not a number"),
        ("0x0a.244.0.1", "is not a number"),
        ("fd00::1::2", "is not an IPv6 address"),
        ("fe80::1%eth0", "is not an IPv6 address"),
        ("\ud800", "has 1 part,"),
    ],
)
def test_a_malformed_address_is_named_with_its_error(text: str, said: str) -> None:
    with pytest.raises(AddressError) as refused:
        parse_address(text, "peer")
    assert said in str(refused.value)
    assert str(refused.value).startswith(f"peer {text!r}"[:40])
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize("value", [None, 5, b"10.0.0.1", ["10.0.0.1"]])
def test_value_that_is_not_text_is_refused_without_a_crash(value: object) -> None:
    with pytest.raises(AddressError):
        parse_address(value)  # type: ignore[arg-type]
    with pytest.raises(AddressError):
        parse_interface(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("10.244.0.5/24", "has host bits set; did you mean 10.244.0.0/24"),
        ("10.244.1.0/20", "has host bits set; did you mean 10.244.0.0/20"),
        ("fd00::1/64", "has host bits set; did you mean fd00::/64"),
        ("10.244.0.0", "has no prefix length; did you mean 10.244.0.0/24"),
        ("fd00::", "has no prefix length; did you mean fd00::/64"),
        ("10.244.0.0/33", "prefix length '33' is not a number from 0 to 32"),
        ("10.244.0.0/-1", "prefix length '-1'"),
        ("10.244.0.0/", "prefix length ''"),
        (f"10.244.0.0/{'9' * 5000}", "is not a number from 0 to 32"),
        ("10.244.0.0/024", "prefix length '024'"),
        ("10.244.0.0/24/24", "prefix length '24/24'"),
        ("10.244.0.0/255.255.255.0", "prefix length '255.255.255.0'"),
        ("10.244.0.0/2\uff14", "prefix length"),
        ("fd00::/129", "prefix length '129' is not a number from 0 to 128"),
        ("10.244.0/24", "has 3 parts"),
    ],
)
def test_a_malformed_subnet_is_named_with_a_suggestion(text: str, said: str) -> None:
    with pytest.raises(AddressError, match="subnet") as refused:
        parse_cidr(text)
    assert said in str(refused.value)


@pytest.mark.parametrize(("text", "longest"), [("10.244.0.0/31", 30), ("10.244.0.1/32", 30), ("fd00::/127", 126)])
def test_a_pod_cidr_needs_room_for_gateway_and_pod(text: str, longest: int) -> None:
    with pytest.raises(AddressError, match=f"no room for a gateway and a pod, the longest usable prefix is /{longest}"):
        parse_pod_cidr(text)
    assert parse_cidr(text)


def test_an_interface_address_keeps_its_host_bits() -> None:
    gateway = parse_interface("10.244.0.1/24")
    assert (gateway.address, gateway.prefix, str(gateway.network)) == ("10.244.0.1", 24, "10.244.0.0/24")
    assert format_address(gateway.nth(255)) == "10.244.0.255"


def test_covers_and_overlaps() -> None:
    network, ours, peer = (parse_cidr(text) for text in ("10.244.0.0/20", "10.244.0.0/24", "10.244.1.0/24"))
    assert network.covers(ours) and network.covers(peer) and network.covers(network)
    assert not ours.covers(network) and not ours.covers(peer)
    assert ours.overlaps(network) and network.overlaps(ours) and not ours.overlaps(peer)
    assert not parse_cidr("::/0").covers(ours)
    assert ours == Cidr(ours.packed, 24) and hash(ours) == hash(Cidr(ours.packed, 24)) and ours != "10.244.0.0/24"


@given(st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_every_ipv4_subnet_agrees_with_ipaddress(value: int, prefix: int) -> None:
    reference = ipaddress.ip_interface((value, prefix))
    ours = parse_interface(str(reference))
    assert str(ours) == str(reference)
    assert str(ours.network) == str(reference.network)
    assert (ours.first, ours.last) == (
        int(reference.network.network_address),
        int(reference.network.broadcast_address),
    )


@given(st.text(max_size=20))
def test_text_that_ipaddress_refuses_is_refused(text: str) -> None:
    try:
        packed = parse_address(text)
    except AddressError:
        return
    assert ipaddress.ip_address(text).packed == packed


@given(st.binary(min_size=16, max_size=16))
def test_ipv6_text_is_canonical(packed: bytes) -> None:
    assert parse_address(format_address(packed)) == packed


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("fd00:0:0:1:0:0:0:ff", "fd00:0:0:1::ff"),
        ("FD00::1", "fd00::1"),
        ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
        ("::1.2.3.4", "::102:304"),
        ("::2", "::2"),
        ("::1:0", "::1:0"),
        ("10.9.0.2", "10.9.0.2"),
    ],
)
def test_an_address_is_written_as_host_local_names_its_lease(written: str, name: str) -> None:
    assert format_address(parse_address(written)) == name


def test_ipv4_in_ipv6_s_notation_is_ipv4() -> None:
    assert unmapped(parse_address("::ffff:10.9.0.2")) == parse_address("10.9.0.2")
    assert unmapped(parse_address("fd00::2")) == parse_address("fd00::2")
    assert unmapped(parse_address("10.9.0.2")) == parse_address("10.9.0.2")
