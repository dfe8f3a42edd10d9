"""The rooms of the house: imports between rooms go down only, and neither modules nor rooms import in a circle.

Every import counts. One inside a function only hides a circle, and one under `if TYPE_CHECKING:` still makes its reader
read the other module.
"""

import ast
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]

FLOORS = (("cli",), ("views", "doctor", "watch", "cluster"), ("probe", "lab", "node"), ("core",))
"""The rooms from the top floor to the ground. A room may import its own floor and those below it."""

PLUGIN_MAY_IMPORT = ("plugin", "core")
"""The plugin is a program of its own: it needs core, and no room needs it."""

LATE = {
    "cnictl.cli.entry": "the interpreter is chosen first",
    "cnictl.cli.main": "only root's commands, and only while a run waits to be confirmed",
    "cnictl.node.reach.extras": "an extra of the package, which may not be installed",
    "cnictl.node.resources.remnants": "pyroute2, which no other module needs",
    "cnictl.node.runs.confirm_guard": "pyroute2, before the fork",
    "cnictl.node.spec.suggestions": "netaddr, only for what is wrong, or to find a free subnet",
}
"""The only modules above core that import something later than at the top, and why."""


def test_no_modules_import_in_a_circle() -> None:
    arrows = module_arrows()
    assert len(arrows) > 200
    circles = circles_of(arrows)
    assert not circles, f"circles of imports: {circles}"


def test_no_rooms_import_in_a_circle() -> None:
    arrows: dict[str, set[str]] = {room_of(module): set() for module in module_arrows()}
    for module, targets in module_arrows().items():
        arrows[room_of(module)] |= {room_of(target) for target in targets} - {room_of(module)}
    circles = circles_of(arrows)
    assert not circles, f"circles of imports: {circles}"


def test_imports_between_rooms_go_down_only() -> None:
    upward = [
        f"{module} imports {target}"
        for module, targets in module_arrows().items()
        for target in sorted(targets)
        if not may_import(room_of(module), room_of(target))
    ]
    assert not upward, "\n".join(upward)


def test_imports_stand_at_the_top_except_in_core_and_plugin() -> None:
    late = {module for module, tree in trees_above_core().items() if any(late_imports(tree))}
    assert late == LATE.keys()


def test_no_types_are_quoted_except_in_core_and_plugin() -> None:
    """A class that stands further down in the same file has to be quoted."""
    quoted = [
        f"{module}: {text}"
        for module, tree in trees_above_core().items()
        for text in quoted_types(tree)
        if not any(isinstance(part, ast.ClassDef) and part.name in text for part in tree.body)
    ]
    assert not quoted, "\n".join(quoted)


def test_late_imports_and_quoted_types_are_found() -> None:
    tree = ast.parse("import a\ndef f(x: 'b.C', y: list['D']) -> None:\n    import e\nif f:\n    from g import h\n")
    assert [ast.unparse(statement) for statement in late_imports(tree)] == ["import e", "from g import h"]
    assert list(quoted_types(tree)) == ["b.C", "D"]


def test_every_package_is_installed() -> None:
    there = {
        ".".join([package, *file.relative_to(REPOSITORY / folder).parent.parts])
        for folder, package in (("cnictl", "cnictl"), ("plugin", "cnictl_plugin"), ("conf", "cnictl_conf"))
        for file in (REPOSITORY / folder).rglob("__init__.py")
    }
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
    assert set(project["tool"]["setuptools"]["packages"]) == there


def test_circles_and_upward_imports_are_found() -> None:
    assert circles_of({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": {"f"}, "f": {"e"}, "g": set()}) == [
        ["a", "b", "c"],
        ["e", "f"],
    ]
    assert may_import("cli", "core") and may_import("views", "doctor") and may_import("plugin", "core")
    assert not (may_import("core", "node") or may_import("node", "plugin") or may_import("plugin", "node"))


@cache
def module_trees() -> Mapping[str, ast.Module]:
    """Each of our modules, parsed."""
    trees = {}
    for folder, package in (("cnictl", "cnictl"), ("plugin", "cnictl_plugin")):
        for file in (REPOSITORY / folder).rglob("*.py"):
            parts = [package, *file.relative_to(REPOSITORY / folder).with_suffix("").parts]
            trees[".".join(parts).removesuffix(".__init__")] = ast.parse(file.read_text("utf-8"), str(file))
    return trees


def trees_above_core() -> Mapping[str, ast.Module]:
    """Each module that no call of the plugin loads: to such a call, each import and each evaluated type costs time."""
    return {module: tree for module, tree in module_trees().items() if room_of(module) not in ("core", "plugin")}


def late_imports(tree: ast.Module) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports that don't stand at a module's top level."""
    yield from (
        part for part in ast.walk(tree) if isinstance(part, ast.Import | ast.ImportFrom) and part not in tree.body
    )


def quoted_types(tree: ast.Module) -> Iterator[str]:
    """The quoted parts of annotations of functions and variables; a Literal's and an Annotated's texts are no types."""
    for part in ast.walk(tree):
        annotation = part.returns if isinstance(part, ast.FunctionDef) else getattr(part, "annotation", None)
        if annotation is not None and "Literal[" not in (text := ast.unparse(annotation)) and "Annotated[" not in text:
            for inner in ast.walk(annotation):
                if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                    yield inner.value


@cache
def module_arrows() -> Mapping[str, set[str]]:
    """Which of our modules each of our modules imports."""
    trees = module_trees()
    arrows: dict[str, set[str]] = {}
    for module, tree in sorted(trees.items()):
        # `from a.b import c` imports the module a.b.c if there is one, and c of the module a.b otherwise
        named = {name if name in trees else name.rpartition(".")[0] for name in imported_names(tree)}
        arrows[module] = named & trees.keys() - {module}
    return arrows


def imported_names(tree: ast.Module) -> Iterator[str]:
    """Everything that a module imports, by its full name."""
    for statement in ast.walk(tree):
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            # only the plugin imports relatively, and it is one flat package
            package = ".".join(["cnictl_plugin"] * statement.level + [statement.module or ""]).removesuffix(".")
            yield from (f"{package}.{alias.name}" for alias in statement.names)


def room_of(module: str) -> str:
    """Return `core` of `cnictl.core.bridge`; `cnictl` itself stands in no room."""
    package, _, inner = module.partition(".")
    return "plugin" if package == "cnictl_plugin" else inner.partition(".")[0]


def may_import(room: str, target: str) -> bool:
    """Tell whether an import from `room` to `target` goes down or stays on its floor."""
    if target == "" or room == "__main__":
        return True
    if "plugin" in (room, target):
        return room == "plugin" and target in PLUGIN_MAY_IMPORT
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    return floor[room] <= floor[target]


def circles_of(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """Return each group of two or more names that all reach each other, sorted."""
    reached: dict[str, set[str]] = {}
    for start in arrows:
        reached[start] = set()
        waiting = [start]
        while waiting:
            new = arrows[waiting.pop()] - reached[start]
            reached[start] |= new
            waiting.extend(new)
    groups = {frozenset({other for other in reached[name] if name in reached[other]}) for name in arrows}
    return sorted(sorted(group) for group in groups if group)
