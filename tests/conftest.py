"""Define the hooks and fixtures of every test."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from cnictl.core import skipped_entries
from tests.machine import pytest_sessionfinish, pytest_sessionstart, pytest_terminal_summary
from tests.rebuilt import pytest_runtest_makereport, pytest_runtest_teardown
from tests.warm import commands

__all__ = [
    "pytest_runtest_makereport",
    "pytest_runtest_teardown",
    "pytest_sessionfinish",
    "pytest_sessionstart",
    "pytest_terminal_summary",
]

# A busy machine makes examples slow. That does not indicate a fault in the code.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture(scope="session", autouse=True)
def loaded_commands() -> Iterator[None]:
    """Run commands on lab nodes as forks of a loaded process, unless CNICTL_COLD is set."""
    with contextlib.nullcontext() if os.environ.get(commands.COLD) else commands.loaded():
        yield


@pytest.fixture(autouse=True)
def nothing_odd_met(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the files that another test's code skipped, so that a command in this process does not report them."""
    monkeypatch.setattr(skipped_entries, "skipped", {})


@pytest.fixture(scope="session", autouse=True)
def device_files() -> Iterator[None]:
    """Check that the tests of a session leave the machine's device files unchanged."""
    before = _device_files()
    yield
    after = _device_files()
    changed = {path: (was, after[path]) for path, was in before.items() if after.get(path, was) != was}
    assert not changed, f"device files have another mode or owner than before the tests: {changed}"


def _device_files() -> dict[str, tuple[str, int, int]]:
    """Return the mode and owner of each device except terminals, which come and go and change owner in normal use."""
    devices = {}
    for path in Path("/dev").rglob("*"):
        if path.parent.name == "pts" or (path.name.startswith("tty") and path.name != "tty"):
            continue
        with contextlib.suppress(OSError):  # it was removed meanwhile
            node = path.lstat()
            if stat.S_ISCHR(node.st_mode) or stat.S_ISBLK(node.st_mode):
                devices[str(path)] = (stat.filemode(node.st_mode), node.st_uid, node.st_gid)
    return devices
