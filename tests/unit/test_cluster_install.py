"""What happens to each host in a roll-out: which hosts are left out and why, where it stops, and what it reverts."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from cnictl.cluster import host_install, install
from cnictl.cluster.bundle import Bundle
from cnictl.cluster.hosts import Answer, Command
from cnictl.cluster.install import HostInstall, Rollout
from cnictl.node.reach.cluster_file import ClusterNode, parse

NEW = Bundle(b"contents", "2.0.0", "2.0.0+aaaaaaaa", has_kubernetes=False)
FILE = 'network = "10.244.0.0/16"\nnodes = [\n' + "".join(
    f'  {{ name = "n{number}", address = "10.0.0.{number}", pod_cidr = "10.244.{number}.0/24" }},\n'
    for number in range(1, 4)
) + "]\n"  # fmt: skip
OK_PROBE = {"checks": [{"check": "own-host", "state": "ok"}, {"check": "external", "state": "failed"}]}


@dataclass
class Host:
    """A host as the roll-out sees it; a test can make it fail."""

    cnictl: str = "1.0.0"
    bundle: str = ""
    plugin: str = "1.0.0"
    python: str = "/usr/bin/python3"
    packaged: str = ""
    source: str = ""
    is_node: bool = True
    fault: str = ""
    fails: Mapping[str, str] = field(default_factory=dict)
    """The error with which a command fails, by the command's name."""
    findings: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The errors that doctor finds, by version of cnictl."""
    probe: Mapping[str, Any] = field(default_factory=lambda: OK_PROBE)
    runs: list[tuple[str, str]] = field(default_factory=list)
    """Each run of `plugin install`: the plugin's version before it, and the command."""
    did: list[str] = field(default_factory=list)

    def answer(self, command: Command) -> tuple[int, str, str]:
        """Return the exit status, stdout and stderr of a command."""
        name = next(key for key, known in KNOWN.items() if known(command))
        if name not in ("observe", "status"):
            self.did.append(name)
        if name in self.fails:
            return 1, "", f"cnictl: {self.fails[name]}\n"
        answer: tuple[int, str, str] = getattr(self, f"_{name}")(command)
        return answer

    def _observe(self, _: Command) -> tuple[int, str, str]:
        version = f"cnictl {self.cnictl}" if self.cnictl else ""
        packaged = f"packaged={self.packaged}\n" if self.packaged else ""
        python = f"python={self.python}\n" if self.python else ""
        return 0, f"{python}{packaged}bundle={self.bundle}\ncnictl={version}\n", ""

    def _status(self, _: Command) -> tuple[int, str, str]:
        if not self.is_node:
            return 1, "", "cnictl: this host is not set up as a cnictl node\n"
        source = {"title": self.source} if self.source else None
        return 0, json.dumps({"node": {}, "plugin": {"version": self.plugin}, "source": source}), ""

    def _doctor(self, _: Command) -> tuple[int, str, str]:
        items = [
            {"id": "check", "subject": text, "severity": "error", "message": text}
            for text in self.findings.get(self.cnictl, ())
        ]
        return int(bool(items)), json.dumps({"items": items}), ""

    def _probe(self, _: Command) -> tuple[int, str, str]:
        return 1, json.dumps(self.probe), ""

    def _install(self, _: Command) -> tuple[int, str, str]:
        self.cnictl, self.bundle = NEW.version, NEW.name
        return 0, "", ""

    def _plugin(self, _: Command) -> tuple[int, str, str]:
        self.runs.append((self.plugin, "plugin install"))
        self.plugin = self.cnictl
        return 0, json.dumps({"state": "changed"}), ""

    def _history(self, _: Command) -> tuple[int, str, str]:
        runs = [{"run": number, "command": words} for number, (_, words) in enumerate(self.runs, 1)]
        return 0, json.dumps({"items": runs[::-1]}), ""

    def _undo(self, command: Command) -> tuple[int, str, str]:
        self.plugin = self.runs[int(command.argv[2]) - 1][0]
        return 0, "{}", ""

    def _use(self, command: Command) -> tuple[int, str, str]:
        self.plugin = command.argv[3]
        return 0, "{}", ""

    def _back(self, command: Command) -> tuple[int, str, str]:
        self.bundle = "" if command.argv[-1] in ("", "before-bundle") else command.argv[-1]
        self.cnictl = "1.0.0" if command.argv[-1] else ""
        return 0, "", ""

    def _restart(self, _: Command) -> tuple[int, str, str]:
        return 0, "", ""


