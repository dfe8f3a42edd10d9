"""Start a call from one file of bytecode instead of two dozen: what the imports cost is halved (docs/dev/speed.md).

This file's own bytecode stands in each bundle before the modules that it puts in place; the launcher executes it.
Where there is no bundle, the same modules are imported as any others.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType


def load(library: str, modules: "tuple[tuple[str, bool, CodeType], ...]") -> None:
    """Execute modules (name, whether a package, code), each after those that it imports."""
    for name, is_package, code in modules:
        _execute(library, name, is_package, code)


def _execute(library: str, name: str, is_package: bool, code: "CodeType") -> None:
    module = type(sys)(name)
    parent, _, own = name.rpartition(".")
    module.__package__ = name if is_package else parent
    if is_package:
        module.__path__ = [f"{library}/{name.replace('.', '/')}"]  # what is not in the bundle is found there
    sys.modules[name] = module
    exec(code, module.__dict__)
    if parent:
        setattr(sys.modules[parent], own, module)
