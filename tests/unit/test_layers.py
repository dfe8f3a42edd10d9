"""The layers of packages: imports only go down, and there are no import cycles among modules or packages.

Every import counts. An import inside a function only hides an import cycle, and a reader of an import under
`if TYPE_CHECKING:` still has to read the other module.
"""

import ast
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]

LAYERS = (("cli",), ("views", "doctor", "watch", "cluster"), ("probe", "lab", "node"), ("core",))
"""The packages by layer, from the top. A package may import its own layer and those below it."""

PLUGIN_MAY_IMPORT = ("plugin", "core")
"""The plugin is a separate program: it needs core, and no other package needs the plugin."""

LATE = {
    "cnictl.cli.entry": "the interpreter is chosen first, and completion needs no typer",
    "cnictl.cli.main": "only root's commands, and only while a run waits to be confirmed",
    "cnictl.node.reach.extras": "an extra of the package, which may not be installed",
    "cnictl.node.resources.remnants": "pyroute2, which no other module needs",
    "cnictl.node.runs.confirm_guard": "pyroute2, before the fork",
    "cnictl.views.live_names": "completion: each list loads only what it reads with",
    "cnictl.node.spec.suggestions": "netaddr, only for what is wrong, or to find a free subnet",
}
"""The only modules above core that import something later than at the top, and why."""


def test_modules_have_no_import_cycles() -> None:
    imports_by_module = module_imports()
    assert len(imports_by_module) > 200
    cycles = cycles_of(imports_by_module)
    assert not cycles, f"import cycles: {cycles}"


def test_packages_have_no_import_cycles() -> None:
    imports_by_package: dict[str, set[str]] = {package_of(module): set() for module in module_imports()}
    for module, targets in module_imports().items():
        imports_by_package[package_of(module)] |= {package_of(target) for target in targets} - {package_of(module)}
    cycles = cycles_of(imports_by_package)
    assert not cycles, f"import cycles: {cycles}"


def test_imports_between_packages_go_down_only() -> None:
    upward = [
        f"{module} imports {target}"
        for module, targets in module_imports().items()
        for target in sorted(targets)
        if not may_import(package_of(module), package_of(target))
    ]
    assert not upward, "\n".join(upward)


def test_imports_are_at_the_top_except_in_core_and_plugin() -> None:
    late = {module for module, tree in trees_above_core().items() if any(late_imports(tree))}
    assert late == LATE.keys()


def test_no_types_are_quoted_except_in_core_and_plugin() -> None:
    """A type must be quoted if its class is defined further down in the same file."""
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


def test_cycles_and_upward_imports_are_found() -> None:
    assert cycles_of({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": {"f"}, "f": {"e"}, "g": set()}) == [
        ["a", "b", "c"],
        ["e", "f"],
    ]
    assert may_import("cli", "core") and may_import("views", "doctor") and may_import("plugin", "core")
    assert not (may_import("core", "node") or may_import("node", "plugin") or may_import("plugin", "node"))


@cache
def module_trees() -> Mapping[str, ast.Module]:
    """Return each of our modules, parsed."""
    trees = {}
    for folder, package in (("cnictl", "cnictl"), ("plugin", "cnictl_plugin")):
        for file in (REPOSITORY / folder).rglob("*.py"):
            parts = [package, *file.relative_to(REPOSITORY / folder).with_suffix("").parts]
            trees[".".join(parts).removesuffix(".__init__")] = ast.parse(file.read_text("utf-8"), str(file))
    return trees


def trees_above_core() -> Mapping[str, ast.Module]:
    """Return each module that no plugin call loads; in a plugin call, each import and evaluated type costs time."""
    return {module: tree for module, tree in module_trees().items() if package_of(module) not in ("core", "plugin")}


def late_imports(tree: ast.Module) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports that are not at a module's top level."""
    yield from (
        part for part in ast.walk(tree) if isinstance(part, ast.Import | ast.ImportFrom) and part not in tree.body
    )


def quoted_types(tree: ast.Module) -> Iterator[str]:
    """Yield the quoted parts of annotations; the texts of Literal and Annotated are not types."""
    for part in ast.walk(tree):
        annotation = part.returns if isinstance(part, ast.FunctionDef) else getattr(part, "annotation", None)
        if annotation is not None and "Literal[" not in (text := ast.unparse(annotation)) and "Annotated[" not in text:
            for inner in ast.walk(annotation):
                if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                    yield inner.value


@cache
def module_imports() -> Mapping[str, set[str]]:
    """Return which of our modules each module imports."""
    trees = module_trees()
    imports_by_module: dict[str, set[str]] = {}
    for module, tree in sorted(trees.items()):
        # `from a.b import c` imports the module a.b.c if it exists, and otherwise c from the module a.b
        named = {name if name in trees else name.rpartition(".")[0] for name in imported_names(tree)}
        imports_by_module[module] = named & trees.keys() - {module}
    return imports_by_module


def imported_names(tree: ast.Module) -> Iterator[str]:
    """Yield the full name of everything that a module imports."""
    for statement in ast.walk(tree):
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            # only the plugin imports relatively, and it is one flat package
            package = ".".join(["cnictl_plugin"] * statement.level + [statement.module or ""]).removesuffix(".")
            yield from (f"{package}.{alias.name}" for alias in statement.names)


def package_of(module: str) -> str:
    """Return `core` for `cnictl.core.bridge`, and "" for `cnictl` itself."""
    package, _, inner = module.partition(".")
    return "plugin" if package == "cnictl_plugin" else inner.partition(".")[0]


def may_import(source: str, target: str) -> bool:
    """Return whether an import from `source` to `target` goes down or stays in its layer."""
    if target == "" or source == "__main__":
        return True
    if "plugin" in (source, target):
        return source == "plugin" and target in PLUGIN_MAY_IMPORT
    layer = {name: number for number, names in enumerate(LAYERS) for name in names}
    return layer[source] <= layer[target]


def cycles_of(imports_by_module: Mapping[str, set[str]]) -> list[list[str]]:
    """Return each group of two or more names that all reach each other, sorted."""
    reached: dict[str, set[str]] = {}
    for start in imports_by_module:
        reached[start] = set()
        waiting = [start]
        while waiting:
            new = imports_by_module[waiting.pop()] - reached[start]
            reached[start] |= new
            waiting.extend(new)
    groups = {frozenset({other for other in reached[name] if name in reached[other]}) for name in imports_by_module}
    return sorted(sorted(group) for group in groups if group)
