"""Make a folder from which the interpreter starts faster by an eighth, with `codec` in place of `encodings`.

The folder contains a link to the interpreter. A `python._pth` file next to it gives the interpreter its search path and
isolates it as `-I` does (CPython Modules/getpath.py). If the result doesn't work, the folder is removed and the
launcher starts the interpreter as usual.
"""

import os
import py_compile
import shutil
import subprocess
import sys

_PROOF = (
    "import sys; assert sys.flags.isolated and sys.modules['encodings'].__file__.startswith(sys.path[0]); "
    "sys.path.insert(0, '/'); import _json, hashlib, subprocess; "
    "assert 'ä'.encode('cp1252') == b'\\xe4' and 'x'.encode('idna') == b'x'; print(sys.version)"
)
"""Checks that C modules, Python modules and other encodings are found if the launcher's own folder comes first."""


def write_boot(codec: str, target: str) -> bool:
    """Make the folder `target` for the running interpreter, from `codec`'s source; return whether it works.

    The link's target names the minor version (`python3.11`), so that it never leads to another version.
    """
    real = os.path.realpath(sys.executable)
    if os.path.basename(real) != f"python{sys.version_info[0]}.{sys.version_info[1]}":
        return False
    library = os.path.dirname(os.__file__)
    paths = [".", "..", *(path for path in sys.path if path.startswith(library) and os.path.isdir(path))]
    os.makedirs(f"{target}/encodings", 0o755)
    os.symlink(real, f"{target}/python")
    with open(f"{target}/python._pth", "x", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write("\n".join(paths) + "\n")
    py_compile.compile(
        codec,
        f"{target}/encodings/__init__.pyc",
        "encodings",
        doraise=True,
        optimize=2,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    os.chmod(f"{target}/encodings/__init__.pyc", 0o644)
    if _works(f"{target}/python"):
        return True
    shutil.rmtree(target)
    return False


def _works(python: str) -> bool:
    command = [python, "-IS", "-B", "-X", "utf8", "-c", _PROOF]
    try:
        done = subprocess.run(command, env={}, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.stdout.rstrip("\n") == sys.version
