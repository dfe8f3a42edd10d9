"""`cnictl lab demo` shows the steps of the walk-through, and reports each unexpected result."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cnictl.lab import demo
from tests.schemas import checked

pytestmark = pytest.mark.once

ANSWERS = {"own-host": "ok", "pod-same-host": "ok", "other-host": "ok", "pod-other-host": "ok", "external": "ok"}
EXPECTED = [
    {**ANSWERS, "other-host": "failed", "pod-other-host": "failed", "external": "failed"},
    {**ANSWERS, "pod-other-host": "failed"},
    ANSWERS,
]


def run_demo(*options: str, prefix: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    """Run the command as a user does."""
    command = [*prefix, sys.executable, "-m", "cnictl", "lab", "demo", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


def test_demo_fails_only_where_the_walk_through_did_and_ends_green(tmp_path: Path) -> None:
    picture = tmp_path / "matrix.svg"
    done = run_demo("-o", "json", "--svg", str(picture))
    assert done.returncode == 0, done.stderr
    told = checked("lab demo", done.stdout)
    assert told["as_expected"] is True
    for act, expected in zip(told["acts"], EXPECTED, strict=True):
        for name in ("node1", "node2"):
            assert {row["check"]: row["state"] for row in act["reports"][name]["checks"]} == expected
            assert all(row["cause"] for row in act["reports"][name]["checks"] if row["state"] == "failed")
    hints = [
        {check["hint"]["text"] for check in act["reports"]["node1"]["checks"] if check["hint"]} for act in told["acts"]
    ]
    peer = "cnictl route add-peer 10.244.1.0/24 10.0.10.51"
    assert hints == [{"cnictl nat enable", peer}, {peer}, set()]
    by_hand = ["\n".join(act["by_hand"]["node1"]) for act in told["acts"]]
    assert "ip link add cni0" in by_hand[0] and "ip address add 10.244.0.1/24" in by_hand[0]
    assert "masquerade" in by_hand[1]
    assert "ip route add 10.244.1.0/24 via 10.0.10.51" in by_hand[2]
    assert "10.244.1." in picture.read_text()


def test_cluster_of_five_nodes_is_built_from_one_file_and_every_pair_is_reached() -> None:
    done = run_demo("--nodes", "5", "-o", "json")
    assert done.returncode == 0, done.stderr
    document = checked("lab demo", done.stdout)
    assert document["as_expected"] is True
    assert set(document["matrix"]["states"]) == {"ok"}


def test_cluster_of_both_families_is_reached_in_both() -> None:
    done = run_demo("--nodes", "2", "--dual-stack", "-o", "json")
    assert done.returncode == 0, done.stderr
    hosts = checked("lab demo", done.stdout)["matrix"]["hosts"]
    assert [len(host["pod"]) for host in hosts] == [2, 2]
    assert run_demo("--nodes", "2", "--svg", "/dev/null").returncode == 2


def test_demo_of_both_families_runs_as_an_ordinary_user_and_shows_every_act() -> None:
    prefix = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups") if os.geteuid() == 0 else ()
    done = run_demo("--dual-stack", prefix=prefix)
    assert done.returncode == 0, done.stderr
    for heading in ("1. the bridge alone", "2. and NAT", "3. and routes"):
        assert heading in done.stdout
    assert "node2$ cnictl route add-peer 10.244.0.0/24 10.0.0.210" in done.stdout
    assert "ip route add fd00:244:0:1::/64 via fd00:10::51" in done.stdout
    assert "no check of the last matrix failed" in done.stderr


def test_unexpected_check_result_is_a_surprise(monkeypatch: pytest.MonkeyPatch) -> None:
    act = demo.STORY[0]
    hopeful = demo.Act(act.title, act.command, {**act.expected, "external": "ok"}, act.names_peer)
    monkeypatch.setattr(demo, "STORY", (hopeful,))
    (played,) = demo.play(lambda _: None)
    missed = [text for text in played.surprises if "external" in text]
    assert missed == ["node1, external: failed, expected ok", "node2, external: failed, expected ok"]
