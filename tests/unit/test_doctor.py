"""The doctor's catalogue, and what its checks read from the kernel's files."""

from pathlib import Path

import pytest

from cnictl.doctor import facts, kernel
from cnictl.doctor.catalogue import CHECKS
from cnictl.doctor.check import Check
from tests.kernel.doctor import table

PAGE = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")


def test_check_ids_are_unique_and_behind_lists_known_checks() -> None:
    ids = [check.id for check in CHECKS]
    assert len(ids) == len(set(ids))
    assert {other for check in CHECKS for other in check.behind} <= set(ids)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_each_check_has_a_fault_test_or_a_reason(check: Check) -> None:
    _, _, left = PAGE.partition("## Checks whose fault is not made in a test")
    excused = {
        check_id
        for line in left.splitlines()
        if line.startswith("|")
        for check_id in line.split("|")[1].strip().split(", ")
    }
    assert (check.id in table.shown_checks()) != (check.id in excused)


def test_page_matches_every_check() -> None:
    assert all(line in PAGE for line in table.checks_table())


def test_last_file_by_name_wins_at_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    etc, usr = tmp_path / "etc", tmp_path / "usr"
    for folder in (etc, usr):
        folder.mkdir()
    monkeypatch.setattr(kernel, "_SYSCTL_DIRS", (str(etc), str(usr)))
    monkeypatch.setattr(kernel, "_SYSCTL_CONF", str(tmp_path / "sysctl.conf"))
    name = "net.ipv4.ip_forward"
    assert kernel.settled_at_boot(name) == ("", "")
    (usr / "50-default.conf").write_text("net/ipv4/ip_forward = 0\n# net.ipv4.ip_forward=1\n")
    assert kernel.settled_at_boot(name) == ("0", str(usr / "50-default.conf"))
    (etc / "40-mine.conf").write_text("-net.ipv4.ip_forward=1\n")
    assert kernel.settled_at_boot(name)[0] == "0"
    (etc / "50-default.conf").write_text("")  # hides the file of the same name in usr
    assert kernel.settled_at_boot(name) == ("1", str(etc / "40-mine.conf"))
    (tmp_path / "sysctl.conf").write_text("net.ipv4.ip_forward=0\n")
    assert kernel.settled_at_boot(name) == ("0", str(tmp_path / "sysctl.conf"))


def test_counters_of_the_kernel(tmp_path: Path) -> None:
    netstat = tmp_path / "netstat"
    netstat.write_text("TcpExt: A IPReversePathFilter\nTcpExt: 1 7\nIpExt: B\nIpExt: 3\n")
    assert facts.counters(str(netstat), "TcpExt") == {"A": 1, "IPReversePathFilter": 7}
    assert facts.counters(str(tmp_path / "none"), "TcpExt") == {}
    stat = tmp_path / "nf_conntrack"
    stat.write_text("entries drop\n000000ff 00000001\n000000ff 00000010\n")
    assert facts.per_cpu(str(stat)) == {"entries": 510, "drop": 17}
