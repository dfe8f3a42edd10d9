"""Combine the hosts' reports into one matrix: each pair's state, the cause, and the host with the fault."""

import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import typer

from cnictl.cli import cluster_test
from cnictl.cli.output import Format
from cnictl.cluster import matrix, matrix_run, picture, sample
from cnictl.cluster.matrix import Cell, Matrix
from cnictl.cluster.probing import HostReport, Limits
from cnictl.core.errors import Problem
from cnictl.node import hint
from cnictl.node.hint import Hint
from cnictl.probe import pair_reports
from cnictl.probe.pair_reports import (
    NODE_POD,
    POD_EXTERNAL,
    POD_NODE,
    POD_POD,
    BadReport,
    PairRequest,
    Ping,
    Ready,
    ReportedCause,
    SeenRequests,
)

HOSTS = ("a", "b", "c")
LATE = Limits(0.2, 0.0, 0.2, 0.2, 0.2)


def ready(number: int, **other: Any) -> Ready:
    """Return the host with this number; 0 is a."""
    return replace(
        Ready(
            f"{number:016x}",
            "0.3.0",
            (f"10.244.{number}.5",),
            (f"10.0.0.{number + 1}",),
            (f"10.244.{number}.0/24",),
            ("10.244.0.0/20",),
        ),
        **other,
    )


class World:
    """Reports of hosts that all reach each other; a test changes one host's report."""

    def __init__(self, hosts: Sequence[str] = HOSTS) -> None:
        self.hosts = hosts
        self.ready = {host: ready(number) for number, host in enumerate(hosts)}
        self.pings: dict[tuple[str, str, str], Ping] = {}
        self.seen: dict[tuple[str, str], list[str]] = {}
        """The sources that the receiver saw, by sender and receiver."""
        self.faults: dict[str, str] = {}
        series = itertools.count()
        for sender in hosts:
            own = self.ready[sender]
            for receiver in hosts:
                if receiver != sender:
                    other = self.ready[receiver]
                    for check, source, to in (
                        (POD_POD, own.pod[0], other.pod[0]),
                        (NODE_POD, "", other.pod[0]),
                        (POD_NODE, own.pod[0], other.node[0]),
                    ):
                        self.pings[sender, receiver, check] = Ping(
                            check, "ipv4", receiver, source, to, (next(series),), 3, 3, (0.1, 0.2, 0.3), other.node[0]
                        )
                    self.seen[sender, receiver] = [own.pod[0]]
            self.pings[sender, "", POD_EXTERNAL] = Ping(
                POD_EXTERNAL, "ipv4", "", own.pod[0], "192.0.2.10", (next(series),), 3, 3, (1, 1, 1)
            )

    def fails(self, sender: str, receiver: str, check: str = POD_POD, seen: bool = False, **other: Any) -> None:
        """Make a host's requests fail: no answer arrives. With `seen`, they reach the pod."""
        ping = self.pings[sender, receiver, check]
        self.pings[sender, receiver, check] = replace(ping, received=0, rtt_ms=None, **other)
        if check == POD_POD and not seen:
            self.seen[sender, receiver] = []

    def reports(self) -> list[HostReport]:
        """Return the reports of all hosts."""
        reports = []
        for host in self.hosts:
            if host in self.faults:
                reports.append(HostReport(host, fault=self.faults[host]))
                continue
            pings = tuple(ping for (sender, _, _), ping in self.pings.items() if sender == host)
            seen = tuple(
                SeenRequests(self.ready[sender].token, self.pings[sender, host, POD_POD].series[0], tuple(sources))
                for (sender, receiver), sources in self.seen.items()
                if receiver == host and sources
            )
            reports.append(HostReport(host, self.ready[host], pings, seen))
        return reports

    def matrix(self) -> Matrix:
        """Return the matrix of these reports."""
        reached = [host for host in self.hosts if host not in self.faults]
        return matrix.build(self.reports(), sample.choose(reached, False, 0))


def cell(made: Matrix, sender: str, receiver: str, check: str = POD_POD) -> Cell:
    (matching,) = (each for each in made.cells if (each.sender, each.receiver, each.check) == (sender, receiver, check))
    return matching


def reported(name: str, here: bool, words: str = "words", what_to_do: Hint = hint.NONE) -> ReportedCause:
    return ReportedCause(name, words, here, what_to_do)


def parts(what_to_do: Hint) -> tuple[str, str, str]:
    """Return a hint's text, command and host: hints with the same text may differ in the others."""
    return str(what_to_do), what_to_do.command, what_to_do.on


