"""Bundles: for each verb one file with the bytecode of all that it imports, in the order in which that has to run.

Made at install by the interpreter that will read them, for bytecode is its own; read by `start`. What a verb normally
doesn't call (`hot` has what it does) stands there as bytes that are only unpacked when it is called after all.
"""

import ast
import functools
import importlib.util
import marshal
import os
from collections.abc import Sequence
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
    modules = read_modules(library, final)
    os.makedirs(target, 0o755, exist_ok=True)
    for verb, module in MODULES.items():
        hot = None
        if verb in FUNCTIONS:
            lines = (line.partition(": ") for line in FUNCTIONS[verb].splitlines())
            hot = frozenset(f"{place}:{name}" for place, _, names in lines for name in names.split())
        with open(f"{target}/{verb}", "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(made(modules, module, hot, LATER.get(verb, "").split()))


class Module:
    """A module's source, parsed once for all bundles, without annotations: nobody asks for them at run time."""

    def __init__(self, name: str, path: str, text: str) -> None:
        self.name = name
        self.path = path
        self.is_package = path.endswith("/__init__.py")
        self._tree = ast.parse(text)
        self.imports = imports(name, self._tree)
        self._apart: dict[ast.stmt, bytes] = {}
        self._whole: CodeType | None = None
        scopes = [self._tree.body, *(one.body for one in self._tree.body if isinstance(one, ast.ClassDef))]
        for body in scopes:
            body[:] = [_unannotated(one) for one in body]

    def whole(self) -> CodeType:
        """The code of all of it."""
        if self._whole is None:
            self._whole = self._compile(self._tree.body)
        return self._whole

    def only(self, hot: frozenset[str], cold: list[bytes]) -> CodeType:
        """The code with only its functions among `hot`; each other is added to `cold`, and fetched when called."""
        body: list[ast.stmt] = []
        for one in self._tree.body:
            if isinstance(one, ast.ClassDef):
                inner = [self._kept(part, f"{one.name}.", hot, cold) for part in one.body]
                changed = ast.ClassDef(one.name, one.bases, one.keywords, inner, one.decorator_list)
                body.append(ast.copy_location(changed, one))
            else:
                body.append(self._kept(one, "", hot, cold))
        return self._compile(body)

    def _kept(self, one: ast.stmt, prefix: str, hot: frozenset[str], cold: list[bytes]) -> ast.stmt:
        if not isinstance(one, ast.FunctionDef) or f"{self.name}:{prefix}{one.name}" in hot:
            return one
        if one not in self._apart:
            self._apart[one] = marshal.dumps(self._compile([one])) if _movable(one) else b""
        if not self._apart[one]:
            return one
        cold.append(self._apart[one])
        call = ast.Call(ast.Name("__cold__", ast.Load()), [ast.Constant(len(cold) - 1)], [])
        fetched = ast.Assign([ast.Name(one.name, ast.Store())], call)
        return ast.fix_missing_locations(ast.copy_location(fetched, one))

    def _compile(self, body: list[ast.stmt]) -> CodeType:
        return compile(ast.Module(body, []), self.path, "exec", dont_inherit=True, optimize=2)


def made(modules: dict[str, Module], module: str, hot: frozenset[str] | None, later: Sequence[str]) -> bytes:
    """One bundle: what `start.load` takes, behind the code that defines it.

    `hot`: functions that aren't put aside, `module:qualified name`; None: all. `later`: what functions import.
    """
    cold: list[bytes] = []

    def compiled(name: str) -> CodeType:
        return modules[name].whole() if hot is None else modules[name].only(hot, cold)

    order = import_order({name: one.imports for name, one in modules.items()}, ["cnictl_plugin.main", module])
    extensions = sorted({found for name in order for found in modules[name].imports if found not in modules})
    after: dict[str, bytes | str] = {}
    for name in later:
        if name in modules and name not in order:
            after[name] = marshal.dumps(compiled(name))
        elif name not in modules:
            after[name] = _extension(name) or b""
    parts = (
        tuple((name, path) for name in extensions if (path := _extension(name)) is not None),
        tuple((name, modules[name].is_package, compiled(name)) for name in order),
        {name: code for name, code in after.items() if code},
    )
    return marshal.dumps((modules[_START].whole(), *parts, tuple(cold)))


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
    """Every module of the code in `library`, by name; its path as it will be in `final`."""
    found = {}
    for top in ("cnictl", "cnictl_plugin"):
        for place, _, files in os.walk(f"{library}/{top}"):
            for file in files:
                if file.endswith(".py"):
                    path = f"{place}/{file}"
                    name = os.path.relpath(path, library).removesuffix(".py").removesuffix("/__init__")
                    with open(path, encoding="utf-8") as source:
                        module = Module(name.replace("/", "."), path.replace(library, final, 1), source.read())
                    found[module.name] = module
    return found


@functools.cache
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


def _unannotated(one: ast.stmt) -> ast.stmt:
    if isinstance(one, ast.FunctionDef):
        one.returns = None
        for argument in (*one.args.posonlyargs, *one.args.args, *one.args.kwonlyargs, one.args.vararg, one.args.kwarg):
            if argument is not None:
                argument.annotation = None
    elif isinstance(one, ast.AnnAssign):
        return ast.copy_location(ast.Assign([one.target], one.value) if one.value else ast.Pass(), one)
    return one


def _movable(function: ast.FunctionDef) -> bool:
    """Whether a function means the same when it is compiled outside its class."""
    names = {one.id for one in ast.walk(function) if isinstance(one, ast.Name)}
    names |= {one.attr for one in ast.walk(function) if isinstance(one, ast.Attribute)}
    private = any(one.startswith("__") and not one.endswith("__") for one in names)
    return not (function.decorator_list or private or {"super", "__class__"} & names)
