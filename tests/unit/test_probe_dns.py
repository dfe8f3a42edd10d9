"""DNS messages and resolver configurations are parsed as specified, and malformed ones cause no crash."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnictl.core.errors import Problem
from cnictl.probe import dns, resolvers
from cnictl.probe.resolvers import Resolver, candidates, parse_hosts, parse_resolv_conf, resolve


def _message(ident: int, flags: int, records: list[tuple[int, bytes]], name: str = "web.example") -> bytes:
    """Return an answer to a question for `name`; each record points back to its name."""
    question = dns.query(name, dns.A, ident)[12:]
    answers = b"".join(b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(data)) + data for kind, data in records)
    return struct.pack("!HHHHHH", ident, flags, 1, len(records), 0, 0) + question + answers


def test_a_query_asks_for_one_name_with_recursion() -> None:
    assert dns.query("web.example", dns.AAAA, 7) == bytes.fromhex(
        "0007 0100 0001 0000 0000 0000 03 776562 07 6578616d706c65 00 001c 0001"
    )
    assert dns.query(".", dns.NS, 0)[12:] == bytes.fromhex("00 0002 0001")


@pytest.mark.parametrize("name", ["a..b", "x" * 64 + ".example", ".".join(["abcdefgh"] * 30)])
def test_a_name_that_dns_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a DNS name"):
        dns.query(name, dns.A, 1)


def test_addresses_are_of_the_requested_type() -> None:
    message = _message(9, 0x8180, [(dns.CNAME, b"\xc0\x0c"), (dns.A, bytes([10, 244, 0, 5])), (dns.AAAA, bytes(16))])
    answer = dns.read_answer(message, 9, dns.A)
    assert answer == dns.DnsAnswer(0, ("10.244.0.5",))
    assert dns.read_answer(message, 8, dns.A) is None


def test_an_answer_without_an_address_says_why() -> None:
    assert dns.DnsAnswer(3).words == "no such name"
    assert dns.DnsAnswer(0).words == "no address"
    assert dns.DnsAnswer(11).words == "error 11"


@given(st.binary(max_size=80))
def test_any_bytes_are_an_answer_or_none(data: bytes) -> None:
    dns.read_answer(struct.pack("!HH", 5, 0x8000) + data, 5, dns.A)


def test_resolv_conf_has_three_servers_and_the_last_search_list() -> None:
    read = parse_resolv_conf(
        "# a comment\nnameserver 10.96.0.10\nnameserver fe80::1%eth0\nnameserver name\nnameserver 1.1.1.1 ; why\n"
        "nameserver 8.8.8.8\ndomain old\nsearch default.svc.cluster.local svc.cluster.local.\noptions edns0 ndots:5\n"
    )
    assert read.servers == ("10.96.0.10", "fe80::1", "1.1.1.1")
    assert read.search == ("default.svc.cluster.local", "svc.cluster.local")
    assert read.ndots == 5


def test_the_search_list_comes_first_for_names_with_few_dots() -> None:
    assert candidates("web", ["a.local"], 1) == ["web.a.local", "web"]
    assert candidates("web.ns", ["a.local"], 1) == ["web.ns", "web.ns.a.local"]
    assert candidates("web.ns", ["a.local"], 5) == ["web.ns.a.local", "web.ns"]
    assert candidates("web.ns.", ["a.local"], 5) == ["web.ns"]


def test_a_hosts_file_comes_before_any_server() -> None:
    hosts = parse_hosts("10.0.0.1 Web web.local # first\n::1 web\nno-address x\n")
    assert hosts == {"web": ("10.0.0.1", "::1"), "web.local": ("10.0.0.1",)}
    resolved = resolve("WEB", Resolver(hosts=hosts), [True, False])
    assert (resolved.addresses, resolved.server) == (("::1", "10.0.0.1"), "")


def test_without_a_server_the_file_is_named() -> None:
    with pytest.raises(Problem, match="names no DNS server"):
        resolve("web", Resolver(source="this host's /etc/resolv.conf"), [False])


def test_each_server_is_asked_until_one_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def ask(_netns: str, server: str, name: str, kind: int, _timeout: float) -> dns.DnsAnswer | None:
        asked.append((server, name, kind))
        if server == "10.0.0.1":
            return None
        return dns.DnsAnswer(0, ("10.9.9.9",)) if name == "web.b" and kind == dns.A else dns.DnsAnswer(3)

    monkeypatch.setattr(dns, "ask", ask)
    resolver = Resolver(("10.0.0.1", "10.0.0.2"), ("a", "b"), source="a file")
    resolved = resolve("web", resolver, [False])
    assert (resolved.addresses, resolved.name, resolved.server) == (("10.9.9.9",), "web.b", "10.0.0.2")
    assert [name for server, name, _ in asked if server == "10.0.0.1"] == ["web.a", "web.a"]
    with pytest.raises(resolvers.NotResolved) as raised:
        resolve("db", resolver, [False])
    assert raised.value.silent == ("10.0.0.1",)
    assert raised.value.message == ("10.0.0.1 does not answer; 10.0.0.2 answers no such name (a file)")
