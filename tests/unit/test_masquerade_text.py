"""The text of the masquerade rule set: its content, and that nft and iptables load it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cnictl.core.cidr import parse_cidr
from cnictl.core.masquerade.backends import backend
from cnictl.core.masquerade.nft import text as nft_text
from cnictl.core.masquerade.rule_set import RuleSet, chain


def of(name: str, subnets: str, networks: str = "", scope: str = "") -> RuleSet:
    return RuleSet(name, map(parse_cidr, subnets.split()), map(parse_cidr, networks.split()), scope)


MYNET = of("mynet", "10.244.0.0/24", "10.244.0.0/20")
LONG = of("n" * 200, "10.244.0.0/24", "10.244.0.0/20")
ALONE = of("alone", "10.9.0.0/16")
IPV6 = of("six", "fd00:10:244::/64", "fd00:10:244::/56")
DUAL = of("dual", "10.244.0.0/24 fd00:10:244::/64", "10.244.0.0/20 fd00:10:244::/56")
SETS = of("sets", "10.244.0.0/24 10.250.0.0/24 fd00:1::/64 fd00:2::/64", "10.244.0.0/20 fd00:2::/56")
SCOPED = of("m" * 200, "10.5.0.0/24", scope="10.5.0.0/24")
EVERYTHING = of("all", "10.244.0.0/24 fd00:1::/64", "0.0.0.0/0 ::/0")
ALL = pytest.mark.parametrize(
    "masquerade", [MYNET, LONG, ALONE, IPV6, DUAL, SETS, SCOPED, EVERYTHING], ids=lambda rule_set: rule_set.name[:10]
)


def test_only_packets_that_leave_the_pod_network_are_masqueraded() -> None:
    rules = [line for line in nft_text(MYNET).splitlines() if line.startswith("add rule")]
    identity, masquerade = rules
    assert "masquerade-mynet" in masquerade and "masquerade fully-random" in masquerade
    assert "ip saddr 10.244.0.0/24 ip daddr != { 224.0.0.0/4, 10.244.0.0/20 }" in masquerade
    assert "fib daddr type != local" in masquerade
    assert "ip saddr 10.244.0.0/24 ip daddr 10.244.0.0/20 ip daddr != 10.244.0.0/24" in identity
    assert "10.244.0.0/24 : 10.244.0.0/24" in identity


def test_each_family_has_its_own_rules() -> None:
    four, six = ([line for line in nft_text(DUAL).splitlines() if f" {ip} saddr" in line] for ip in ("ip", "ip6"))
    assert len(four) == len(six) == 2
    assert not any("fd00" in line for line in four) and not any("10.244.0" in line for line in six)
    assert "ip6 daddr != { ff00::/8, fe80::/10, fd00:10:244::/56 }" in six[1]
    assert "snat ip6 prefix to ip6 saddr map { fd00:10:244::/64 : fd00:10:244::/64 }" in six[0]


def test_one_family_needs_nothing_of_the_other() -> None:
    assert "ip6" not in nft_text(MYNET) and " ip " not in nft_text(IPV6)
    assert [argv[0] for argv, _ in backend("iptables").steps(MYNET)] == ["iptables-restore"]
    assert [argv[0] for argv, _ in backend("iptables").steps(IPV6)] == ["ip6tables-restore"]
    assert [argv[0] for argv, _ in backend("iptables").steps(DUAL)] == ["iptables-restore", "ip6tables-restore"]


def test_every_subnet_of_a_network_lies_inside_it() -> None:
    assert [str(subnet) for subnet in SETS.inside(32)] == ["10.244.0.0/20", "10.250.0.0/24"]
    assert [str(subnet) for subnet in SETS.inside(128)] == ["fd00:2::/56", "fd00:1::/64"]
    assert [str(subnet) for subnet in EVERYTHING.inside(32)] == ["0.0.0.0/0"]


def test_pod_to_pod_rule_excludes_packets_that_others_marked_for_masquerade() -> None:
    assert nft_text(DUAL).count("meta mark & 0x6000 == 0") == 2
    assert all("--mark 0/0x6000" in stdin for _, stdin in backend("iptables").steps(DUAL))


def test_the_mark_changes_only_with_the_rules() -> None:
    same = of("mynet", "10.244.0.0/24", "10.244.0.0/20")
    moved = of("mynet", "10.244.1.0/24", "10.244.0.0/20")
    wider = of("mynet", "10.244.0.0/24", "10.244.0.0/16")
    dual = of("mynet", "10.244.0.0/24 fd00::/64", "10.244.0.0/20")
    assert same.comment == MYNET.comment
    assert len({rule_set.comment for rule_set in (MYNET, moved, wider, dual, ALONE)}) == 5


def test_rules_of_the_first_release_are_current_after_an_upgrade() -> None:
    """The first release's rules have this mark, and their content is the same."""
    assert MYNET.comment == "cnictl:mynet 005f834d"


def test_names_stay_within_the_tools_limits() -> None:
    assert len(chain(LONG.name)) <= 28 and len(chain(LONG.name, SCOPED.scope)) <= 28
    assert len(LONG.comment) <= 128
    assert chain(LONG.name) != chain("n" * 199)


@pytest.fixture(scope="module")
def scratch() -> list[str]:
    """Return a command prefix for a new network namespace; skip the test if none can be created."""
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


@ALL
def test_nft_accepts_the_rules(scratch: list[str], masquerade: RuleSet) -> None:
    done = feed(scratch, ["nft", "-c", "-f", "-"], nft_text(masquerade))
    assert done.returncode == 0, done.stderr


@ALL
def test_iptables_accepts_the_rules(scratch: list[str], masquerade: RuleSet) -> None:
    for (program, *words), stdin in backend("iptables").steps(masquerade):
        done = feed(scratch, [program, "--test", *words], stdin)
        assert done.returncode == 0, done.stderr


def test_loading_twice_leaves_one_copy(scratch: list[str], tmp_path: Path) -> None:
    rules = tmp_path / "rules.nft"
    rules.write_text(nft_text(DUAL))
    loaded = feed(scratch, ["sh", "-c", f"nft -f {rules} && nft -f {rules} && nft -s list ruleset"], "")
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.count(f'comment "{DUAL.comment}"') == 4
    assert loaded.stdout.count("chain ") == 2
