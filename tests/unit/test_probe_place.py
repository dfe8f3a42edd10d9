"""Targets are parsed as typed, and the error for a wrong name suggests similar ones."""

from dataclasses import replace

import pytest

from cnictl.core.attachments import Record
from cnictl.core.errors import Problem, UsageProblem
from cnictl.node.spec.node_spec import NodeSpec, Peer
from cnictl.probe import dns, ends, existing, pinging, resolvers
from cnictl.probe.ends import HOST, POD, Names, Origin
from cnictl.probe.place import Place, parse_place
from cnictl.probe.pods import CheckedPod
from cnictl.probe.resolvers import Resolver


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("web", Place("web")),
        ("default/web", Place("default/web")),
        ("web:80", Place("web", 80, "tcp")),
        ("web:80/tcp", Place("web", 80, "tcp")),
        ("10.244.0.5:53/udp", Place("10.244.0.5", 53, "udp")),
        ("fd00::5", Place("fd00::5")),
        ("fd00::5:80", Place("fd00::5:80")),
        ("[fd00::5]", Place("fd00::5")),
        ("[fd00::5]:80", Place("fd00::5", 80, "tcp")),
        ("[fe80::1%eth0]:53/udp", Place("fe80::1%eth0", 53, "udp")),
    ],
)
def test_target_has_a_name_a_port_and_a_protocol(text: str, place: Place) -> None:
    assert parse_place(text) == place


@pytest.mark.parametrize(
    "text",
    ["", ":80", "web:", "web:0", "web:65536", "web:http", "web:80/sctp", "web:80/udp/x", "[fd00::5", "[fd00::5]80",
     "web:-1", "web:123456"],
)  # fmt: skip
def test_target_that_is_wrong_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageProblem):
        parse_place(text)


def test_service_is_named_in_words() -> None:
    assert [Place("x").service, Place("x", 80, "tcp").service] == ["ICMP", "TCP port 80"]


KNOWN = Names(None, {"node-b": ("10.0.10.51", "fd00:10::51")}, ("default/web", "kube-system/coredns", "c0ffee"))
WEB = Origin("default/web", POD, CheckedPod("default/web", "/run/netns/x", ("10.244.0.5",)))
THIS_HOST = Origin("this host", HOST, CheckedPod("this host", "", ()))


@pytest.fixture(autouse=True)
def no_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tests off the machine's pods."""
    monkeypatch.setattr(existing, "known_as", lambda _: [])
    monkeypatch.setattr(ends, "_pod_at", lambda _: None)
    monkeypatch.setattr(ends, "_is_broadcast", lambda *_: False)


@pytest.mark.parametrize(
    ("text", "meant"),
    [("wbe", "web"), ("default/wbe", "default/web"), ("nodeb", "node-b"), ("hots", "host"), ("externl", "external")],
)
def test_similar_name_is_suggested(text: str, meant: str) -> None:
    assert KNOWN.similar_names(text)[0] == meant


def test_unknown_source_is_refused_with_the_possible_ones() -> None:
    with pytest.raises(Problem, match="no pod of this node is called 'wbe'") as raised:
        ends.origin("wbe", KNOWN)
    assert raised.value.hint == "did you mean web?"
    with pytest.raises(Problem) as raised:
        ends.origin("zzz", KNOWN)
    assert raised.value.hint == "cnictl pod list shows the pods of this node; FROM may also be host or pod"


SPEC = NodeSpec(("10.244.0.0/24",), ("10.244.0.0/20",), peers=(Peer("10.244.1.0/24", "10.0.10.51"),))


@pytest.mark.parametrize(
    "text", ["external", "node-b", "10.0.10.51", "fd00:10::51", "10.244.1.2", "127.0.0.1", "192.0.2.7"]
)
def test_source_that_can_only_be_a_target_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageProblem) as raised:
        ends.origin(text, replace(KNOWN, spec=SPEC))
    assert "did you mean" not in raised.value.hint
    assert raised.value.hint.startswith("FROM is host, pod, a pod of this node")


def test_source_that_is_misspelled_is_never_taken_for_a_target() -> None:
    assert KNOWN.similar_names("externl", only_sources=True) == []
    assert KNOWN.similar_names("node_b", only_sources=True) == []


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("224.0.0.1", "a multicast address"),
        ("ff02::1", "a multicast address"),
        ("255.255.255.255", "the limited broadcast address"),
        ("0.0.0.0", "the unspecified address"),
        ("::", "the unspecified address"),
        ("10.244.0.255", "the broadcast address of 10.244.0.0/24"),
        ("10.244.1.255", "the broadcast address of 10.244.1.0/24"),
    ],
)
def test_address_that_no_single_host_has_is_a_usage_error(address: str, what: str) -> None:
    with pytest.raises(UsageProblem, match=f"^{address} is {what}: TO has to be"):
        ends.target(address, replace(KNOWN, spec=SPEC), THIS_HOST)