KNOWN: dict[str, Callable[[Command], bool]] = {
    "observe": lambda command: command == host_install.OBSERVE,
    "status": lambda command: command == host_install.STATUS,
    "doctor": lambda command: command == host_install.DOCTOR,
    "probe": lambda command: command == host_install.PROBE,
    "install": lambda command: command == host_install.install(NEW),
    "plugin": lambda command: command == host_install.PLUGIN_INSTALL,
    "history": lambda command: command == host_install.HISTORY,
    "restart": lambda command: command == host_install.RESTART_WATCH,
    "undo": lambda command: command.argv[1] == "undo",
    "use": lambda command: command.argv[1:3] == ("plugin", "use"),
    "back": lambda command: command.argv[0] == "sh",
}


@dataclass
class FakeHosts:
    """Hosts that answer at once."""

    by_name: dict[str, Host]

    @property
    def names(self) -> tuple[str, ...]:
        """The hosts' names."""
        return tuple(self.by_name)

    def connect(self, on_answer: Callable[[Answer], None]) -> dict[str, Answer]:
        """Not used by a roll-out."""
        raise NotImplementedError

    def run(
        self, commands: Mapping[str, Command], timeout: float, on_answer: Callable[[Answer], None]
    ) -> dict[str, Answer]:
        """Answer each command."""
        assert timeout > 0
        answers = {}
        for name, command in commands.items():
            host = self.by_name[name]
            answers[name] = Answer(name, fault=host.fault) if host.fault else Answer(name, *host.answer(command))
            on_answer(answers[name])
        return answers

    def reconnect(self, names: Sequence[str]) -> None:
        """Do nothing: there are no connections."""


def roll_out(*hosts: Host, is_upgrade: bool = True, bundle: Bundle = NEW, dry: bool = False) -> list[HostInstall]:
    nodes: tuple[ClusterNode, ...] = parse(FILE, "cluster.toml").nodes[: len(hosts)]
    named = FakeHosts({node.name: host for node, host in zip(nodes, hosts, strict=True)})
    rollout = Rollout(named, nodes, bundle, is_upgrade)
    planned = rollout.plan()
    return planned if dry else rollout.carry_out(planned)


def test_upgrade_changes_command_and_plugin_and_verifies_each_host() -> None:
    hosts = Host(), Host(bundle="1.0.0+bbbbbbbb")
    rows = roll_out(*hosts)
    assert [row.state for row in rows] == ["changed", "changed"]
    for host, row in zip(hosts, rows, strict=True):
        assert (host.cnictl, host.bundle, host.plugin) == ("2.0.0", NEW.name, "2.0.0")
        assert host.did == ["doctor", "install", "plugin", "restart", "probe", "doctor"]
        assert row.as_json()["plugin"] == {"before": "1.0.0", "after": "2.0.0"}
    assert [row.state for row in roll_out(*hosts)] == ["unchanged", "unchanged"]


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ({"fails": {"install": "no space"}}, "no space"),
        ({"fails": {"plugin": "self-test: ADD failed"}}, "plugin: self-test: ADD failed"),
        ({"fails": {"probe": "the plugin failed"}}, "probe pod: the plugin failed"),
        ({"probe": {"checks": [{"check": "own-host", "state": "failed", "cause": "x"}]}}, "probe pod: own-host: x"),
        ({"probe": {"checks": []}}, "probe pod: test-connectivity there did not ping this host"),
        ({"findings": {"2.0.0": ["no route"]}}, "doctor: no route"),
        ({"fails": {"restart": "unit not found"}}, "cnictl-watch: unit not found"),
    ],
)
@pytest.mark.parametrize("bundle", ["", "1.0.0+bbbbbbbb"])
def test_failed_host_is_rolled_back_and_later_hosts_are_not_changed(fault: Any, why: str, bundle: str) -> None:
    first, second, third = Host(), Host(bundle=bundle, **fault), Host()
    rows = roll_out(first, second, third)
    assert [row.state for row in rows] == ["changed", "reverted", "not started"]
    assert rows[1].why == why
    assert (second.cnictl, second.bundle, second.plugin) == ("1.0.0", bundle, "1.0.0")
    assert rows[2].why == "n2 failed before it"
    assert third.did == []


def test_error_that_doctor_found_before_does_not_fail_the_upgrade() -> None:
    host = Host(findings={"1.0.0": ["a silent peer"], "2.0.0": ["a silent peer"]})
    assert [row.state for row in roll_out(host)] == ["changed"]


