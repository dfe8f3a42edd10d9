"""Check that a test run leaves the machine as it found it.

These are pytest hooks for a conftest to import. They compare namespaces, links, addresses, routes, policy rules,
firewall rules and files before the first test and after the last one, in the process that collects the workers'
results. A run that leaves a difference fails and names it.
"""

import os
import stat
import subprocess
from collections.abc import Iterator

import pytest

FOLDERS = (
    "/etc", "/usr/local", "/opt/cni", "/var/lib/cni", "/var/lib/cnictl", "/var/log/cnictl", "/run/cnictl", "/run/netns",
    "/usr/lib/cni", "/usr/libexec/cni",
)  # fmt: skip
_COMMANDS = {
    "link": ["ip", "-o", "link"],
    "address": ["ip", "-o", "address"],
    "route": ["ip", "route", "show", "table", "all"],
    "IPv6 route": ["ip", "-6", "route", "show", "table", "all"],
    "policy rule": ["ip", "rule"],
    "IPv6 policy rule": ["ip", "-6", "rule"],
    "firewall rule": ["nft", "-s", "list", "ruleset"],
    "iptables rule": ["iptables-legacy-save"],
    "ip6tables rule": ["ip6tables-legacy-save"],
    "kernel setting": ["sysctl", "-a", "--pattern", r"^net\.(ipv4\.(ip_forward|conf)|ipv6\.conf|bridge)"],
}
_PASSING = ("valid_lft", "expires", "age", "#", ":")
"""Words that mark values that count down by themselves, and iptables' comments and chains with counters."""
_CACHE = "/etc/ld.so.cache"
"""Any installation of a library rebuilds this file."""
_BEFORE = pytest.StashKey[dict[str, str]]()
_LEFT = pytest.StashKey[list[str]]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Record the state of the machine before the first test."""
    if not _is_worker(session):
        session.config.stash[_BEFORE] = look()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Record the state again, and fail a run that left a difference."""
    before = session.config.stash.get(_BEFORE, None)
    if before is not None:
        left = differences(before, look())
        session.config.stash[_LEFT] = left
        if left and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the differences that the run left."""
    left = terminalreporter.config.stash.get(_LEFT, [])
    if left:
        terminalreporter.section("FAILED: the run left the machine changed", red=True)
        for line in left:
            terminalreporter.line(line)


def look() -> dict[str, str]:
    """Return the parts of the machine that a test could change: the state of each by its name."""
    seen = dict(_files())
    for kind, argv in _COMMANDS.items():
        try:
            listed = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False).stdout
        except OSError:
            continue  # a program that is not installed changed nothing
        for line in listed.splitlines():
            words = line.partition(" valid_lft ")[0].partition(" expires ")[0].strip()
            if words and not words.startswith(_PASSING):
                seen[f"{kind}: {words}"] = ""
    return seen


def differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return what is new, removed or changed, one line for each."""
    new = [f"new: {name}" for name in after if name not in before]
    gone = [f"gone: {name}" for name in before if name not in after]
    changed = [
        f"changed: {name}: {before[name]} → {after[name]}"
        for name in before
        if before[name] != after.get(name, before[name])
    ]
    return sorted(new + gone + changed)


def _files() -> Iterator[tuple[str, str]]:
    for folder in FOLDERS:
        for parent, folders, files in os.walk(folder):
            for name in (*folders, *files):
                if f"{parent}/{name}" == _CACHE:
                    continue
                try:
                    status = os.lstat(f"{parent}/{name}")
                except OSError:
                    continue
                yield f"{parent}/{name}", _state(status)


def _state(status: os.stat_result) -> str:
    """Return type, mode and owner. For everything but folders, add size and time of the last change."""
    owner = f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}"
    return owner if stat.S_ISDIR(status.st_mode) else f"{owner} {status.st_size} bytes, {status.st_mtime_ns}"


def _is_worker(session: pytest.Session) -> bool:
    return hasattr(session.config, "workerinput")
