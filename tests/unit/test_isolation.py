"""PYTHONPATH, the current folder and a user's own packages load no code into root's process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root's process is restarted")

_EVIL = "import os; os.write(2, b'evil')\n"
MODULES = ("typer", "rich", "json", "click", "tomlkit", "socket")


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """A folder whose modules have names that cnictl imports."""
    for name in MODULES:
        (tmp_path / f"{name}.py").write_text(_EVIL)
    return tmp_path


def run(words: list[str], **options: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, **options)  # type: ignore[call-overload, no-any-return]


def test_current_folder_loads_no_code(evil: Path) -> None:
    done = run([sys.executable, "-m", "cnictl", "plugin", "list", "-o", "json"], cwd=evil)
    assert done.returncode == 0 and done.stdout.startswith("{") and "evil" not in done.stderr


def test_pythonpath_loads_no_code(evil: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(evil)}
    script = Path(sys.executable).parent / "cnictl"
    done = run([sys.executable, str(script), "plugin", "list", "-o", "json"], env=environment)
    assert done.returncode == 0 and done.stdout.startswith("{") and "evil" not in done.stderr


def test_completion_loads_no_foreign_code(evil: Path) -> None:
    asked = {"_CNICTL_COMPLETE": "complete_bash", "COMP_WORDS": "cnictl\nhistory\n", "COMP_CWORD": "2"}
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(evil), **asked}
    done = run([sys.executable, str(Path(sys.executable).parent / "cnictl")], env=environment)
    assert done.returncode == 0 and "evil" not in done.stderr


def test_arguments_and_status_are_passed_on(tmp_path: Path) -> None:
    done = run([sys.executable, "-m", "cnictl", "no-such-command"], cwd=tmp_path)
    assert done.returncode == 2 and "no-such-command" in done.stderr


@pytest.mark.parametrize(("variables", "restarts"), [(("PYTHONUNBUFFERED", "PYTHONHASHSEED"), 0), (("PYTHONPATH",), 1)])
def test_only_a_variable_that_may_load_code_restarts_the_interpreter(variables: tuple[str, ...], restarts: int) -> None:
    """A second start takes a fifth of a short command's time."""
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **dict.fromkeys(variables, "1")}
    watched = (
        "import os, sys; from cnictl.cli import entry; os.execv = lambda *_: sys.exit('restarted'); "
        "sys.argv, sys.orig_argv = ['/cnictl', '--version'], ['python', '/cnictl']; entry.main()"
    )
    done = run([sys.executable, "-s", "-c", watched], env=environment)
    assert done.stderr.count("restarted") == restarts
    assert done.stdout.startswith("cnictl ") == (not restarts)
