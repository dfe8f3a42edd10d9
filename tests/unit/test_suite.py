"""A failed test affects no other test, and a test run must not change the machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SHARED = """
import pytest
made = []
@pytest.fixture(scope="module")
def world():
    made.append(len(made))
    yield made
    made.append("ended")
def test_that_leaves_a_mess(world):
    assert world == ["no such"]
def test_next_one(world):
    assert world == [0, "ended", 2]
def test_one_after_it(world):
    assert world == [0, "ended", 2]
@pytest.fixture
def stuck(world):
    yield
    raise OSError("can't be taken away")
def test_whose_end_fails(stuck):
    pass
def test_after_that(world):
    assert world == [0, "ended", 2, "ended", 4]
"""


def suite(folder: Path, hooks: str, tests: str, *before: str) -> "subprocess.CompletedProcess[str]":
    """Run a separate test suite with the hooks of one of our modules."""
    (folder / "conftest.py").write_text(f"from tests.{hooks} import *\n")
    (folder / "test_it.py").write_text(tests)
    argv = [*before, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    return subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_shared_fixtures_of_a_module_are_rebuilt_after_a_failure(tmp_path: Path) -> None:
    done = suite(tmp_path, "rebuilt", SHARED)
    assert "1 failed, 4 passed, 1 error" in done.stdout, done.stdout
    assert "test_that_leaves_a_mess" in done.stdout and "can't be taken away" in done.stdout


LEFT = {
    "ip link add left type bridge": "new: link: ",
    "ip route add blackhole 10.99.0.0/16": "new: route: blackhole 10.99.0.0/16",
    "ip rule add from 10.99.0.1 table 7": "new: policy rule: ",
    "nft add table inet left": "new: firewall rule: table inet left",
    "sysctl -qw net.ipv4.ip_forward=1": "new: kernel setting: net.ipv4.ip_forward = 1",
    "mount -t tmpfs x /etc": "gone: /etc/passwd",
}


@pytest.mark.parametrize("left", [LEFT, {}], ids=["something", "nothing"])
def test_run_that_leaves_something_fails_and_names_it(tmp_path: Path, left: dict[str, str]) -> None:
    alone = ["unshare", "--net", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--"]
    quiet = ["sh", "-c", 'echo 0 > /proc/sys/net/ipv4/ip_forward; exec "$@"', "sh"]
    line = "; ".join(["set -e", *left])
    test = f"import subprocess\ndef test_it():\n    assert subprocess.run(['sh', '-c', {line!r}]).returncode == 0\n"
    done = suite(tmp_path, "machine", test, *alone, *quiet)
    assert done.returncode == (1 if left else 0), done.stdout + done.stderr
    assert [named for named in left.values() if named not in done.stdout] == [], done.stdout
    assert "1 passed" in done.stdout and ("FAILED: the run left" in done.stdout) == bool(left)
