"""Bundles: for each verb one file with the bytecode of all that it imports, in the order in which that has to run.

Made at install by the interpreter that will read them, for bytecode is its own; read by `start`. What a verb normally
doesn't call (`hot` has what it does) stands there as bytes that are only unpacked when it is called after all.
"""

import ast
import importlib.util
import marshal
import os
from importlib.machinery import ExtensionFileLoader
from types import CodeType

from .hot import FUNCTIONS, LATER

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
    for verb, module in MODULES.items():
        hot = frozenset(FUNCTIONS[verb]) if verb in FUNCTIONS else None
        with open(f"{target}/{verb}", "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(made(sources, module, hot, LATER.get(verb, ()), (library, final)))


def made(
    sources: dict[str, tuple[str, str]],
    module: str,
    hot: frozenset[str] | None,
    later: tuple[str, ...],
    moved: tuple[str, str],
) -> bytes:
    """One bundle: what `start.load` takes, behind the code that defines it.

    `hot`: functions that aren't put aside, `module:qualified name`; None: all. `later`: what functions import.
    `moved`: from which folder to which the sources will have been.
    """
    texts = {name: text for name, (_, text) in sources.items()}
    cold: list[bytes] = []

    def compiled(name: str) -> CodeType:
        path, text = sources[name]
        place = path.replace(moved[0], moved[1], 1)
        return compile(_slim(name, text, place, hot, cold), place, "exec", dont_inherit=True, optimize=2)

    order = import_order(texts, ["cnictl_plugin.main", module])
    extensions = {found for name in order for found in imports(name, texts[name]) if found not in sources}
    after: dict[str, bytes | str] = {}
    for name in later:
        if name in sources and name not in order:
            after[name] = marshal.dumps(compiled(name))
        elif name not in sources and _extension(name):
            after[name] = _extension(name) or ""
    parts = (
        tuple((name, path) for name in sorted(extensions) if (path := _extension(name)) is not None),
        tuple((name, _is_package(sources[name][0]), compiled(name)) for name in order),
        after,
    )
    return marshal.dumps((compiled(_START), *parts, tuple(cold)))


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
        for imported in imports(name, sources[name]):
            visit(imported)
        order.append(name)

    for name in wanted:
        visit(name)
    return order


def imports(name: str, text: str) -> list[str]:
    """Everything that a module's import statements may mean, modules or not; of a `try` what it tries first."""
    found = []
    statements = ast.parse(text).body
    statements += [tried for one in statements if isinstance(one, ast.Try) for tried in one.body]
    for statement in statements:
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


def _extension(name: str) -> str | None:
    """The file of one of the interpreter's C modules, empty for one that is built in; None for any other module."""
    try:
        spec = importlib.util.find_spec(name)
    except ImportError:
        return None
    if spec is None:
        return None
    if spec.origin == "built-in":
        return ""
    return spec.origin if isinstance(spec.loader, ExtensionFileLoader) else None


def _slim(name: str, text: str, path: str, hot: frozenset[str] | None, cold: list[bytes]) -> ast.Module:
    """A module without annotations, and its functions that aren't `hot` put aside in `cold`; `hot` None: all are."""
    tree = ast.parse(text)
    _Unannotated().visit(tree)
    if hot is not None and name != _START:
        scopes = [("", tree.body), *((f"{one.name}.", one.body) for one in tree.body if isinstance(one, ast.ClassDef))]
        for prefix, body in scopes:
            for place, one in enumerate(body):
                if isinstance(one, ast.FunctionDef) and f"{name}:{prefix}{one.name}" not in hot and _movable(one):
                    alone = ast.Module([one], [])
                    cold.append(marshal.dumps(compile(alone, path, "exec", dont_inherit=True, optimize=2)))
                    body[place] = ast.copy_location(_asleep(one.name, len(cold) - 1), one)
    return ast.fix_missing_locations(tree)


def _asleep(name: str, number: int) -> ast.stmt:
    call = ast.Call(ast.Name("__cold__", ast.Load()), [ast.Constant(number)], [])
    return ast.Assign([ast.Name(name, ast.Store())], call)


def _movable(function: ast.FunctionDef) -> bool:
    """Whether a function means the same when it is compiled outside its class."""
    names = {one.id for one in ast.walk(function) if isinstance(one, ast.Name)}
    names |= {one.attr for one in ast.walk(function) if isinstance(one, ast.Attribute)}
    private = any(one.startswith("__") and not one.endswith("__") for one in names)
    return not (function.decorator_list or private or {"super", "__class__"} & names)


class _Unannotated(ast.NodeTransformer):
    """Takes out annotations: what nobody asks for at run time needs not be evaluated at each start."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign([node.target], self.visit(node.value)), node)
