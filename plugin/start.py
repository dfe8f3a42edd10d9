"""Start a call from one file of bytecode instead of two dozen: what the imports cost is halved (docs/dev/speed.md).

This file's own bytecode stands in each bundle before the modules that it puts in place; the launcher executes it.
Where there is no bundle, the same modules are imported as any others.
"""

import marshal
import sys
from _frozen_importlib import BuiltinImporter, ModuleSpec
from _frozen_importlib_external import ExtensionFileLoader
from posix import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, ModuleType
    from typing import Any


def load(
    library: str,
    extensions: "tuple[tuple[str, str], ...]",
    modules: "tuple[tuple[str, bool, CodeType], ...]",
    later: "dict[str, bytes | str]",
    cold: "tuple[bytes, ...]",
) -> None:
    """Put the interpreter's C modules in place, then execute modules, each after those that it imports.

    `extensions`: name and file, empty for one that is built in. `modules`: name, whether a package, code. `later`: what
    functions import, code as bytes or an extension's file. `cold`: functions the verb normally doesn't call, as bytes.
    """
    for name, path in extensions:
        if name not in sys.modules:
            _extension(name, path)
    for name, is_package, code in modules:
        _execute(library, name, is_package, code, cold)
    if later:
        sys.meta_path.insert(0, _Later(later, cold))


def _extension(name: str, path: str) -> None:
    """What an import does once it has searched. One that is not there is left to the import statement."""
    loader: Any = ExtensionFileLoader(name, path) if path else BuiltinImporter
    spec = ModuleSpec(name, loader, origin=path or "built-in")
    try:
        module = loader.create_module(spec)
        loader.exec_module(module)
    except ImportError:
        return
    module.__spec__ = spec
    sys.modules[name] = module


def _execute(library: str, name: str, is_package: bool, code: "CodeType", cold: "tuple[bytes, ...]") -> None:
    module = type(sys)(name)
    parent, _, own = name.rpartition(".")
    module.__package__ = name if is_package else parent
    if is_package:
        module.__path__ = [f"{library}/{name.replace('.', '/')}"]  # what is not in the bundle is found there
    module.__dict__["__cold__"] = _waker(module.__dict__, cold)
    sys.modules[name] = module
    exec(code, module.__dict__)
    if parent:
        setattr(sys.modules[parent], own, module)


def _waker(namespace: "dict[str, Any]", cold: "tuple[bytes, ...]") -> "Callable[[int], Callable[..., Any]]":
    """What a module calls in place of the definition of a cold function: it is made when first called."""

    def asleep(number: int) -> "Callable[..., Any]":
        awake: list[Any] = []

        def stub(*arguments: "Any", **keywords: "Any") -> "Any":
            if not awake:
                made: dict[str, Any] = {}
                exec(marshal.loads(cold[number]), namespace, made)
                awake.extend(made.values())
            return awake[0](*arguments, **keywords)

        return stub

    return asleep


class _Later:
    """Finds and loads what functions import that the bundle has (importlib's finder and loader in one)."""

    def __init__(self, known: "dict[str, bytes | str]", cold: "tuple[bytes, ...]") -> None:
        self._known = known
        self._cold = cold

    def find_spec(self, name: str, *_: object) -> "ModuleSpec | None":
        found = self._known.get(name)
        if isinstance(found, str):
            try:
                stat(found)
            except OSError:
                return None  # another build of the interpreter may have it elsewhere, or built in
            return ModuleSpec(name, ExtensionFileLoader(name, found), origin=found)
        return ModuleSpec(name, self) if found else None  # type: ignore[arg-type]  # as much of a loader as is asked for

    def create_module(self, _: ModuleSpec) -> None:
        """Any module object will do."""

    def exec_module(self, module: "ModuleType") -> None:
        code = self._known[module.__name__]
        module.__dict__["__cold__"] = _waker(module.__dict__, self._cold)
        exec(marshal.loads(code), module.__dict__)  # type: ignore[arg-type]  # text is for extensions
