"""The masquerade rule set as text: what it says, and that nft and iptables take it as it is."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cnictl.core.cidr import parse_cidr
from cnictl.core.masquerade import BACKENDS, Masquerade, chain, text

MYNET = Masquerade("mynet", parse_cidr("10.244.0.0/24"), parse_cidr("10.244.0.0/20"))
LONG = Masquerade("n" * 200, parse_cidr("10.244.0.0/24"), parse_cidr("10.244.0.0/20"))
ALONE = Masquerade("alone", parse_cidr("10.9.0.0/16"), parse_cidr("10.9.0.0/16"))


def test_only_what_leaves_the_pod_network_is_masqueraded() -> None:
    rules = [line for line in text(MYNET, "nft").splitlines() if line.startswith("add rule")]
    identity, masquerade = rules
    assert "masquerade-mynet" in masquerade and "masquerade fully-random" in masquerade
    assert "ip saddr 10.244.0.0/24 ip daddr != 10.244.0.0/20" in masquerade
    assert "ip daddr != 224.0.0.0/4" in masquerade and "fib daddr type != local" in masquerade
    assert "ip saddr 10.244.0.0/24 ip daddr 10.244.0.0/20 ip daddr != 10.244.0.0/24" in identity
    assert "10.244.0.0/24 : 10.244.0.0/24" in identity


def test_pod_to_pod_across_nodes_leaves_out_what_others_marked_for_masquerade() -> None:
    assert "meta mark & 0x6000 == 0" in text(MYNET, "nft")
    assert "--mark 0/0x6000" in text(MYNET, "iptables")


def test_the_mark_changes_with_the_rules_and_with_nothing_else() -> None:
    same = Masquerade("mynet", parse_cidr("10.244.0.0/24"), parse_cidr("10.244.0.0/20"))
    moved = Masquerade("mynet", parse_cidr("10.244.1.0/24"), parse_cidr("10.244.0.0/20"))
    wider = Masquerade("mynet", parse_cidr("10.244.0.0/24"), parse_cidr("10.244.0.0/16"))
    assert same.comment == MYNET.comment
    assert len({one.comment for one in (MYNET, moved, wider, ALONE)}) == 4


def test_names_stay_within_what_the_tools_allow() -> None:
    assert len(chain(LONG.name)) <= 28
    assert len(LONG.comment) <= 128
    assert chain(LONG.name) != chain("n" * 199)


@pytest.fixture(scope="module")
def scratch() -> list[str]:
    """What to put before a command for it to run in a network of its own; skips where that is impossible."""
    words = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
    tried = subprocess.run([*words, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no network namespace can be made here: {tried.stderr.strip()}")
    return words


def feed(scratch: list[str], argv: list[str], text: str) -> subprocess.CompletedProcess[str]:
    if shutil.which(argv[0], path="/usr/sbin:/sbin:/usr/bin:/bin") is None:
        pytest.skip(f"{argv[0]} is not installed")
    environment = {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin", "XTABLES_LOCKFILE": "/dev/null"}
    return subprocess.run(
        [*scratch, *argv], input=text, capture_output=True, text=True, check=False, env=environment, timeout=30
    )


@pytest.mark.parametrize("masquerade", [MYNET, LONG, ALONE], ids=lambda one: one.name[:10])
def test_nft_takes_it(scratch: list[str], masquerade: Masquerade) -> None:
    done = feed(scratch, ["nft", "-c", "-f", "-"], text(masquerade, "nft"))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("masquerade", [MYNET, LONG, ALONE], ids=lambda one: one.name[:10])
def test_iptables_takes_it(scratch: list[str], masquerade: Masquerade) -> None:
    done = feed(scratch, ["iptables-restore", "--test", "--noflush", "-w"], text(masquerade, "iptables"))
    assert done.returncode == 0, done.stderr


def test_loading_it_twice_leaves_it_once(scratch: list[str], tmp_path: Path) -> None:
    rules = tmp_path / "rules.nft"
    rules.write_text(text(MYNET, "nft"))
    loaded = feed(scratch, ["sh", "-c", f"nft -f {rules} && nft -f {rules} && nft -s list ruleset"], "")
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.count(f'comment "{MYNET.comment}"') == 2
    assert loaded.stdout.count("chain ") == 2


def test_every_backend_has_a_text() -> None:
    for backend in BACKENDS:
        assert text(MYNET, backend).endswith("\n")
