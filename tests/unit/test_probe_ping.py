"""What `cnictl ping` reports about answers, and the causes that the answers themselves show."""

import pytest

from cnictl.cli import main
from cnictl.node import hint
from cnictl.probe import packet_trace, path_mtu, service, why
from cnictl.probe.answer import REFUSED, REJECTED, REPLY, SILENT, TOO_BIG, UNSENT, Answer
from cnictl.probe.checks import CheckResult
from cnictl.probe.ends import Origin, Target
from cnictl.probe.failure import FailureCause
from cnictl.probe.packet_path import Step
from cnictl.probe.path_mtu import PathMtu
from cnictl.probe.ping_words import LOSS, as_json, heading, line, note, path_lines, summary
from cnictl.probe.place import Place
from cnictl.probe.pods import CheckedPod
from cnictl.probe.service import Port, Service
from cnictl.probe.trace import Drop

WEB = Origin("default/web", "pod", CheckedPod("default/web", "/run/netns/x", ("10.244.0.5",), "veth0"))
FAR = Target("10.244.1.7", "address", "10.244.1.7", Place("10.244.1.7"))
FAR_TCP = Target("far", "pod", "10.244.1.7", Place("far", 80, "tcp"))
FAR_UDP = Target("far", "pod", "10.244.1.7", Place("far", 53, "udp"))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(0, REPLY, 0.0001234, "10.244.1.7"), "reply from 10.244.1.7: seq=1 time=0.123 ms"),
        (Answer(1, REFUSED, 0.001, "10.244.1.7", "connection reset"),
         "refused by 10.244.1.7: seq=2 time=1.000 ms (connection reset)"),
        (Answer(0, REJECTED, 0, "10.0.10.51", "host unreachable"), "10.0.10.51 answers: seq=1 host unreachable"),
        (Answer(0, TOO_BIG, 0, "10.0.10.51", mtu=1400), "10.0.10.51 answers: seq=1 packet too big, the MTU is 1400"),
        (Answer(0, TOO_BIG, mtu=1500), "not sent: seq=1 too big, the MTU is 1500"),
        (Answer(0, UNSENT, words="Network is unreachable"), "not sent: seq=1 Network is unreachable"),
        (Answer(0, SILENT), "no answer: seq=1 within 0.5 s"),
    ],
)  # fmt: skip
def test_each_answer_is_a_line(answer: Answer, said: str) -> None:
    assert line(answer, 0.5) == said


def test_ends_are_named_with_their_addresses() -> None:
    assert heading(WEB, "10.244.0.5", FAR_TCP, 0) == "default/web (10.244.0.5) to far (10.244.1.7), TCP port 80"
    assert heading(WEB, "10.244.0.5", FAR, 1400).endswith(" to 10.244.1.7, ICMP, 1400 bytes")


def test_summary_counts_refusals_separately_from_losses() -> None:
    answers = [Answer(0, REPLY, 0.001), Answer(1, REFUSED, 0.002), Answer(2, SILENT), Answer(3, SILENT)]
    assert summary(answers) == [
        "4 sent, 1 answered, 1 refused, 50 % lost", "time: min 1.000, p50 1.000, p95 2.000, p99 2.000, max 2.000 ms"
    ]  # fmt: skip
    assert summary([Answer(0, SILENT)]) == ["1 sent, 0 answered, 100 % lost"]
    assert summary([]) == ["0 sent, 0 answered, 0 % lost"]


def test_only_udp_refusals_have_a_note() -> None:
    refused = [Answer(0, REFUSED, 0.1)]
    assert note(FAR_UDP, refused).startswith("nothing listens on UDP port 53 of 10.244.1.7")
    assert (note(FAR_TCP, refused), note(FAR_UDP, [Answer(0, REPLY, 0.1)])) == ("", "")


def test_steps_are_in_columns() -> None:
    steps = [Step("request", "forward", "a"), Step("reply", "route in the pod", "b")]
    assert path_lines(steps) == ["  request  forward           a", "  reply    route in the pod  b"]