def test_plugin_is_rolled_back_by_version_if_no_run_can_be_undone() -> None:
    host = Host(fails={"probe": "broken", "history": "unreadable"})
    assert [row.state for row in roll_out(host)] == ["reverted"]
    assert host.plugin == "1.0.0" and "use" in host.did


def test_host_that_cannot_be_rolled_back_is_reported() -> None:
    host = Host(fails={"probe": "broken", "back": "no such file", "undo": "refused", "use": "gone"})
    (row,) = roll_out(host)
    assert row.state == "failed"
    assert row.why == "probe pod: broken; and the former version could not be restored; no such file; gone"
    assert row.as_json()["plugin"] == {"before": "1.0.0", "after": "2.0.0"}


def test_host_lost_during_the_upgrade_is_named_and_stops_the_others() -> None:
    class Lost(Host):
        def _plugin(self, command: Command) -> tuple[int, str, str]:
            self.fault = "can't be reached"
            return super()._plugin(command)

    first, second = Lost(), Host()
    rows = roll_out(first, second)
    assert [row.state for row in rows] == ["lost", "not started"]
    assert rows[0].why.endswith("can't be reached; its present version is not known")


@pytest.mark.parametrize(
    ("host", "why", "hint"),
    [
        (Host(packaged="/usr/bin/cnictl"), "/usr/bin/cnictl there belongs to a package", "apt"),
        (Host(python=""), "has no Python 3.11 or newer", "python3"),
        (Host(cnictl="", is_node=False), "has no cnictl", "cnictl cluster install --limit n1"),
        (Host(source="kubernetes https://k"), "learns its peers from Kubernetes", "make bundle EXTRA=kubernetes"),
    ],
)
def test_host_that_cannot_be_upgraded_is_skipped(host: Host, why: str, hint: str) -> None:
    rows = roll_out(host, Host())
    assert [row.state for row in rows] == ["refused", "changed"]
    assert rows[0].why.startswith(why) and hint in rows[0].hint
    assert host.did == []


def test_unreachable_host_is_skipped() -> None:
    rows = roll_out(Host(fault="can't be reached"), Host())
    assert [row.state for row in rows] == ["unreachable", "changed"]


def test_two_builds_are_equal_for_a_release_but_not_for_a_development_version() -> None:
    by_hand, other = Host(cnictl="2.0.0", plugin="2.0.0"), Host(cnictl="2.0.0", plugin="1.0.0")
    assert [row.state for row in roll_out(by_hand, other)] == ["unchanged", "changed"]
    development = Bundle(NEW.contents, "2.0.0.dev0", "2.0.0.dev0+aaaaaaaa", has_kubernetes=False)
    rows = roll_out(
        Host(cnictl="2.0.0.dev0", bundle="2.0.0.dev0+bbbbbbbb", plugin="2.0.0.dev0"), bundle=development, dry=True
    )
    assert [row.state for row in rows] == ["would change"]


def test_bundle_with_the_extra_upgrades_a_node_of_kubernetes() -> None:
    bundle = Bundle(NEW.contents, NEW.version, NEW.name, has_kubernetes=True)
    assert [row.state for row in roll_out(Host(source="kubernetes https://k"), bundle=bundle)] == ["changed"]


def test_install_skips_hosts_that_have_cnictl() -> None:
    none, same, other = Host(cnictl="", is_node=False), Host(cnictl="2.0.0"), Host()
    rows = roll_out(none, same, other, is_upgrade=False)
    assert [row.state for row in rows] == ["changed", "unchanged", "refused"]
    assert none.did == ["install"]
    assert rows[2].hint == "cnictl cluster upgrade --limit n3"


def test_failed_install_leaves_no_command() -> None:
    class Broken(Host):
        def _install(self, command: Command) -> tuple[int, str, str]:
            super()._install(command)
            return 1, "", "install.sh: the link\n"

    host = Broken(cnictl="", is_node=False)
    (row,) = roll_out(host, is_upgrade=False)
    assert (row.state, row.why) == (install.REVERTED, "install.sh: the link")
    assert host.cnictl == ""


def test_names_from_a_host_are_escaped() -> None:
    answer = Answer("n1", 0, "python=/usr/bin/python3\nbundle=\x1b[2J\ncnictl=cnictl \x1b[31m9\n")
    read = host_install.read(answer)
    assert "\x1b" not in read.bundle + read.cnictl
