"""What `cnictl ping` reports about answers, and the causes that the answers themselves show."""

import pytest

from cnictl.cli import main, output
from cnictl.node import hint
from cnictl.probe import packet_trace, path_mtu, pinging, service, why
from cnictl.probe.answer import REFUSED, REJECTED, REPLY, SILENT, TOO_BIG, UNSENT, Answer
from cnictl.probe.checks import CheckResult
from cnictl.probe.ends import Origin, Target
from cnictl.probe.failure import FailureCause
from cnictl.probe.packet_path import Step
from cnictl.probe.path_mtu import PathMtu
from cnictl.probe.ping_words import LOSS, as_json, heading, line, note, path_lines, resolved, summary
from cnictl.probe.place import Place
from cnictl.probe.pods import CheckedPod
from cnictl.probe.resolvers import Resolved
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
        (Answer(1, REFUSED, 0.001, "10.244.1.7", "connection refused"),
         "refused by 10.244.1.7: seq=2 time=1.000 ms (connection refused)"),
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


def test_dns_answer_names_the_name_its_addresses_and_the_server() -> None:
    for found, name in (("db.", "db"), ("db.example", "db (db.example)")):
        resolved_as = Resolved(("10.244.0.3",), found, "10.244.1.2", 0.0002)
        to = Target("db", "name", "10.244.0.3", Place("db"), resolved=resolved_as)
        assert resolved(to, "a file") == f"{name} is 10.244.0.3, from DNS server 10.244.1.2 in 0.2 ms (a file)"


def test_summary_counts_refusals_separately_from_losses() -> None:
    answers = [Answer(0, REPLY, 0.001), Answer(1, REFUSED, 0.002), Answer(2, SILENT), Answer(3, SILENT)]
    assert summary(FAR_TCP, answers) == [
        "4 sent, 1 answered, 1 refused, 50 % lost", "time: min 1.000, avg 1.500, max 2.000 ms"
    ]  # fmt: skip
    assert summary(FAR, [Answer(0, SILENT)]) == ["1 sent, 0 answered, 100 % lost"]
    assert summary(FAR, []) == ["0 sent, 0 answered, 0 % lost"]


def test_summary_of_refused_datagrams_agrees_with_the_exit_status() -> None:
    refused = [Answer(number, REFUSED, 0.001) for number in range(3)]
    for to, served, words in (
        (FAR_UDP, True, "3 sent, 3 answered (3 refused), 0 % lost"),
        (FAR_TCP, False, "3 sent, 0 answered, 3 refused, 0 % lost"),
    ):
        assert pinging.Run(WEB, to, None, pinging.Options(), refused).served is served
        assert summary(to, refused)[0] == words


def test_percentiles_are_shown_once_there_are_ten_times() -> None:
    answers = [Answer(number, REPLY, number / 1000) for number in range(1, 11)]
    assert summary(FAR, answers[:1])[1] == "time: 1.000 ms"
    assert summary(FAR, answers[:9])[1] == "time: min 1.000, avg 5.000, max 9.000 ms"
    assert summary(FAR, answers)[1] == ("time: min 1.000, avg 5.500, p50 5.000, p95 10.000, p99 10.000, max 10.000 ms")


def test_only_udp_refusals_have_a_note() -> None:
    refused = [Answer(0, REFUSED, 0.1)]
    assert note(FAR_UDP, refused).startswith("nothing listens on UDP port 53 of 10.244.1.7")
    assert (note(FAR_TCP, refused), note(FAR_UDP, [Answer(0, REPLY, 0.1)])) == ("", "")


def test_steps_are_in_columns() -> None:
    steps = [Step("request", "forward", "a"), Step("reply", "route in the pod", "b")]
    assert path_lines(steps) == [("  request  forward           ", "a"), ("  reply    route in the pod  ", "b")]


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
    reset = Answer(0, REFUSED, 0.1, "10.244.1.7", "connection refused")
    assert cause(FAR_TCP, reset).words.startswith(
        "10.244.1.7 answers: connection refused: nothing listens on TCP port 80"
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
    told = cause(FAR_TCP, Answer(0, REFUSED, 0.1, "10.244.1.7", "connection refused"))
    assert told.words.startswith("Service 10.244.1.7 forwards to 10.244.1.9: 10.244.1.9 answers: connection refused")
    assert "TCP port 8080" in told.words


def usage(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """Return what a command line that is wrong prints."""
    monkeypatch.setattr("sys.argv", ["cnictl", *words])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (("ping", "db", "10.244.1.2", "-c"), "ping"),
        (("bridge", "show", "--output"), "bridge show"),
        (("pod", "web", "-o"), "pod show"),
    ],
)
def test_option_without_its_argument_points_to_the_commands_own_help(
    words: tuple[str, ...], command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (told,) = usage(monkeypatch, capsys, *words)
    assert told.startswith(f"cnictl: Option '{words[-1]}' requires an argument. (see: ")
    assert told.endswith(f"cnictl {command} --help)")


def test_target_alone_is_meant_from_this_host(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert usage(monkeypatch, capsys, "ping", "10.0.10.51")[1].endswith("cnictl ping host 10.0.10.51")
    assert len(usage(monkeypatch, capsys, "ping", "host")) == 1
    assert len(usage(monkeypatch, capsys, "ping")) == 1


def test_size_below_the_smallest_packet_is_refused_with_the_range(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "60 to 65535" in usage(monkeypatch, capsys, "ping", "host", "10.0.0.1", "--size", "10")[0]


def test_long_text_is_wrapped_below_its_lead(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lead = "  request  forward   "
    text = " ".join(["ip saddr 10.244.0.0/24 accept"] * 3)
    monkeypatch.setattr(output, "screen_width", lambda: 60)
    output.print_hanging(lead, text)
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{lead}ip saddr ")
    assert all(line.startswith(" " * len(lead)) and line[len(lead)] != " " for line in others)
    assert " ".join([first[len(lead) :], *(line[len(lead) :] for line in others)]) == text
    monkeypatch.setattr(output, "screen_width", lambda: None)
    output.print_hanging("cause: ", text)
    assert capsys.readouterr().out == f"cause: {text}\n"


def test_without_root_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("sys.argv", ["cnictl", "ping", "host", "web page", "-c", "1"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.splitlines() == [
        "cnictl: cnictl ping needs root: it opens raw sockets and enters the network namespaces of pods",
        "  hint: sudo cnictl ping host 'web page' -c 1",
    ]
