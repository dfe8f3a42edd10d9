"""Bundles: for each verb one file with the bytecode of all that it imports, in the order in which that has to run.

Made at install by the interpreter that will read them, for bytecode is its own; read by `start`.
"""

import ast
import marshal
import os
from types import CodeType
from typing import NamedTuple

MODULES = {
    "ADD": "cnictl_plugin.add",
    "CHECK": "cnictl_plugin.check",
    "DEL": "cnictl_plugin.delete",
    "GC": "cnictl_plugin.collect",
    "STATUS": "cnictl_plugin.status",
    "VERSION": "cnictl_plugin.main",
}
"""The module that serves each verb; `main` comes before it."""

_START = "cnictl_plugin.start"


class Module(NamedTuple):
    """A module of the plugin's code."""

    is_package: bool
    imports: list[str]
    code: CodeType


def write_bundles(library: str, final: str, target: str) -> None:
    """Write the running interpreter's bundles of the code in `library`, that will stand in `final`, to `target`."""
    modules = read_modules(library, final)
    os.makedirs(target, 0o755, exist_ok=True)
    for verb, module in MODULES.items():
        with open(f"{target}/{verb}", "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(bundle_of(modules, module))


def bundle_of(modules: dict[str, Module], module: str) -> bytes:
    """Return one bundle: what `start.load` takes, behind the code that defines it."""
    order = import_order({name: read.imports for name, read in modules.items()}, ["cnictl_plugin.main", module])
    parts = tuple((name, modules[name].is_package, modules[name].code) for name in order)
    return marshal.dumps((modules[_START].code, parts))


def import_order(imported: dict[str, list[str]], wanted: list[str]) -> list[str]:
    """The modules that `wanted` import at their top level, each after its own imports (`imported`, by module)."""
    order: list[str] = []
    seen: set[str] = set()

    def visit(name: str) -> None:
        if name not in imported or name in seen:
            return
        seen.add(name)
        visit(name.rpartition(".")[0])
        for found in imported[name]:
            visit(found)
        order.append(name)

    for name in wanted:
        visit(name)
    return order


def imports(name: str, tree: ast.Module) -> list[str]:
    """Everything that a module's import statements may mean, modules or not; of a `try` what it tries first.

    Only statements of the module itself count: what stands in a function or under a condition is imported later.
    """
    found = []
    statements = tree.body + [tried for one in tree.body if isinstance(one, ast.Try) for tried in one.body]
    for statement in statements:
        if isinstance(statement, ast.Import):
            found += [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            base = statement.module or ""
            if statement.level:  # one dot: no package here holds another that imports upwards
                base = f"{name.rpartition('.')[0]}.{base}".rstrip(".")
            found += [base, *(f"{base}.{alias.name}" for alias in statement.names)]
    return found


def read_modules(library: str, final: str) -> dict[str, Module]:
    """Every module of the code in `library`, by name, compiled for its path in `final`."""
    found = {}
    for top in ("cnictl", "cnictl_plugin"):
        for place, _, files in os.walk(f"{library}/{top}"):
            for file in files:
                if file.endswith(".py"):
                    path = f"{place}/{file}"
                    name = os.path.relpath(path, library).removesuffix(".py").removesuffix("/__init__")
                    name = name.replace("/", ".")
                    with open(path, encoding="utf-8") as source:
                        tree = ast.parse(source.read())
                    code = compile(tree, path.replace(library, final, 1), "exec", dont_inherit=True, optimize=2)
                    found[name] = Module(file == "__init__.py", imports(name, tree), code)
    return found
