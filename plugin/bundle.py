"""Bundles: for each verb one file with the bytecode of all that it imports, in the order in which that has to run.

Made at install by the interpreter that will read them, for bytecode is its own; read by `start`.
"""

import ast
import marshal
import os
from types import CodeType

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


def write_bundles(library: str, final: str, target: str) -> None:
    """Write the running interpreter's bundles of the code in `library`, that will stand in `final`, to `target`."""
    sources = read_sources(library)
    os.makedirs(target, 0o755, exist_ok=True)

    def compiled(name: str) -> CodeType:
        path, text = sources[name]
        return compile(text, path.replace(library, final, 1), "exec", dont_inherit=True, optimize=2)

    for verb, module in MODULES.items():
        order = import_order({name: text for name, (_, text) in sources.items()}, ["cnictl_plugin.main", module])
        modules = tuple((name, _is_package(sources[name][0]), compiled(name)) for name in order)
        with open(f"{target}/{verb}", "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(marshal.dumps((compiled(_START), modules)))


def import_order(sources: dict[str, str], wanted: list[str]) -> list[str]:
    """The modules among `sources` (name to text) that `wanted` import at their top level, each after its own imports.

    Only statements of the module itself count: what stands in a function or under a condition is imported later.
    """
    order: list[str] = []
    seen: set[str] = set()

    def visit(name: str) -> None:
        if name not in sources or name in seen:
            return
        seen.add(name)
        visit(name.rpartition(".")[0])
        for imported in _imports(name, sources[name]):
            visit(imported)
        order.append(name)

    for name in wanted:
        visit(name)
    return order


def _imports(name: str, text: str) -> list[str]:
    """Everything that a module's import statements may mean, modules or not."""
    found = []
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.Import):
            found += [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            base = statement.module or ""
            if statement.level:  # one dot: no package here holds another that imports upwards
                base = f"{name.rpartition('.')[0]}.{base}".rstrip(".")
            found += [base, *(f"{base}.{alias.name}" for alias in statement.names)]
    return found


def read_sources(library: str) -> dict[str, tuple[str, str]]:
    """Path and text of every module in a library, by name."""
    found = {}
    for top in ("cnictl", "cnictl_plugin"):
        for place, _, files in os.walk(f"{library}/{top}"):
            for file in files:
                if file.endswith(".py"):
                    path = f"{place}/{file}"
                    name = os.path.relpath(path, library).removesuffix(".py").removesuffix("/__init__")
                    with open(path, encoding="utf-8") as source:
                        found[name.replace("/", ".")] = (path, source.read())
    return found


def _is_package(path: str) -> bool:
    return path.endswith("/__init__.py")
