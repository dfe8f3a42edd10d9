"""Hosts over ssh: ssh's command line, the meaning of its failures, and the findings between hosts."""

import json
import os
import re
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import cnictl
from cnictl.cli import cluster as cluster_cli
from cnictl.cli import cluster_test
from cnictl.cluster import change, survey
from cnictl.cluster.change import ClusterChange, HostChange
from cnictl.cluster.hosts import Answer, Command
from cnictl.cluster.inventory import Inventory
from cnictl.cluster.ssh import Ssh, fault_of
from cnictl.cluster.survey import HostStatus
from cnictl.core.errors import Problem, ProgramError, UsageProblem
from cnictl.core.process import run
from cnictl.node.reach.cluster_file import Cluster, parse

_FILE = (
    'network = "10.244.0.0/16"\nnodes = [\n'
    + "".join(
        f'  {{ name = "n{number}", address = "10.0.0.{number}", pod_cidr = "10.244.{number}.0/24" }},\n'
        for number in range(1, 9)
    )
    + "]\n"
)


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace ssh by a program that runs the remote command here and writes its arguments to a file for each call."""
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(
        "#!/usr/bin/env python3\nimport json, os, subprocess, sys, time\n"
        f"open(f'{tmp_path}/{{time.time_ns()}}.call', 'w').write(json.dumps(sys.argv[1:]))\n"
        "if '-O' in sys.argv: sys.exit(0)\n"
        "sys.exit(subprocess.call(['sh', '-c', sys.argv[-1]]))\n"
    )
    program.chmod(0o755)
    fake = tmp_path / "bin" / "cnictl"
    fake.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "cnictl ' + cnictl.__version__ + '" && exit\necho "$@"\n')
    fake.chmod(0o755)
    sudo = tmp_path / "bin" / "sudo"
    sudo.write_text('#!/bin/sh\n[ "$1 $2" = "-n --" ] || exit 9\nshift 2\nexec "$@"\n')
    sudo.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return tmp_path


def test_arguments_arrive_unchanged_and_host_names_follow_a_double_dash(ssh: Path) -> None:
    odd = ("a b", "$(touch /tmp/owned)", "'; reboot; '", "*", "-x", "", "\u00e9\n")
    with Ssh({"n1": "root@n1"}) as hosts:
        command = Command(("/usr/bin/env", "printf", "[%s]", *odd), "")
        answer = hosts.run({"n1": command}, 20)["n1"]
    assert answer.stdout == "".join(f"[{word}]" for word in odd)
    calls = [json.loads(call.read_text()) for call in sorted(ssh.glob("*.call"))]
    for argv in calls[:2]:
        assert argv[-3:-1] == ["--", "root@n1"]
        assert "BatchMode=yes" in argv and "ControlMaster=auto" in argv
        assert not any("StrictHostKeyChecking" in word or "UserKnownHosts" in word for word in argv)
        assert shlex.split(argv[-1])[:2] == ["sh", "-c"]


def test_sockets_are_in_a_private_folder_that_is_removed_at_the_end(ssh: Path) -> None:
    with Ssh({"n1": "n1"}) as hosts:
        hosts.connect()
        folder = Path(hosts._folder)
        assert folder.stat().st_mode & 0o777 == 0o700
        assert folder.parent == Path("/tmp")
    assert not folder.exists()
    assert ssh.exists()


def test_answers_are_reported_by_host_as_they_arrive(ssh: Path) -> None:
    told: list[str] = []
    with Ssh({f"n{number}": f"host{number}" for number in range(40)}) as hosts:
        commands = {name: Command(("echo", name)) for name in hosts.names}
        answers = hosts.run(commands, 60, lambda answer: told.append(answer.host))
    assert {name: answer.stdout.strip() for name, answer in answers.items()} == {name: name for name in commands}
    assert sorted(told) == sorted(commands)
    assert ssh.exists()


def test_session_sends_and_reads_lines(ssh: Path) -> None:
    with Ssh({"n1": "n1"}) as hosts:
        session = hosts.start("n1", ["sh", "-c", 'read word; echo "got $word"; echo "cnictl: no" >&2; exit 3'])
        session.send("it\n")
        lines = session.lines()
        assert next(lines) == "got it"
        with pytest.raises(Problem, match=r"^no$"):
            next(lines)
        session.close()
        slow = hosts.start("n1", ["cat"])
        slow.close()
        assert list(slow.lines()) == []
    assert ssh.exists()


@pytest.mark.parametrize("destination", ["-oProxyCommand=x", "a b", "u@", "$(x)", "a;b", "", "h/../x", "u@-h"])
def test_destination_that_is_not_a_host_is_refused(destination: str) -> None:
    with pytest.raises(UsageProblem):
        Ssh({"n1": destination})


_CHANGED_KEY = "@@@\n@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.\n"


@pytest.mark.parametrize(
    ("status", "stderr", "fault", "hint"),
    [
        (0, "", "", ""),
        (1, "cnictl: this host differs\n", "", ""),
        (255, _CHANGED_KEY, "the host's key differs from known_hosts", "ssh-keygen -R n1"),
        (255, "Host key verification failed.\r\n", "the host's key is not known yet", "ssh root@n1"),
        (255, "root@n1: Permission denied (publickey).\n", "Permission denied", "ssh-copy-id root@n1"),
        (255, "ssh: connect to host n1 port 22: No route to host\n", "can't be reached: ssh: connect", "ssh root@n1"),
        (255, "", "can't be reached: ssh printed no error", ""),
        (255, _CHANGED_KEY + "Host key for 10.0.0.9 has changed and\n", "the key of 10.0.0.9 differs", "-R 10.0.0.9"),
        (255, "Connection closed by UNKNOWN port 65535\n", "a host on the path", "ssh root@n1"),
        (
            255,
            "jump: Permission denied\x1b[2J.\nConnection closed by UNKNOWN port 65535\n",
            "a host on the path (ProxyJump, ProxyCommand): jump: Permission denied\\x1b[2J.",
            "ssh root@n1",
        ),
        (1, "sudo: a password is required\n", "sudo: a password is required", "NOPASSWD"),
        (1, "me is not in the sudoers file.\n", "me is not in the sudoers file.", "NOPASSWD"),
        (1, "sudo: unable to resolve host n1: Name or service not known\n", "", ""),
        (1, "sudo: a warning\ncnictl: this host differs\n", "", ""),
        (127, "cnictl: not found\n", "cnictl is not installed there", "cnictl cluster install"),
        (127, "sh: 1: sudo: not found\n", "sudo is not installed there", "as root"),
        (255, "Connection closed\x1b[2J\n", "Connection closed\\x1b[2J", ""),
    ],
)
def test_errors_of_ssh_and_sudo_are_reported_with_a_hint(status: int, stderr: str, fault: str, hint: str) -> None:
    message, said = fault_of(status, stderr, "root@n1")
    assert fault in message if fault else not message
    assert hint in said
    assert message.isprintable()


@pytest.mark.parametrize("text", ["[" * 40 + "]" * 40, '{"a": NaN}', '{"a": [-Infinity]}', "[]", "", '{"a": 1'])
def test_answer_that_is_not_an_object_is_refused(text: str) -> None:
    nested = '{"steps": ' + text + "}" if text.startswith("[[") else text
    answer = Answer("n1", 0, nested)
    assert answer.document() is None
    assert answer.error == "cnictl on that host returned unexpected output"


@pytest.mark.parametrize("names", [[""], [","], ["", " , "]])
def test_limit_without_a_name_does_not_mean_all(names: list[str]) -> None:
    known = Inventory("cluster.toml", b"", _FILE, parse(_FILE))
    assert len(known.limited([])) == 8
    with pytest.raises(UsageProblem, match="--limit names no node"):
        known.limited(names)


def test_matrix_of_one_host_is_refused_before_it_is_asked(tmp_path: Path) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text(_FILE)
    with pytest.raises(UsageProblem, match="n1 is the only one here"):
        cluster_test.test(str(file), ["n1"])


def test_reading_ends_with_the_program_even_if_it_leaves_a_child() -> None:
    start = time.monotonic()
    done = run(["sh", "-c", "echo said; sleep 30 & exit 4"], check=False, leaves_child=True)
    assert (done.status, done.stdout) == (4, "said\n")
    assert time.monotonic() - start < 10
    with pytest.raises(ProgramError, match="answered with over 1 MiB"):
        run(["yes"], most=1 << 20, leaves_child=True)
    with pytest.raises(ProgramError, match=r"still running after 0\.2 s"):
        run(["sleep", "30"], timeout=0.2, leaves_child=True)


def _cluster(count: int) -> Cluster:
    whole = parse(_FILE)
    return Cluster(whole.networks, whole.node_prefixes, whole.nodes[:count])


def _said(cluster: Cluster, number: int, **changed: Any) -> dict[str, Any]:
    """Return `status -o json` of node `number`, whose peers are all other nodes."""
    own = cluster.nodes[number - 1]
    peers = [
        {"pod_cidr": node.pod_cidrs[0], "via": node.addresses[0], "state": "ok", "answers": True}
        for node in cluster.nodes
        if node is not own
    ]
    node = {"subnets": list(own.pod_cidrs), "networks": list(cluster.networks), "name": "mynet"}
    return {"drifted": 0, "unknown": 0, "node": node, "bridge": {"mtu": 1500}, "peers": peers, "strays": []} | changed


def _read(cluster: Cluster, number: int, document: object, version: str = cnictl.__version__) -> HostStatus:
    node = cluster.nodes[number - 1]
    text = document if isinstance(document, str) else json.dumps(document)
    return survey.read(node, Answer(node.name, 0, f"cnictl {version}\n"), Answer(node.name, 0, text))


def test_node_with_another_pod_cidr_than_the_file_is_reported_once() -> None:
    cluster = _cluster(3)
    node = {"subnets": ["10.244.99.0/24"], "networks": list(cluster.networks), "name": "mynet"}
    statuses = [_read(cluster, number, _said(cluster, number)) for number in (1, 2)]
    statuses.append(_read(cluster, 3, _said(cluster, 3, node=node)))
    (finding,) = survey.findings(statuses, cluster)
    assert finding.message == "n3 has the pod CIDR 10.244.99.0/24; the file gives it 10.244.3.0/24"
    assert finding.hint.endswith("cnictl cluster apply --limit n3")


def test_cluster_without_a_fault_has_no_findings() -> None:
    cluster = _cluster(4)
    statuses = [_read(cluster, number, _said(cluster, number)) for number in range(1, 5)]
    assert [status.state for status in statuses] == ["ok"] * 4
    assert survey.findings(statuses, cluster) == []


def test_host_that_lacks_many_peers_is_one_sentence() -> None:
    cluster = _cluster(8)
    statuses = [_read(cluster, number, _said(cluster, number, peers=[])) for number in range(1, 9)]
    messages = [finding.message for finding in survey.findings(statuses, cluster)]
    assert "n1 has no peer for 7 nodes: n2, n3, n4, n5, n6 and 2 more" in messages
    assert len(messages) == 8


def test_host_that_is_down_is_expected_as_a_peer_and_adds_no_finding() -> None:
    cluster = _cluster(3)
    said = _said(cluster, 1)
    said["peers"][1]["answers"] = False
    down = survey.read(cluster.nodes[2], Answer("n3", fault="can't be reached"), Answer("n3", fault="can't be reached"))
    assert down.state == "unreachable"
    statuses = [_read(cluster, 1, said), _read(cluster, 2, _said(cluster, 2)), down]
    assert survey.findings(statuses, cluster) == []
    statuses[2] = _read(cluster, 3, _said(cluster, 3))
    (finding,) = survey.findings(statuses, cluster)
    assert finding.message == "n1 gets no answer from n3 at 10.0.0.3, though both are reachable from here"
    assert finding.hosts == ("n1", "n3")


def test_peer_of_no_node_is_named() -> None:
    cluster = _cluster(2)
    said = _said(cluster, 1)
    said["peers"].append({"pod_cidr": "10.244.77.0/24", "via": "10.0.0.77", "state": "ok"})
    (finding,) = survey.findings([_read(cluster, 1, said), _read(cluster, 2, _said(cluster, 2))], cluster)
    assert finding.message == (
        "n1 has a peer 10.244.77.0/24 through 10.0.0.77, but no node of the cluster has that pod CIDR"
    )


@pytest.mark.parametrize(
    "document",
    [
        "", "[]", "null", "[" * 100000, '{"node": 5}', '{"node": {"subnets": "10.244.1.0/24"}}',
        '{"node": {"subnets": [null, 5, [], "x"]}}', "{" * 1000,
    ],
)  # fmt: skip
def test_document_that_is_not_a_status_is_a_faulty_host(document: str) -> None:
    cluster = _cluster(1)
    status = _read(cluster, 1, document)
    assert status.state == "faulty" and not status.is_set_up
    assert survey.findings([status], cluster) == []


def test_other_versions_are_reported_with_any_text() -> None:
    cluster = _cluster(2)
    assert (
        _read(cluster, 1, _said(cluster, 1), "9.9").why == f"has cnictl 9.9, but this machine has {cnictl.__version__}"
    )
    old = survey.read(cluster.nodes[0], Answer("n1", 2, "", "cnictl: No such option: --version"), Answer("n1", 1))
    assert old.state == "other version"
    assert old.why.startswith("has an older cnictl")


def test_hint_is_to_upgrade_an_older_host_or_this_machine() -> None:
    cluster = _cluster(1)
    assert _read(cluster, 1, _said(cluster, 1), "0.0.1").hint == "cnictl cluster upgrade --limit n1"
    assert _read(cluster, 1, _said(cluster, 1), "99.0").hint.startswith("install cnictl 99.0 on this machine; or ")


def test_plugin_versions_are_listed_beside_cnictls_and_differences_are_found() -> None:
    cluster = _cluster(3)
    plugins = ("0.2.0", "0.2.0+1a2b3c4d", "0.1.0")
    statuses = [
        _read(cluster, number, _said(cluster, number, plugin={"version": plugin}))
        for number, plugin in enumerate(plugins, 1)
    ]
    assert [status.as_json()["plugin"] for status in statuses] == list(plugins)
    (finding,) = survey.findings(statuses, cluster)
    assert finding.message == "n3 has plugin version 0.1.0, but n1 has 0.2.0"


def test_file_that_was_changed_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(_FILE)
    known = Inventory(str(path), path.read_bytes(), _FILE, parse(_FILE))
    path.write_text(_FILE + "# mine\n")
    with pytest.raises(Problem, match="has changed since this command read it"):
        known.write(_FILE)
    assert path.read_text().endswith("# mine\n")


def test_host_that_will_revert_is_faulty_and_says_when() -> None:
    cluster = _cluster(2)
    waiting = {"run": 3, "command": "init-node", "seconds_left": 40.2, "reverts_at": 1.0}
    status = _read(cluster, 1, _said(cluster, 1, unconfirmed=waiting))
    assert status.state == "faulty" and not status.own_trouble
    assert re.fullmatch(r"reverts its last run at \d\d:\d\d:\d\d, in 40 s, unless it is confirmed", status.why)
    assert status.hint == "ssh 10.0.0.1 sudo cnictl confirm"
    assert _read(cluster, 1, _said(cluster, 1, unconfirmed=None)).state == "ok"
    strange: tuple[object, ...] = (-1, 1e99, "soon", [], float("inf"))
    for odd in strange:
        words = survey.unconfirmed({"seconds_left": odd})
        assert words.startswith("reverts its last run"), "an invalid time must not make the host count as healthy"


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("cnictl doctor --fix", "ssh 10.0.0.1 sudo cnictl doctor --fix"),
        ("cnictl apply  # and look again", "ssh 10.0.0.1 sudo cnictl apply  # and look again"),
        ("cnictl apply; reboot", "on n1: cnictl apply; reboot"),
        ("cnictl apply `reboot`", "on n1: cnictl apply `reboot`"),
        ("check the cable", "on n1: check the cable"),
        ("", ""),
    ],
)
def test_hint_of_a_host_names_the_host(said: str, hint: str) -> None:
    node = _cluster(1).nodes[0]
    stderr = f"cnictl: no\n  hint: {said}\n" if said else "cnictl: no\n"
    assert survey.hint_of(node, Answer("n1", 1, "", stderr)) == hint


def test_option_in_a_hosts_hint_becomes_a_command_there() -> None:
    node = replace(_cluster(1).nodes[0], ssh="root@n1")
    answer = Answer(
        "n1", 1, "", "cnictl: init-node would cut off 1 pod\n  hint: move them away first, or use --force\n"
    )
    row = change._planned(node, answer)
    assert row.state == "failed"
    assert row.hint == (
        "on n1: move them away first, or use --force: scp cluster.toml root@n1:/tmp/ && "
        "ssh root@n1 cnictl init-node --from /tmp/cluster.toml --force"
    )


class _Answering:
    """Hosts that `init-node` sets up: n1 changes, n2 is lost, and at n3 the operator presses Ctrl-C."""

    names = ("n1", "n2", "n3", "n4")

    def connect(self, on_answer: Callable[[Answer], None]) -> dict[str, Answer]:
        del on_answer
        return {name: Answer(name, 0, f"cnictl {cnictl.__version__}\n") for name in self.names}

    def reconnect(self, names: Sequence[str]) -> None:
        assert names

    def run(
        self, commands: Mapping[str, Command], timeout: float, on_answer: Callable[[Answer], None]
    ) -> dict[str, Answer]:
        del timeout, on_answer
        return {name: self._answer(name, command) for name, command in commands.items()}

    def _answer(self, name: str, command: Command) -> Answer:
        if "--status" in command.argv:
            return Answer(name, 0, '{"waiting": 5, "command": "init-node", "seconds_left": 20.0}')
        if "init-node" not in command.argv:
            return Answer(name, 0, json.dumps(_said(_cluster(4), int(name[1:]))))
        if name == "n2":
            return Answer(name, fault="no answer")
        if name == "n3":
            raise KeyboardInterrupt
        return Answer(name, 0, json.dumps({"steps": [{"outcome": "changed"}], "changed": 1}))


def _changing(number: int) -> tuple[ClusterChange, list[HostChange]]:
    nodes = _cluster(4).nodes[:number]
    hosts = _Answering()
    changing = ClusterChange(hosts, nodes, _FILE, hosts.connect(lambda _: None))
    return changing, [HostChange(node, change.WOULD_CHANGE) for node in nodes]


def test_interrupted_change_reports_what_is_known_of_each_host(capsys: pytest.CaptureFixture[str]) -> None:
    changing, planned = _changing(4)
    planned[3] = replace(planned[3], state=change.UNREACHABLE)
    with pytest.raises(KeyboardInterrupt), cluster_cli._telling(changing):
        changing.carry_out(planned, None, False, lambda _: None)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["n1: changed", "n2: not known"]
    assert lines[2:] == ["n3: not known", "n4: unchanged"]


def test_unchanged_host_that_will_revert_does_not_match_the_file() -> None:
    changing, planned = _changing(1)
    (row,) = changing.carry_out([replace(planned[0], state=change.UNCHANGED)], None, False, lambda _: None)
    assert row.state == "unconfirmed" and not row.is_good
    assert row.why.startswith("reverts its last run at ") and row.hint == "ssh 10.0.0.1 sudo cnictl confirm"
