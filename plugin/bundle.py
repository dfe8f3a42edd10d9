"""Write bundles: one file for each verb with the bytecode of every module that it imports, in the order of execution.

They are written during the installation by the interpreter that will read them, because bytecode depends on its
version. `start` reads them.
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
"""The module of each verb; `main` comes before it."""

_START = "cnictl_plugin.start"


class Module(NamedTuple):
    """A module of the plugin's code."""

    is_package: bool
    imports: list[str]
    code: CodeType


def write_bundles(library: str, final: str, target: str) -> None:
    """Write bundles of the code in `library`, which will be moved to `final`, to `target`."""
    modules = read_modules(library, final)
    os.makedirs(target, 0o755, exist_ok=True)
    for verb, module in MODULES.items():
        with open(f"{target}/{verb}", "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(bundle_of(modules, module))


def bundle_of(modules: dict[str, Module], module: str) -> bytes:
    """Return a bundle: the code of `start`, followed by the argument of its `load`."""
    order = import_order({name: read.imports for name, read in modules.items()}, ["cnictl_plugin.main", module])
    parts = tuple((name, modules[name].is_package, modules[name].code) for name in order)
    return marshal.dumps((modules[_START].code, parts))


def import_order(imported: dict[str, list[str]], wanted: list[str]) -> list[str]:
    """Return the modules that `wanted` import at the top level, each after its own imports (`imported`, by module)."""
    order: list[str] = []
    seen: set[str] = set()

    def visit(name: str) -> None:
        if name not in imported or name in seen:
            return
        seen.add(name)
        visit(name.rpartition(".")[0])
        for imported_name in imported[name]:
            visit(imported_name)
        order.append(name)

    for name in wanted:
        visit(name)
    return order


def imports(name: str, tree: ast.Module) -> list[str]:
    """Return every name that a module's import statements may refer to, modules or not.

    Of a `try`, only the body is read. Imports in a function or under a condition are left out: they happen later.
    """
    names = []
    statements = tree.body + [tried for block in tree.body if isinstance(block, ast.Try) for tried in block.body]
    for statement in statements:
        if isinstance(statement, ast.Import):
            names += [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            base = statement.module or ""
            if statement.level:  # one dot: no module here imports from a parent package
                base = f"{name.rpartition('.')[0]}.{base}".rstrip(".")
            names += [base, *(f"{base}.{alias.name}" for alias in statement.names)]
    return names


def read_modules(library: str, final: str) -> dict[str, Module]:
    """Return every module of the code in `library` by name, compiled for its path in `final`."""
    modules = {}
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
                    modules[name] = Module(file == "__init__.py", imports(name, tree), code)
    return modules
