"""Load a call's modules from one file of bytecode, which halves the time of their import (docs/dev/speed.md).

Each bundle starts with this file's own bytecode, followed by the modules that it loads; the launcher executes it.
Without a bundle, the same modules are imported as usual.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType


def load(library: str, modules: "tuple[tuple[str, bool, CodeType], ...]") -> None:
    """Execute modules (name, whether it is a package, code); each comes after those that it imports."""
    for name, is_package, code in modules:
        _execute(library, name, is_package, code)


def _execute(library: str, name: str, is_package: bool, code: "CodeType") -> None:
    module = type(sys)(name)
    parent, _, own = name.rpartition(".")
    module.__package__ = name if is_package else parent
    if is_package:
        module.__path__ = [f"{library}/{name.replace('.', '/')}"]  # modules that are not in the bundle are found there
    sys.modules[name] = module
    exec(code, module.__dict__)
    if parent:
        setattr(sys.modules[parent], own, module)
