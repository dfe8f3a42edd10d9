"""Echo messages are created, recognized and refused as in RFC 792, and those of other programs are ignored."""

import socket
import struct

import pytest

from cnictl.probe import arp, icmp, icmp6, ndp
from cnictl.probe.capture import read_sighting
from cnictl.probe.icmp import Refusal, Series, checksum, identifier, token


def new_series(to: str = "10.244.1.7", count: int = 3) -> Series:
    """Return a series on a socket that is never used."""
    return Series(socket.socket(), to, count)


def echo(series: Series, sequence: int, kind: int = icmp.ECHO_REQUEST) -> bytes:
    """Return an ICMP echo message of a series."""
    payload = icmp._TOKEN.pack(icmp._run(), series.number, sequence)
    return struct.pack("!BBHHH", kind, 0, 0, identifier(series.number), sequence) + payload


def packet(source: str, destination: str, message: bytes) -> bytes:
    """Return an IPv4 packet with this message and no options."""
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(message), 0, 0, 64, 1, 0) + addresses + message


def packet6(source: str, destination: str, message: bytes) -> bytes:
    """Return an IPv6 packet with this ICMPv6 message."""
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination)
    return struct.pack("!IHBB", 6 << 28, len(message), 58, 64) + addresses + message


def test_checksum_is_rfc_1071s() -> None:
    data = bytes.fromhex("0001f203f4f5f6f7")
    assert checksum(data) == 0xFFFF - 0xDDF2
    assert checksum(data + checksum(data).to_bytes(2, "big")) == 0
    assert checksum(b"\x01") == checksum(b"\x01\x00")


def test_token_matches_with_a_changed_identifier_and_rejects_strangers() -> None:
    series = new_series()
    message = bytearray(echo(series, 2))
    message[4:6] = b"\xab\xcd"
    assert token(bytes(message)) == (series.number, 2)
    message[8] ^= 0xFF
    assert token(bytes(message)) is None
    assert token(b"\0" * 8) is None


def test_a_quoted_request_is_found_by_destination_and_identifier() -> None:
    series = new_series()
    by_number = {series.number: series}
    quoted = packet("10.244.0.5", series.to, echo(series, 0))[:28]
    assert icmp._refused(quoted, series.sender, by_number) == (series, 0)
    assert icmp._refused(quoted[:27], series.sender, by_number) is None
    elsewhere = packet("10.244.0.5", "10.244.1.8", echo(series, 0))
    assert icmp._refused(elsewhere, series.sender, by_number) is None
    assert icmp._refused(quoted, socket.socket(), by_number) is None


def test_series_ends_by_answers_refusals_or_time() -> None:
    series = new_series(count=2)
    series.sent = {0: 10.0, 1: 10.1}
    assert not series.settled(10.5, 1.0)
    assert series.settled(11.2, 1.0)
    series.rtts = {0: 0.001}
    assert not series.settled(11.05, 1.0)
    assert series.settled(11.1001, 1.0)
    series.refusals = [Refusal("10.0.10.51", icmp.UNREACHABLE, 1)] * 2
    assert series.settled(10.2, 1.0)
    series.refusals = [Refusal("10.0.10.51", icmp.REDIRECT, 1)] * 2
    assert not series.settled(10.2, 1.0)


def test_round_trips_are_summed_up_in_milliseconds() -> None:
    series = new_series()
    assert series.rtt_ms is None
    series.rtts = {0: 0.001, 1: 0.003}
    assert series.rtt_ms == (1.0, 2.0, 3.0)


def test_refusals_have_the_words_of_ping() -> None:
    assert Refusal("x", icmp.UNREACHABLE, 13).words == "communication administratively prohibited"
    assert Refusal("x", icmp.UNREACHABLE, 77).words == "unreachable, code 77"
    assert Refusal("x", icmp.TIME_EXCEEDED, 0).words == "time to live exceeded"
    assert Refusal("x", icmp.UNREACHABLE, 0).unrouted
    assert Refusal("x", icmp.REDIRECT, 1).unrouted
    assert Refusal("x", icmp.UNREACHABLE, 1).no_host