def test_hosts_that_reach_each_other_pass_both_ways() -> None:
    made = World().matrix()
    assert made.passed and not made.failed_cells
    assert len([each for each in made.cells if each.check == POD_POD]) == 6
    assert cell(made, "a", "b").seen_as == ("10.244.0.5",)
    assert "every pod saw the senders' own addresses" in picture.verdict(made, 1.0)


def test_forgotten_peer_is_named_with_both_hosts_in_both_directions() -> None:
    world = World()
    add = hint.command("cnictl route add-peer 10.244.1.0/24 10.0.0.2")
    world.fails("a", "b", via="", cause=reported("no-route", True, what_to_do=add))
    back = hint.command("cnictl x", on="10.0.0.1")
    world.fails("b", "a", seen=True, cause=reported("no-return-route", False, what_to_do=back))
    made = world.matrix()
    there, here = cell(made, "a", "b"), cell(made, "b", "a")
    assert (there.state, here.state) == ("no answer", "one-way")
    for each in (there, here):
        assert each.cause is not None
        assert each.cause.words == "a has no peer for b's pod CIDR 10.244.1.0/24"
        assert each.cause.host == "a"
        assert parts(each.cause.hint) == (f"on a: {add.command}", add.command, "a")
    ((words, shown_hint),) = picture.causes(made)
    assert words == "a has no peer for b's pod CIDR 10.244.1.0/24 (a → b, b → a)"
    assert shown_hint == f"on a: {add.command}"


def test_fault_that_the_receiver_finds_on_itself_overrides_the_senders_guess() -> None:
    world = World()
    world.fails("a", "b", cause=reported("peer-drops", False, "FORWARD drop on peer 10.0.0.2"))
    world.fails("b", "a", cause=reported("dropped-here", True, "dropped on this node by rule r"))
    cause = cell(world.matrix(), "a", "b").cause
    assert cause is not None
    assert (cause.host, cause.words) == ("b", "b: dropped on this node by rule r")


def test_senders_cause_is_used_if_the_receiver_has_none() -> None:
    world = World()
    what_to_do = hint.command("cnictl apply", on="10.0.0.2")
    world.fails("a", "b", cause=reported("peer-drops", False, "FORWARD drop on peer 10.0.0.2", what_to_do))
    cause = cell(world.matrix(), "a", "b").cause
    assert cause is not None
    assert (cause.host, cause.words) == ("b", "b, as a sees it: FORWARD drop on peer 10.0.0.2")
    assert parts(cause.hint) == ("on b: cnictl apply", "cnictl apply", "b")


@pytest.mark.parametrize(("hop", "host"), [("10.0.0.2", "b"), ("10.0.0.254", "")])
def test_silent_next_hop_is_blamed_on_the_other_host_only_if_it_is_that_host(hop: str, host: str) -> None:
    world = World()
    what_to_do = hint.advice(f"bring {hop} up", because="a test")
    world.fails(
        "a", "b", cause=reported("neighbour-unresolved", False, f"next hop {hop} does not answer ARP", what_to_do)
    )
    cause = cell(world.matrix(), "a", "b").cause
    assert cause is not None
    assert cause.host == host
    assert parts(cause.hint) == (f"on a: bring {hop} up", "", "a")


def test_host_that_answers_requests_has_a_route_back() -> None:
    """The receiver's missing peer does not explain a lost reply if the receiver's own requests arrive."""
    world = World()
    world.fails("a", "b", seen=True)
    world.pings["b", "a", POD_POD] = replace(world.pings["b", "a", POD_POD], via="")
    cause = cell(world.matrix(), "a", "b").cause
    assert cause is not None and cause.name == "unexplained"
    world.fails("b", "a")
    cause = cell(world.matrix(), "a", "b").cause
    assert cause is not None and cause.words == "b has no peer for a's pod CIDR 10.244.0.0/24"


def test_unexplained_failure_says_how_far_the_request_got() -> None:
    world = World()
    world.fails("a", "b", cause=reported("unexplained", False))
    world.fails("a", "c", seen=True)
    made = world.matrix()
    lost, answered = cell(made, "a", "b").cause, cell(made, "a", "c").cause
    assert lost is not None and lost.words == "the request of a's pod was lost before it reached b's pod"
    assert answered is not None and "received the request of a's pod, but the reply was lost" in answered.words
    assert (cell(made, "a", "b").state, cell(made, "a", "c").state) == ("no answer", "one-way")


