"""A host's part in `cluster test`: how it identifies peers, what its pod sees, and which lines it reads."""

import os
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cnictl.core.errors import Problem
from cnictl.node.spec.node_spec import NodeSpec, Peer
from cnictl.probe import causes, pair_reports
from cnictl.probe.causes import OF_THIS_NODE
from cnictl.probe.pair_checks import _peer
from cnictl.probe.pair_reports import SeenRequests, Target
from cnictl.probe.pair_service import Lines
from cnictl.probe.receiving import Sightings

SPEC = NodeSpec(("10.244.0.0/24",), ("10.244.0.0/20",))
TARGET = Target("b", "00" * 8, ("10.244.1.5",), ("10.0.0.2",), ("10.244.1.0/24",))
TOKEN = "1122334455667788"


def spec(*peers: Peer) -> NodeSpec:
    return replace(SPEC, peers=peers)


def test_known_peer_that_leads_to_the_target_is_tested() -> None:
    known = Peer("10.244.1.0/24", "10.0.0.2", "eth1")
    assert _peer(spec(known), TARGET) == known
    learned = replace(SPEC, learned=(known,))
    assert _peer(learned, TARGET) == known


def test_known_peer_that_leads_elsewhere_is_judged_against_the_targets_own_address() -> None:
    assert _peer(spec(Peer("10.244.1.0/24", "10.0.0.9")), TARGET) == Peer("10.244.1.0/24", "10.0.0.2")
    assert _peer(SPEC, TARGET) == Peer("10.244.1.0/24", "10.0.0.2")


def test_known_peer_is_used_if_the_target_names_no_address() -> None:
    known = Peer("10.244.1.0/24", "10.0.0.9")
    assert _peer(spec(known), replace(TARGET, node=())) == known
    assert _peer(SPEC, replace(TARGET, node=())) is None
    linked = Peer("fd00::/64", "fe80::1", "eth0")
    six = replace(SPEC, subnets=("fd01::/64",), networks=("fd00::/8",), peers=(linked,))
    target = replace(TARGET, pod=("fd00::5",), node=("2001:db8::1",), pod_cidrs=("fd00::/64",))
    assert _peer(six, target) == linked


def test_target_with_our_own_pod_cidr_is_not_a_peer() -> None:
    assert _peer(SPEC, replace(TARGET, pod_cidrs=("10.244.0.0/24",))) is None


def request(number: int, token: str = TOKEN, kind: int = 8) -> bytes:
    return struct.pack("!BBHHH", kind, 0, 0, 1, 0) + struct.pack("!8sHH", bytes.fromhex(token), number, 0)


def test_pod_counts_only_requests_of_its_senders() -> None:
    sightings = Sightings([TOKEN])
    sightings.note(request(3), False, "10.244.1.5")
    sightings.note(request(3), False, "10.244.1.5")
    sightings.note(request(3), False, "10.0.0.2")
    sightings.note(request(4, token="00" * 8), False, "10.9.9.9")
    sightings.note(request(5, kind=0), False, "10.9.9.9")
    sightings.note(b"\x08\0", False, "10.9.9.9")
    sightings.note(request(6, kind=128), True, "fd00::5")
    assert sightings.listed() == [
        SeenRequests(TOKEN, 3, ("10.244.1.5", "10.0.0.2")),
        SeenRequests(TOKEN, 6, ("fd00::5",)),
    ]


def test_flood_of_requests_with_a_senders_token_fills_no_memory() -> None:
    sightings = Sightings([TOKEN])
    for number in range(1000):
        for source in range(10):
            sightings.note(request(number), False, f"10.9.9.{source}")
    listed = sightings.listed()
    assert len(listed) == 64
    assert {len(seen.sources) for seen in listed} == {4}


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        try:
            os.close(descriptor)
        except OSError:
            pass  # the test has already closed it


def test_lines_come_one_by_one_and_then_the_end(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.write(writer, b"one\ntwo\n\xff")
    lines = Lines(reader, 5)
    assert (lines.next(), lines.next()) == ("one", "two")
    os.close(writer)
    assert lines.next() == ""


def test_silence_and_a_line_without_end_are_bounded(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = pipe
    with pytest.raises(Problem, match="time for this test is up"):
        Lines(reader, 0.05).next()
    monkeypatch.setattr(pair_reports, "LONGEST_LINE", 100)
    os.write(writer, b"x" * 200)
    with pytest.raises(Problem, match="a line of more than 100 bytes"):
        Lines(reader, 5).next()


def test_every_cause_of_this_node_exists() -> None:
    folder = Path(causes.__file__).parent
    text = "".join(path.read_text() for path in (folder / "causes_local.py", folder / "checks.py"))
    assert [name for name in OF_THIS_NODE if f'"{name}"' not in text] == []
