"""Every command's output survives every encoding of the terminal and every locale."""

import os
import subprocess
import sys

import pytest

MAIN = [sys.executable, "-m", "cnictl"]
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
ENCODINGS = [
    ASCII,
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "ascii:strict"},
    {"PYTHONIOENCODING": "latin-1"},
    {**ASCII, "TERM": "dumb"},
]


def run(settings: dict[str, str], *words: str | bytes) -> subprocess.CompletedProcess[bytes]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG", "PYTHON"))}
    return subprocess.run([*MAIN, *words], env={**clean, **settings}, capture_output=True, check=False)


@pytest.mark.parametrize("settings", ENCODINGS, ids=str)
def test_message_with_characters_that_the_terminal_lacks_is_shown_completely(settings: dict[str, str]) -> None:
    done = run(settings, "doctor", "--explain", "日本…")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"there is no check '\\u65e5\\u672c...'" in done.stderr


@pytest.mark.parametrize("settings", [*ENCODINGS, {"LC_ALL": "C.UTF-8"}], ids=str)
def test_argument_that_is_not_utf8_is_shown_as_an_escape(settings: dict[str, str]) -> None:
    done = run(settings, "doctor", "--explain", b"\xff\xe4")
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 2)
    assert b"\\udcff\\udce4" in done.stderr


@pytest.mark.parametrize("settings", ENCODINGS, ids=str)
def test_help_and_lists_are_printed(settings: dict[str, str]) -> None:
    for words in (("--help",), ("init-node", "--help"), ("doctor", "--list"), ("doctor", "--list", "-o", "json")):
        done = run(settings, *words)
        assert (done.returncode, done.stderr) == (0, b""), words
        done.stdout.decode("latin-1" if "latin-1" in settings.values() else "ascii")


def test_utf8_terminal_gets_unescaped_characters() -> None:
    assert "日本…".encode() in run({"LC_ALL": "C.UTF-8"}, "doctor", "--explain", "日本…").stderr
