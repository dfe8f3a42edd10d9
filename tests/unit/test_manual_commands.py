"""Manual commands run unchanged in a plain shell, and leave only the files that they name."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnictl.cli import script
from cnictl.core import programs
from cnictl.node import manual_commands
from cnictl.node.spine import Change

TEXTS = ("", "one\n", "no line end", "EOF\nEOF_\n$HOME `id` 'quoted' \\\n", '[peers]\nvia = "10.0.10.51"\n' * 30)


def shell(text: str) -> None:
    """Run a script with `sh -eu`, as when it is pasted."""
    subprocess.run(["sh", "-eu"], input=text, text=True, check=True, capture_output=True)


@pytest.mark.parametrize("renamed", [False, True])
@pytest.mark.parametrize("patched", [False, True])
@pytest.mark.parametrize("before", [None, *TEXTS])
@pytest.mark.parametrize("text", TEXTS)
def test_shown_commands_write_the_same_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None, text: str, renamed: bool, patched: bool
) -> None:
    patch = programs.find("patch") if patched else ""
    monkeypatch.setattr(programs, "find", lambda _: patch)
    path = tmp_path / "a folder's" / "node.toml"
    if before is not None:
        path.parent.mkdir()
        path.write_text(before)
        path.chmod(0o640)
    elif not text.endswith("\n"):
        path.parent.mkdir()
    shell(manual_commands.write(str(path), text, before, renamed))
    assert path.read_text() == text
    assert [file.name for file in path.parent.iterdir()] == ["node.toml"]
    if before is not None and text.endswith("\n"):
        assert path.stat().st_mode & 0o777 == 0o640


@given(st.text("aEOF_\n$`'\"\\ ", max_size=60))
def test_here_document_holds_any_text(text: str) -> None:
    command = manual_commands.heredoc("cat", f"{text}\n")
    done = subprocess.run(["sh", "-eu"], input=command, text=True, stdout=subprocess.PIPE, check=True)
    assert done.stdout == f"{text}\n"


def test_link_is_followed_and_stays(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old\n")
    link.symlink_to(target)
    shell(manual_commands.write(str(link), "new\n", "old\n"))
    assert link.is_symlink() and target.read_text() == "new\n"
    shell(manual_commands.remove(str(link)))
    assert link.is_symlink() and not target.exists()


def test_everything_but_the_commands_is_a_comment(tmp_path: Path) -> None:
    path = tmp_path / "file"
    harmful = "make it\nrm -rf /nowhere; exit 3"
    changes = [
        Change(
            "file/x", None, {"text": "1\n2\n", "mode": harmful}, harmful, manual_commands.write(str(path), "1\n2\n")
        ),
        Change("none", None, {}, "nothing to run", ""),
    ]
    text = "\n".join(line for _, line in script.of_changes(changes))
    assert text.startswith("# would change (2; nothing is changed yet):\n#    1. make it\n# rm -rf")
    assert text.count("1\n2\n") == 1
    shell(text)
    assert path.read_text() == "1\n2\n"