def test_only_our_own_packet_on_a_link_is_counted() -> None:
    series = new_series()
    seen = read_sighting(packet("10.0.0.210", series.to, echo(series, 0)), "eth0", True)
    assert seen is not None
    assert (seen.link, seen.leaving, seen.reply) == ("eth0", True, False)
    assert (seen.source, seen.destination, seen.series) == ("10.0.0.210", series.to, series.number)
    assert read_sighting(packet("1.1.1.1", "2.2.2.2", b"\x08" + bytes(40)), "eth0", True) is None
    assert read_sighting(b"\x45", "eth0", True) is None


def test_only_a_reply_from_the_requested_address_answers_arp() -> None:
    def frame(operation: int, sender: str) -> bytes:
        body = struct.pack(
            "!HHBBH6s4s6s4s", 1, 0x800, 6, 4, operation, bytes([2] * 6), socket.inet_aton(sender), bytes(6), bytes(4)
        )
        return bytes(14) + body

    assert arp.answering_mac(frame(2, "10.0.10.51"), "10.0.10.51") == bytes([2] * 6)
    assert not arp.answering_mac(frame(1, "10.0.10.51"), "10.0.10.51")
    assert not arp.answering_mac(frame(2, "10.0.10.52"), "10.0.10.51")
    assert not arp.answering_mac(b"short", "10.0.10.51")


def test_ipv6_uses_the_same_token_and_quotes_its_own_header() -> None:
    series = Series(socket.socket(socket.AF_INET6), "fd00:244:0:1::7")
    request = echo(series, 0, icmp6.ECHO_REQUEST6)
    seen = read_sighting(packet6("fd00:244::5", series.to, request), "cni0", False)
    assert seen is not None
    assert (seen.reply, seen.source, seen.destination, seen.series) == (False, "fd00:244::5", series.to, series.number)
    answer = read_sighting(packet6(series.to, "fd00:244::5", echo(series, 0, icmp6.ECHO_REPLY6)), "eth0", False)
    assert answer is not None
    assert answer.reply
    by_number = {series.number: series}
    quoted = packet6("fd00:244::5", series.to, request)[:48]
    assert icmp._refused(quoted, series.sender, by_number) == (series, 0)
    assert icmp._refused(quoted[:47], series.sender, by_number) is None
    assert icmp._refused(b"", series.sender, by_number) is None


@pytest.mark.parametrize(
    ("kind", "code", "words"),
    [
        (1, 0, "network unreachable"),
        (1, 1, "communication administratively prohibited"),
        (1, 3, "host unreachable"),
        (1, 4, "port unreachable"),
        (3, 0, "time to live exceeded"),
        (2, 0, "packet too big"),
        (137, 0, "redirect to another router"),
    ],
)
def test_icmpv6_errors_have_the_words_of_icmp(kind: int, code: int, words: str) -> None:
    assert Refusal("x", *icmp6.as_icmp(kind, code)).words == words


def test_neighbour_discovery_is_neither_echo_nor_error() -> None:
    assert icmp6.as_icmp(135, 0)[0] == -1


def test_only_an_advertisement_of_the_requested_address_answers_neighbour_discovery() -> None:
    def message(kind: int, target: str) -> bytes:
        return (
            struct.pack("!BBHI", kind, 0, 0, 0) + socket.inet_pton(socket.AF_INET6, target) + b"\2\1" + bytes([2] * 6)
        )

    assert ndp.answering_mac(message(136, "fd00:10::51"), "fd00:10::51") == bytes([2] * 6)
    assert not ndp.answering_mac(message(135, "fd00:10::51"), "fd00:10::51")
    assert not ndp.answering_mac(message(136, "fd00:10::52"), "fd00:10::51")
    assert not ndp.answering_mac(b"short", "fd00:10::51")
