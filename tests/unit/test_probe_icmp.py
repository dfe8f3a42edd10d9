"""Echo messages are made, recognised and refused as RFC 792 says, and nobody else's are taken for ours."""

import socket
import struct

from cnictl.probe import arp, icmp
from cnictl.probe.icmp import Refusal, Series, checksum, identifier, token
from cnictl.probe.watch import read_sighting


def new_series(to: str = "10.244.1.7", count: int = 3) -> Series:
    """A series on a socket that is never used."""
    return Series(socket.socket(), to, count)


def echo(one: Series, sequence: int, kind: int = icmp.ECHO_REQUEST) -> bytes:
    """An ICMP echo message of a series."""
    payload = icmp._TOKEN.pack(icmp._RUN, one.number, sequence)
    return struct.pack("!BBHHH", kind, 0, 0, identifier(one.number), sequence) + payload


def packet(source: str, destination: str, message: bytes) -> bytes:
    """An IPv4 packet around a message, header without options."""
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(message), 0, 0, 64, 1, 0) + addresses + message


def test_checksum_is_rfc_1071s() -> None:
    data = bytes.fromhex("0001f203f4f5f6f7")
    assert checksum(data) == 0xFFFF - 0xDDF2
    assert checksum(data + checksum(data).to_bytes(2, "big")) == 0
    assert checksum(b"\x01") == checksum(b"\x01\x00")


def test_token_survives_a_changed_identifier_and_refuses_strangers() -> None:
    one = new_series()
    message = bytearray(echo(one, 2))
    message[4:6] = b"\xab\xcd"
    assert token(bytes(message)) == (one.number, 2)
    message[8] ^= 0xFF
    assert token(bytes(message)) is None
    assert token(b"\0" * 8) is None


def test_a_quoted_request_is_found_by_destination_and_identifier() -> None:
    one = new_series()
    by_number = {one.number: one}
    quoted = packet("10.244.0.5", one.to, echo(one, 0))[:28]
    assert icmp._refused(quoted, one.sender, by_number) is one
    assert icmp._refused(quoted[:27], one.sender, by_number) is None
    elsewhere = packet("10.244.0.5", "10.244.1.8", echo(one, 0))
    assert icmp._refused(elsewhere, one.sender, by_number) is None
    assert icmp._refused(quoted, socket.socket(), by_number) is None


def test_series_settles_by_answers_refusals_or_time() -> None:
    one = new_series(count=2)
    one.sent = {0: 10.0, 1: 10.1}
    assert not one.settled(10.5, 1.0)
    assert one.settled(11.2, 1.0)
    one.rtts = {0: 0.001}
    assert not one.settled(11.05, 1.0)
    assert one.settled(11.1001, 1.0)
    one.refusals = [Refusal("10.0.10.51", icmp.UNREACHABLE, 1)] * 2
    assert one.settled(10.2, 1.0)
    one.refusals = [Refusal("10.0.10.51", icmp.REDIRECT, 1)] * 2
    assert not one.settled(10.2, 1.0)


def test_round_trips_are_summed_up_in_milliseconds() -> None:
    one = new_series()
    assert one.rtt_ms is None
    one.rtts = {0: 0.001, 1: 0.003}
    assert one.rtt_ms == (1.0, 2.0, 3.0)


def test_refusals_read_as_ping_says_them() -> None:
    assert Refusal("x", icmp.UNREACHABLE, 13).words == "communication administratively prohibited"
    assert Refusal("x", icmp.UNREACHABLE, 77).words == "unreachable, code 77"
    assert Refusal("x", icmp.TIME_EXCEEDED, 0).words == "time to live exceeded"
    assert Refusal("x", icmp.UNREACHABLE, 0).unrouted
    assert Refusal("x", icmp.REDIRECT, 1).unrouted
    assert Refusal("x", icmp.UNREACHABLE, 1).no_host


def test_a_packet_on_a_link_is_sighted_if_it_is_ours() -> None:
    one = new_series()
    seen = read_sighting(packet("10.0.0.210", one.to, echo(one, 0)), "eth0", True)
    assert seen is not None
    assert (seen.link, seen.leaving, seen.reply) == ("eth0", True, False)
    assert (seen.source, seen.destination, seen.series) == ("10.0.0.210", one.to, one.number)
    assert read_sighting(packet("1.1.1.1", "2.2.2.2", b"\x08" + bytes(40)), "eth0", True) is None
    assert read_sighting(b"\x45", "eth0", True) is None


def test_only_a_reply_from_the_address_asked_for_answers_arp() -> None:
    def frame(operation: int, sender: str) -> bytes:
        body = struct.pack(
            "!HHBBH6s4s6s4s", 1, 0x800, 6, 4, operation, bytes(6), socket.inet_aton(sender), bytes(6), bytes(4)
        )
        return bytes(14) + body

    assert arp.is_answer(frame(2, "10.0.10.51"), "10.0.10.51")
    assert not arp.is_answer(frame(1, "10.0.10.51"), "10.0.10.51")
    assert not arp.is_answer(frame(2, "10.0.10.52"), "10.0.10.51")
    assert not arp.is_answer(b"short", "10.0.10.51")
