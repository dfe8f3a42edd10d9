"""Targets are parsed as typed, and the error for a wrong name suggests similar ones."""

import pytest

from cnictl.core.attachments import Record
from cnictl.core.errors import Problem, UsageProblem
from cnictl.probe import ends, existing, pinging
from cnictl.probe.ends import HOST, POD, Names, Origin
from cnictl.probe.place import Place, parse_place
from cnictl.probe.pods import CheckedPod


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


@pytest.mark.parametrize(
    ("text", "meant"),
    [("wbe", "web"), ("default/wbe", "default/web"), ("nodeb", "node-b"), ("hots", "host"), ("externl", "external")],
)
def test_similar_name_is_suggested(text: str, meant: str) -> None:
    assert KNOWN.like(text)[0] == meant


def test_unknown_source_is_refused_with_the_possible_ones() -> None:
    with pytest.raises(Problem, match="no pod of this node is called 'wbe'") as raised:
        ends.origin("wbe", KNOWN)
    assert raised.value.hint == "did you mean web?"
    with pytest.raises(Problem) as raised:
        ends.origin("zzz", KNOWN)
    assert raised.value.hint == "cnictl ipam list shows the pods; FROM may also be host or pod"


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