@pytest.mark.parametrize(
    ("source", "host"), [("10.0.0.1", "a"), ("10.0.0.2", "b"), ("10.244.0.1", "a"), ("203.0.113.7", "")]
)
def test_answered_request_with_another_source_is_masqueraded_and_names_the_host(source: str, host: str) -> None:
    world = World()
    world.seen["a", "b"] = [source]
    made = world.matrix()
    masqueraded = cell(made, "a", "b")
    assert masqueraded.state == "masqueraded" and not made.passed
    assert masqueraded.cause is not None
    assert (masqueraded.cause.host, source in masqueraded.cause.words) == (host, True)
    assert "masqueraded: as" in " ".join(picture.rows(made)[1][0])


def test_answer_of_another_hosts_pod_is_a_failure() -> None:
    world = World()
    world.seen["a", "b"] = []
    assert cell(world.matrix(), "a", "b").state == "wrong host"
    reports = world.reports()
    seen = SeenRequests(world.ready["a"].token, world.pings["a", "b", POD_POD].series[0], ("10.244.0.5",))
    assert reports[2].seen is not None
    reports[2].seen += (seen,)
    cause = cell(matrix.build(reports, sample.choose(HOSTS, False, 0)), "a", "b").cause
    assert cause is not None
    assert cause.words == "c's pod answered a for 10.244.1.5, the address of b's pod"


def test_two_hosts_with_one_pod_cidr_are_both_named() -> None:
    world = World()
    world.ready["c"] = replace(world.ready["c"], pod_cidrs=("10.244.1.0/24",))
    made = world.matrix()
    cause = cell(made, "a", "b").cause
    assert cause is not None
    assert cause.words == "b and c have overlapping pod CIDRs: 10.244.1.0/24"
    assert cell(made, "b", "c").state == "wrong host"


def test_unreachable_host_is_red_in_its_row_and_its_column() -> None:
    world = World()
    world.faults["c"] = "ssh: connect to host c port 22: No route to host"
    made = world.matrix()
    assert not made.passed
    assert {each.state for each in made.cells if "c" in (each.sender, each.receiver)} == {"not reached"}
    assert cell(made, "a", "b").state == "ok"
    assert "not reached: c" in picture.verdict(made, 1.0)
    (cause,) = picture.causes(made)
    assert cause[0].startswith("c was not reached: ssh: connect to host c")


def test_host_lost_after_its_pings_has_unknown_receptions() -> None:
    world = World()
    reports = world.reports()
    reports[1].seen, reports[1].fault = None, "cnictl on that host ended before the test was over"
    made = matrix.build(reports, sample.choose(HOSTS, False, 0))
    lost = cell(made, "a", "b")
    assert lost.state == "not known" and lost.cause is not None and lost.cause.host == "b"
    assert not made.passed


def test_failures_of_a_node_and_its_pod_share_a_cause() -> None:
    world = World()
    world.fails("a", "b", cause=reported("forwarding-off", True, "net.ipv4.ip_forward is 0 on this node"))
    world.fails("a", "b", POD_NODE)
    world.fails("a", "b", NODE_POD)
    made = world.matrix()
    assert cell(made, "a", "b", POD_NODE).cause == cell(made, "a", "b").cause == cell(made, "a", "b", NODE_POD).cause


def test_lost_requests_are_shown_and_do_not_fail() -> None:
    world = World()
    world.pings["a", "b", POD_POD] = replace(world.pings["a", "b", POD_POD], received=2)
    made = world.matrix()
    assert cell(made, "a", "b").state == "loss" and made.passed
    assert "1 check lost requests" in picture.verdict(made, 1.0)


def test_pod_without_an_address_of_its_hosts_family_fails() -> None:
    world = World()
    for host, number in (("a", 0), ("b", 1)):
        cidrs = (*world.ready[host].pod_cidrs, f"fd00:244:0:{number}::/64")
        world.ready[host] = replace(world.ready[host], pod_cidrs=cidrs)
    states = {(each.family, each.state) for each in world.matrix().cells if (each.sender, each.receiver) == ("a", "b")}
    assert ("ipv6", "no address") in states and ("ipv4", "ok") in states


def test_differences_between_hosts_are_noted() -> None:
    world = World()
    for host in HOSTS:
        world.ready[host] = replace(world.ready[host], mtu=1500)
    world.ready["c"] = replace(world.ready["c"], version="0.2.0", networks=("10.244.0.0/16",), mtu=1400)
    assert world.matrix().notes == (
        "cnictl's version differs: 0.3.0 on a, b; 0.2.0 on c",
        "the pod network differs: 10.244.0.0/20 on a, b; 10.244.0.0/16 on c",
        "the bridge's MTU differs: 1500 on a, b; 1400 on c",
    )


