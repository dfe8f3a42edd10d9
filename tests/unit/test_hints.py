"""Each hint names a command that runs as printed, and a test runs it or says why not."""

import importlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnictl.node import hint
from tests.kernel import hints

_TESTS = Path(__file__).parents[1]
_MODULES = [
    ".".join(["tests", *path.relative_to(_TESTS).with_suffix("").parts])
    for folder in ("kernel", "coexistence")
    for path in sorted((_TESTS / folder).rglob("test_*.py"))
]


def _declared() -> Iterator[tuple[str, str]]:
    """Yield the names of the hints that tests declare to run, and the test modules."""
    for name in _MODULES:
        module = importlib.import_module(name)
        cases = [*getattr(module, "CASES", ()), *getattr(module, "FAULTS", {}).values()]
        for case in cases:
            if getattr(case, "hint", ""):
                yield case.hint, name
        for test in vars(module).values():
            for applied in getattr(test, "hints", ()) if callable(test) else ():
                yield applied, name


def test_each_hint_is_run_by_a_test_or_says_why_not() -> None:
    code = hints.collected()
    declared = {name for name, _ in _declared()}
    missing = {name: code[name] for name in code.keys() - declared - hints.ELSEWHERE.keys()}
    assert not missing, "see tests/kernel/hints.py for how to add them"
    assert not (declared | hints.ELSEWHERE.keys()) - code.keys(), "these hints no longer exist"
    assert not declared & hints.ELSEWHERE.keys(), "a test runs these hints: remove them from ELSEWHERE"


def test_hint_has_its_text_and_parts() -> None:
    both = hint.command("ip link set eth0 up", "and its route", on="10.0.10.51")
    assert both == "on 10.0.10.51: ip link set eth0 up  # and its route"
    form = {"text": str(both), "command": "ip link set eth0 up", "option": "", "on": "10.0.10.51"}
    assert hint.as_json(both) == form
    again = hint.from_json(form)
    assert (again, again.command, again.on) == (both, both.command, both.on)
    option = hint.option("--subnet 10.244.1.0/24")
    assert hint.as_json(option) == {"text": f"add {option.option}", "command": "", "option": option.option, "on": ""}
    advice = hint.advice("restart the pod", because="it is so")
    assert hint.as_json(advice) == hint.as_json(str(advice)) == {"text": advice, "command": "", "option": "", "on": ""}
    assert hint.as_json(hint.NONE) is None
    assert hint.from_json(None) == hint.NONE


@pytest.mark.parametrize("name", sorted(hints.collected()))
def test_command_is_a_line_that_a_shell_reads(name: str) -> None:
    line = name.partition(": ")[2].replace("{}", "x")
    line = f"cnictl init-node {line}" if line.startswith("--") else line
    assert subprocess.run(["sh", "-nc", line], check=False, timeout=30).returncode == 0
    assert not {"…", "LINK", "CIDR", "ADDRESS", "GATEWAY"} & set(line.split())


def test_no_hint_removes_what_the_operators_traffic_needs() -> None:
    for name in hints.collected():
        line = name.partition(": ")[2]
        assert "ip route del" not in line and "default" not in line and "flush" not in line
        assert not ("ip link set" in line and "mtu" in line)