def test_name_that_resolves_to_the_unspecified_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolvers, "resolver_of", lambda _: Resolver(hosts={"ads.example": ("0.0.0.0",)}))
    with pytest.raises(UsageProblem, match="is the unspecified address"):
        ends.target("ads.example", KNOWN, THIS_HOST)


def test_name_without_the_wanted_family_is_told_with_the_addresses_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = {"node2": ("10.0.10.51",), "six.example": ("fd00:10::51",)}
    monkeypatch.setattr(resolvers, "resolver_of", lambda _: Resolver(hosts=hosts))
    for source in (WEB, THIS_HOST):
        with pytest.raises(Problem, match=r"^node2 has no IPv6 address$") as raised:
            ends.target("node2", KNOWN, source, ipv6=True)
        assert raised.value.hint == "its addresses: 10.0.10.51"
    with pytest.raises(Problem, match=r"default/web has no IPv6 address to reach fd00:10::51 from"):
        ends.target("six.example", KNOWN, WEB)


@pytest.mark.parametrize(
    ("server", "netns", "told"),
    [
        ("192.0.2.10", "/run/netns/x", "cnictl ping 10.244.0.5 192.0.2.10:53/udp shows why"),
        ("fd00::53", "", "cnictl ping host [fd00::53]:53/udp shows why"),
    ],
)
def test_server_is_asked_for_ipv6_whatever_its_own_family(
    server: str, netns: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def ask(_netns: str, server: str, _name: str, kind: int, _timeout: float) -> None:
        asked.append((server, kind))

    monkeypatch.setattr(resolvers, "resolver_of", lambda _: Resolver((server,), netns=netns))
    monkeypatch.setattr(dns, "ask", ask)
    with pytest.raises(Problem, match=f"can't be resolved as a DNS name: {server} does not answer") as raised:
        ends.target("www.example.test", KNOWN, WEB, ipv6=True)
    assert set(asked) == {(server, dns.AAAA)}
    assert raised.value.hint == told


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("10.244.1.2/udp", "10.244.1.2:PORT/udp"),
        ("fd00::5/tcp", r"\[fd00::5\]:PORT"),
        ("web:80x/udp", "not a port"),
        ("web:http", "'http' is a service's name, not a port; give its number: web:PORT"),
        ("web:domain/udp", "give its number: web:PORT/udp"),
    ],
)
def test_target_without_a_ports_number_shows_where_it_belongs(text: str, meant: str) -> None:
    with pytest.raises(UsageProblem, match=meant):
        parse_place(text)


def test_name_with_a_protocol_alone_lacks_its_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolvers, "resolver_of", lambda _: Resolver())
    with pytest.raises(UsageProblem, match="a port is missing: web2:PORT/udp"):
        ends.target("web2/udp", KNOWN, WEB)


def test_pods_of_one_name_are_offered_by_what_tells_them_apart() -> None:
    records = [Record("mynet", name, "eth0") for name in ("a", "b", "c")]
    for record, pod in zip(records, ("prod/web", "default/web", "default/web"), strict=True):
        record.pod_namespace, _, record.pod_name = pod.partition("/")
        record.addresses = [f"10.244.0.{ord(record.container)}"]
    assert existing.one_of(records[:2]) == "prod/web or default/web"
    assert existing.one_of(records) == "prod/web or 10.244.0.98 or 10.244.0.99"


def test_name_of_a_pod_and_a_peer_is_refused_with_both(monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record("mynet", "c0ffee", "eth0")
    record.addresses = ["10.244.0.7"]
    monkeypatch.setattr(existing, "known_as", lambda _: [record])
    with pytest.raises(Problem, match=r"pod c0ffee at 10\.244\.0\.7; peer node-b at 10\.0\.10\.51 fd00:10::51"):
        ends.target("node-b", KNOWN, WEB)


def test_peer_is_reached_in_a_family_that_the_source_has() -> None:
    assert ends.target("node-b:80", KNOWN, WEB).address == "10.0.10.51"
    assert ends.target("node-b", KNOWN, THIS_HOST, ipv6=True).address == "fd00:10::51"
    with pytest.raises(Problem, match="default/web has no IPv6 address to reach fd00:10::51 from"):
        ends.target("node-b", KNOWN, WEB, ipv6=True)
    with pytest.raises(Problem, match=r"10\.0\.0\.9 has no IPv6 address"):
        ends.target("10.0.0.9", KNOWN, THIS_HOST, ipv6=True)


def test_link_local_address_needs_its_link() -> None:
    with pytest.raises(UsageProblem, match="fe80::1 is link-local"):
        ends.target("fe80::1", KNOWN, THIS_HOST)
    target = ends.target("[fe80::1%eth0]:80", KNOWN, THIS_HOST)
    assert (target.address, target.scope) == ("fe80::1", "eth0")


@pytest.mark.parametrize(("to", "size"), [("web:80", 1400), ("web", 59), ("web:53/udp", 20)])
def test_size_that_cannot_be_sent_is_refused(to: str, size: int) -> None:
    with pytest.raises(UsageProblem, match="--size"):
        pinging.check(to, pinging.Options(size=size))