def test_matrix_of_one_host_proves_nothing() -> None:
    assert not World(["a"]).matrix().passed


def test_json_has_every_key_in_any_state() -> None:
    world = World()
    world.fails("a", "b", cause=reported("no-route", True, what_to_do=hint.command("cnictl x")))
    document = json.loads(json.dumps(world.matrix().as_json(1.5)))
    assert document["version"] == 1
    assert len({tuple(item) for item in document["items"]}) == 1
    bad = next(item for item in document["items"] if item["state"] == "no answer")
    assert bad["hint"] == {"text": "on a: cnictl x", "command": "cnictl x", "option": "", "on": "a"}
    assert bad["cause"]["host"] == "a"
    assert document["summary"]["states"] == {"ok": 20, "no answer": 1}
    assert (document["summary"]["passed"], document["summary"]["sample"]) == (False, None)


@pytest.mark.parametrize("hosts", [17, 18, 40, 200])
def test_sample_covers_each_host_evenly_and_is_connected(hosts: int) -> None:
    names = [f"h{number}" for number in range(hosts)]
    pairs = sample.choose(names, False, 7)
    assert {len(set(others)) for others in pairs.partners.values()} == {sample.EACH}
    assert all(host in pairs.partners[other] for host, others in pairs.partners.items() for other in others)
    assert all(host not in others for host, others in pairs.partners.items())
    reached, waiting = {names[0]}, [names[0]]
    while waiting:
        new = set(pairs.partners[waiting.pop()]) - reached
        reached |= new
        waiting += new
    assert reached == set(names)
    assert pairs.count == hosts * sample.EACH // 2


def test_sample_depends_on_the_seed_and_full_has_every_pair() -> None:
    names = [f"h{number}" for number in range(30)]
    assert sample.choose(names, False, 3) == sample.choose(names, False, 3)
    assert sample.choose(names, False, 3) != sample.choose(names, False, 4)
    assert sample.choose(names[:16], False, 3).count == 120
    assert sample.choose(names, True, 3).count == 435


def test_large_cluster_lists_its_red_pairs_and_names_the_sample() -> None:
    names = [f"h{number}" for number in range(20)]
    world = World(names)
    pairs = sample.choose(names, False, 5)
    sender = names[0]
    receiver = pairs.partners[sender][0]
    world.fails(sender, receiver)
    made = matrix.build(world.reports(), pairs)
    assert len([each for each in made.cells if each.check == POD_POD]) == 80
    assert picture.rows(made)[1] == [(sender, receiver, "pod-pod", "ipv4", "no answer")]
    assert "40 of 190 pairs (20 hosts, 4 partners each; seed 5; --full" in picture.heading(made)
    assert made.as_json(1)["summary"]["sample"] == {"seed": 5, "each": 4}


def test_lines_are_read_back_unchanged() -> None:
    host = ready(3, pod=("10.244.3.5", "fd00:244:0:3::5"))
    assert pair_reports.read_ready(pair_reports.ready_line(host)) == host
    request = PairRequest((host.as_target("n"),), 5, 0.5, ("192.0.2.10", "2001:db8::10"))
    assert pair_reports.read_request(pair_reports.request_line(request)) == request
    pings = list(World().pings.values())
    pings[0] = replace(pings[0], cause=reported("x", True, what_to_do=hint.command("z", on="10.0.0.9")))
    read = pair_reports.read_pings(pair_reports.pings_line(pings))
    assert read == tuple(pings)
    assert read[0].cause is not None and parts(read[0].cause.hint) == ("on 10.0.0.9: z", "z", "10.0.0.9")
    seen = (SeenRequests(host.token, 4, ("10.0.0.1",)),)
    assert pair_reports.read_seen(pair_reports.seen_line(seen)) == seen


@pytest.mark.parametrize(
    "line",
    [
        "",
        "null",
        "[" * 100_000,
        '{"version": 1}',
        '{"version": 1, "ready": null}',
        pair_reports.ready_line(ready(1)).replace("10.244.1.5", "10.244.1.500"),
        pair_reports.ready_line(ready(1)).replace("10.244.1.0/24", "10.244.1.1/24"),
        pair_reports.ready_line(ready(1)).replace("0000000000000001", "01"),
        pair_reports.ready_line(ready(1)).replace('"0.3.0"', "3"),
    ],
)
def test_line_that_is_not_a_report_is_refused(line: str) -> None:
    with pytest.raises(BadReport):
        pair_reports.read_ready(line)


