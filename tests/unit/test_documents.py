"""What the documents claim: the command reference is the program's own, and each boundary's test exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_command_reference_is_what_the_program_says() -> None:
    done = subprocess.run([sys.executable, "docs/generate.py", "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0, "docs/commands.md is out of date: make docs"


def test_examples_of_the_command_reference_are_in_fenced_blocks() -> None:
    blocks = (ROOT / "docs/commands.md").read_text().split("```")
    assert sum(block.startswith("sh\ncnictl ") for block in blocks[1::2]) > 30
    prose = "".join(blocks[::2])
    assert not re.findall(r"^ *cnictl .*$", prose, re.MULTILINE)


@pytest.mark.parametrize("document", ["docs/boundaries.md", "docs/dev/faults.md"])
def test_every_boundary_and_fault_names_a_test_that_exists(document: str) -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / document).read_text()))
    there = set()
    for file in (ROOT / "tests").rglob("test_*.py"):
        there |= set(re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE))
    assert len(named) > 20
    assert named <= there, f"named in {document}, but nowhere in tests/: {sorted(named - there)}"


def test_every_link_between_documents_leads_somewhere() -> None:
    broken = [
        f"{file.relative_to(ROOT)} → {target}"
        for file in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", file.read_text())
        if not (file.parent / target).exists()
    ]
    assert not broken
