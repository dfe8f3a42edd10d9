"""The layers of packages: imports between packages go down only, and neither modules nor packages import in a circle.

Every import counts. One inside a function only hides a circle, and one under `if TYPE_CHECKING:` still makes its reader
read the other module.
"""

import ast
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]

LAYERS = (("cli",), ("views", "doctor", "watch", "cluster"), ("probe", "lab", "node"), ("core",))
"""The packages by layer, from the top down. A package may import its own layer and those below it."""

PLUGIN_MAY_IMPORT = ("plugin", "core")
"""The plugin is a program of its own: it needs core, and no package needs it."""


def test_no_modules_import_in_a_circle() -> None:
    imports = imports_by_module()
    assert len(imports) > 200
    circles = circles_of(imports)
    assert not circles, f"circles of imports: {circles}"


def test_no_packages_import_in_a_circle() -> None:
    imports: dict[str, set[str]] = {package_of(module): set() for module in imports_by_module()}
    for module, targets in imports_by_module().items():
        imports[package_of(module)] |= {package_of(target) for target in targets} - {package_of(module)}
    circles = circles_of(imports)
    assert not circles, f"circles of imports: {circles}"


def test_imports_between_packages_go_down_only() -> None:
    upward = [
        f"{module} imports {target}"
        for module, targets in imports_by_module().items()
        for target in sorted(targets)
        if not may_import(package_of(module), package_of(target))
    ]
    assert not upward, "\n".join(upward)


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
def imports_by_module() -> Mapping[str, set[str]]:
    """Which of our modules each of our modules imports."""
    trees = {}
    for folder, package in (("cnictl", "cnictl"), ("plugin", "cnictl_plugin")):
        for file in (REPOSITORY / folder).rglob("*.py"):
            parts = [package, *file.relative_to(REPOSITORY / folder).with_suffix("").parts]
            trees[".".join(parts).removesuffix(".__init__")] = ast.parse(file.read_text("utf-8"), str(file))
    imports: dict[str, set[str]] = {}
    for module, tree in sorted(trees.items()):
        # `from a.b import c` imports the module a.b.c if there is one, and c of the module a.b otherwise
        named = {name if name in trees else name.rpartition(".")[0] for name in imported_names(tree)}
        imports[module] = named & trees.keys() - {module}
    return imports


def imported_names(tree: ast.Module) -> Iterator[str]:
    """Everything that a module imports, by its full name."""
    for statement in ast.walk(tree):
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            # only the plugin imports relatively, and it is one flat package
            package = ".".join(["cnictl_plugin"] * statement.level + [statement.module or ""]).removesuffix(".")
            yield from (f"{package}.{alias.name}" for alias in statement.names)


def package_of(module: str) -> str:
    """Return `core` of `cnictl.core.bridge`; `cnictl` itself stands in no package."""
    package, _, inner = module.partition(".")
    return "plugin" if package == "cnictl_plugin" else inner.partition(".")[0]


def may_import(package: str, target: str) -> bool:
    """Return whether an import from `package` to `target` goes down or stays in its layer."""
    if target == "" or package == "__main__":
        return True
    if "plugin" in (package, target):
        return package == "plugin" and target in PLUGIN_MAY_IMPORT
    layer = {name: number for number, names in enumerate(LAYERS) for name in names}
    return layer[package] <= layer[target]


def circles_of(imports: Mapping[str, set[str]]) -> list[list[str]]:
    """Return each group of two or more names that all reach each other, sorted."""
    reached: dict[str, set[str]] = {}
    for start in imports:
        reached[start] = set()
        waiting = [start]
        while waiting:
            new = imports[waiting.pop()] - reached[start]
            reached[start] |= new
            waiting.extend(new)
    groups = {frozenset({other for other in reached[name] if name in reached[other]}) for name in imports}
    return sorted(sorted(group) for group in groups if group)
