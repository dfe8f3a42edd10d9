"""List the hints, and the test that runs each one and checks the result.

A hint that names a command (`hint.command`) or an option (`hint.option`) is collected from the code. Its name has the
form `doctor.links._remnant_veths: ip link delete {}`: module, function, and the text with `{}` in place of values. Each
name must be in one of these places, or tests/unit/test_hints.py fails and prints the name:

- the field `hint` of a `Case` (tests/kernel/doctor) or a `Fault` (tests/kernel/connectivity/test_causes.py): the test
  makes the fault, runs the hint that the finding prints, and checks that the finding is gone;
- `@applies(NAME)` on a test that does the same in its own way and checks the printed hint with `matches`;
- `ELSEWHERE` below, with the reason why no test of this suite can run it.
"""

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

_CODE = Path(__file__).parents[2] / "cnictl"
_KINDS = ("command", "option")

ELSEWHERE = {
    "doctor.kernel._conntrack_full: sysctl -w net.netfilter.nf_conntrack_max={}": "a network namespace can't set its "
    "own limit, and the tests must not change the machine's",
    "doctor.kernel._more_neighbours: sysctl -w {}={} {}": "the kernel has one table for all namespaces; `make "
    "neighbours` runs it on a separate kernel",
    "doctor.managers._taken: networkctl reload": "tests/coexistence runs it as doctor's fix, beside systemd-networkd",
    "node.preflight.places.boot_command: systemctl unmask {}": "the lab's nodes have no systemd",
    "node.preflight.ownership._unit: cnictl watch --unit > {}; systemctl daemon-reload": "the lab's nodes have no "
    "systemd",
    "node.preflight.ownership._unit: cnictl apply": "the lab's nodes have no systemd, and apply writes no unit there",
}
"""Hints that no test runs, each with the reason."""

Test = TypeVar("Test", bound=Callable[..., None])


def collected() -> dict[str, str]:
    """Return each hint's name, and the file and line that create it."""
    places = {}
    for path in sorted(_CODE.rglob("*.py")):
        module = ".".join(path.relative_to(_CODE).with_suffix("").parts).removesuffix(".__init__")
        for function, call in _calls(ast.parse(path.read_text(encoding="utf-8")), ""):
            where = f"{module}.{function}" if function else module
            places[f"{where}: {_template(call.args[0])}"] = f"{path.relative_to(_CODE.parent)}:{call.lineno}"
    return places


def _calls(node: ast.AST, function: str) -> list[tuple[str, ast.Call]]:
    """Return the calls of `hint.command` and `hint.option`, each with the function that contains it."""
    calls = []
    for child in ast.iter_child_nodes(node):
        named = child.name if isinstance(child, ast.FunctionDef) else function
        if isinstance(child, ast.Call) and _is_made(child.func):
            calls.append((named, child))
        calls += _calls(child, named)
    return calls


def _is_made(called: ast.expr) -> bool:
    return (
        isinstance(called, ast.Attribute)
        and called.attr in _KINDS
        and isinstance(called.value, ast.Name)
        and called.value.id == "hint"
    )


def _template(argument: ast.expr) -> str:
    if isinstance(argument, ast.Constant):
        return str(argument.value)
    if isinstance(argument, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in argument.values)
    return "{}"


def matches(name: str, printed: str) -> bool:
    """Return whether a printed command or option is the hint with this name."""
    template = name.partition(": ")[2]
    return re.fullmatch(".+".join(map(re.escape, template.split("{}"))), printed, re.DOTALL) is not None


def applies(*names: str) -> Callable[[Test], Test]:
    """Mark a test that runs these hints as printed and checks the result."""

    def marked(test: Test) -> Test:
        test.hints = names  # type: ignore[attr-defined]
        return test

    return marked
