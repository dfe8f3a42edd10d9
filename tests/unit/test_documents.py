"""The documents match the program: the command reference is current, and each boundary's test exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_command_reference_is_current() -> None:
    done = subprocess.run([sys.executable, "docs/generate.py", "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0, "docs/commands.md is out of date: run `make docs`"


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
        for file in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "tests").rglob("*.md")]
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", file.read_text())
        if not (file.parent / target).exists()
    ]
    assert not broken


def test_every_decision_record_has_a_status_and_a_date() -> None:
    records = sorted((ROOT / "docs/dev/decisions").glob("*.md"))
    assert records
    for record in records:
        text = record.read_text()
        assert re.search(r"^Status: (proposed|accepted|superseded by \d{4})", text, re.MULTILINE), record.name
        assert re.search(r"^Date: \d{4}-\d\d-\d\d", text, re.MULTILINE), record.name


def test_every_page_that_sources_name_exists() -> None:
    sources = [file for folder in ("cnictl", "plugin", "conf", "tests") for file in (ROOT / folder).rglob("*.*")]
    missing = [
        f"{file.relative_to(ROOT)}: {page}"
        for file in [ROOT / "Makefile", *sources]
        if file.suffix in ("", ".py", ".sh", ".md", ".toml", ".service")
        for page in re.findall(r"docs/[\w/.-]+\.(?:md|svg)", file.read_text())
        if not (ROOT / page).exists()
    ]
    assert not missing