def test_json_reports_loss_if_some_answers_came() -> None:
    answers = [Answer(1, SILENT), Answer(0, REPLY, 0.1)]
    cause = FailureCause("loss", "1 of 2 requests lost", hint.NONE)
    document = as_json(WEB, "10.244.0.5", FAR, answers, False, cause, None)
    assert (document["result"], [item["seq"] for item in document["items"]]) == (LOSS, [1, 2])
    assert (document["hint"], document["trace"]) == (None, None)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tests off the machine: there is no Service, no rule that drops, and no node file."""
    monkeypatch.setattr(service, "find", lambda _: None)
    monkeypatch.setattr(packet_trace, "find_drop", lambda *_: None)
    monkeypatch.setattr(packet_trace, "sent_on_to", lambda *_: ("", 0))
    monkeypatch.setattr(why, "_plain", lambda _: FailureCause("plain", "", hint.NONE))
    monkeypatch.setattr(path_mtu, "path_mtu", lambda *_: PathMtu(0, 0))


def cause(to: Target, *answers: Answer, size: int = 0) -> FailureCause:
    failed = why.Failed(WEB, to, None, answers, size, lambda: None)
    return why.find_cause(failed, lambda _: None)


def test_packet_too_big_names_its_reporter_and_a_size_that_passes() -> None:
    told = cause(FAR, Answer(0, TOO_BIG, by="10.0.10.51", mtu=1400), size=1450)
    assert told.name == "mtu"
    assert told.words == "a packet of 1450 bytes is too big: 10.0.10.51 answers that the MTU of its next link is 1400"
    assert told.hint.option == "--size 1400"
    own = cause(FAR, Answer(0, TOO_BIG, mtu=1500), size=1501)
    assert own.words.endswith("the link of default/web has an MTU of 1500")
    assert cause(FAR, Answer(0, TOO_BIG), size=1501).hint.option == ""


def test_large_packets_that_vanish_are_compared_with_smaller_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_mtu, "path_mtu", lambda *_: PathMtu(1404, 1450))
    lost = cause(FAR, Answer(0, SILENT), size=1450)
    assert lost.words == "packets of up to 1404 bytes pass, larger ones are lost, and no router reports it"
    assert cause(FAR, Answer(0, SILENT), size=1404).name == "plain"


def test_partial_loss_has_no_other_cause() -> None:
    assert cause(FAR, Answer(0, REPLY, 0.1), Answer(1, SILENT)).words == "1 of 2 requests lost"


def test_reset_is_from_the_target_unless_a_rule_here_sent_it(monkeypatch: pytest.MonkeyPatch) -> None:
    reset = Answer(0, REFUSED, 0.1, "10.244.1.7", "connection reset")
    assert cause(FAR_TCP, reset).words.startswith(
        "10.244.1.7 answers: connection reset: nothing listens on TCP port 80"
    )
    monkeypatch.setattr(packet_trace, "find_drop", lambda *_: Drop("ip deny", "c", "tcp dport 80 reject"))
    here = cause(FAR_TCP, reset)
    assert here.name == "rejected-here"
    assert 'by rule "tcp dport 80 reject" of chain ip deny c' in here.words
    assert cause(FAR_TCP, Answer(0, SILENT)).name == "dropped-here"


def test_silent_port_is_blamed_on_the_target_if_pings_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    passed = CheckResult("pod-other-host", "10.244.0.5", "10.244.1.7", "ok", 2, 2, (0.1, 0.1, 0.1))
    monkeypatch.setattr(why, "_pinged", lambda *_: passed)
    assert cause(FAR_TCP, Answer(0, SILENT)).words == (
        "TCP port 80 of 10.244.1.7 does not answer, although pings pass: a firewall there drops it, or the service is "
        "too busy to accept connections"
    )
    assert "gives no answer to this datagram" in cause(FAR_UDP, Answer(0, SILENT)).words
    assert cause(FAR, Answer(0, SILENT)).words == "it answers again now: the earlier requests were lost"
    prohibited = cause(FAR_TCP, Answer(0, REJECTED, 0, "10.0.10.51", "communication administratively prohibited"))
    assert prohibited.words.startswith("10.0.10.51 answers: communication administratively prohibited (to TCP port 80")


@pytest.mark.parametrize(
    ("ports", "to", "name"),
    [
        ((Port("tcp", 443),), FAR, "service-address"),
        ((Port("tcp", 443),), FAR_TCP, "no-such-port"),
        ((Port("tcp", 80, has_endpoints=False),), FAR_TCP, "no-endpoints"),
    ],
)
def test_service_shows_its_endpoints(
    ports: tuple[Port, ...], to: Target, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "find", lambda _: Service(ports, ()))
    assert cause(to, Answer(0, SILENT)).name == name


def test_endpoint_of_a_service_is_checked_in_place_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "find", lambda _: Service((Port("tcp", 80),), ()))
    monkeypatch.setattr(packet_trace, "sent_on_to", lambda *_: ("10.244.1.9", 8080))
    told = cause(FAR_TCP, Answer(0, REFUSED, 0.1, "10.244.1.7", "connection reset"))
    assert told.words.startswith("Service 10.244.1.7 forwards to 10.244.1.9: 10.244.1.9 answers: connection reset")
    assert "TCP port 8080" in told.words


def test_without_root_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("sys.argv", ["cnictl", "ping", "host", "10.0.0.1"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.splitlines() == [
        "cnictl: cnictl ping needs root: it opens raw sockets and enters the network namespaces of pods",
        "  hint: sudo cnictl ping",
    ]