def test_text_of_other_hosts_is_escaped() -> None:
    ping = replace(World().pings["a", "b", POD_POD], cause=reported("x", True, "a\x1b[2Jb" + "c" * 5000))
    (read,) = pair_reports.read_pings(pair_reports.pings_line([ping]))
    assert read.cause is not None
    assert "\x1b" not in read.cause.words and len(read.cause.words) <= 1000
    with pytest.raises(BadReport, match="version 2"):
        pair_reports.read_ready('{"version": 2}')


class Scripted:
    """A transport that replays hosts' lines; after a line that is None, the host is silent."""

    def __init__(self, said: Mapping[str, Sequence[str | None] | Problem]) -> None:
        self.said = said
        self.sent: dict[str, list[str]] = {host: [] for host in said}
        self.closed: list[str] = []

    def start(self, host: str, argv: Sequence[str]) -> "Scripted.Session":
        assert list(argv) == ["cnictl", "cluster-probe"]
        said = self.said[host]
        if isinstance(said, Problem):
            raise said
        return Scripted.Session(self, host, said)

    class Session:
        """A session that replays one host's lines."""

        def __init__(self, owner: "Scripted", host: str, said: Sequence[str | None]) -> None:
            self.owner, self.host, self.said = owner, host, said

        def send(self, text: str) -> None:
            self.owner.sent[self.host].append(text)

        def lines(self) -> Iterator[str]:
            for line in self.said:
                if line is not None:
                    yield line
                    continue
                while self.host not in self.owner.closed:
                    time.sleep(0.01)

        def close(self) -> None:
            self.owner.closed.append(self.host)


def script(world: World, host: str) -> list[str | None]:
    report = next(each for each in world.reports() if each.name == host)
    assert report.ready and report.pings is not None and report.seen is not None
    return [
        pair_reports.ready_line(report.ready),
        pair_reports.pings_line(report.pings),
        pair_reports.seen_line(report.seen),
    ]


def test_each_host_learns_the_others_and_their_reports_are_combined() -> None:
    world = World()
    transport = Scripted({host: script(world, host) for host in HOSTS})
    made = matrix_run.run(HOSTS, transport, lambda _: None)
    assert made.passed
    request = pair_reports.read_request(transport.sent["a"][0])
    assert [target.name for target in request.targets] == ["b", "c"]
    assert transport.sent["a"][1:] == [pair_reports.FINISH]
    assert set(transport.closed) == set(HOSTS)


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (Problem("connection refused"), "connection refused"),
        (
            Problem("No such command 'cluster-probe'. (see: cnictl --help)"),
            "cnictl on that host is too old for the test",
        ),
        ([None], "did not start its pod within 0.2 s"),
        ([], "cnictl on that host ended before the test was over"),
        (["hello\n"], "not a message of the test: hello"),
        (['{"version": 9}\n'], "it uses version 9 of the test's messages, not 1"),
    ],
)
def test_host_that_does_not_take_part_is_named_and_the_others_are_tested(
    said: Sequence[str | None] | Problem, fault: str
) -> None:
    world = World(["a", "b"])
    transport = Scripted({"a": script(world, "a"), "b": script(world, "b"), "x": said})
    made = matrix_run.run(["a", "b", "x"], transport, lambda _: None, limits=LATE)
    assert cell(made, "a", "b").state == cell(made, "b", "a").state == "ok"
    assert [(report.name, report.fault) for report in made.not_reached] == [("x", fault)]
    assert not made.passed


def test_command_prints_only_the_table_or_json_and_fails_for_a_red_pair(capsys: pytest.CaptureFixture[str]) -> None:
    world = World()
    cluster_test.run(HOSTS, Scripted({host: script(world, host) for host in HOSTS}))
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0] == "every pair of 3 hosts, pod to pod both ways"
    assert shown.out.splitlines()[1].split()[:3] == ["POD", "ON", "→"]
    assert "6 of 6 pod to pod checks ok" in shown.err
    world.fails("a", "b", cause=reported("forwarding-off", True, "net.ipv4.ip_forward is 0 on this node"))
    with pytest.raises(typer.Exit) as ended:
        cluster_test.run(HOSTS, Scripted({host: script(world, host) for host in HOSTS}), output=Format.JSON)
    assert ended.value.exit_code == 1
    document = json.loads(capsys.readouterr().out)
    assert document["summary"]["failed"] == 1
    with pytest.raises(typer.Exit):
        cluster_test.run(HOSTS, Scripted({host: script(world, host) for host in HOSTS}))
    assert "✘ a: net.ipv4.ip_forward is 0 on this node (a → b)" in capsys.readouterr().out
