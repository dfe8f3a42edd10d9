"""Compile the plugin's bytecode once per test worker, so that `init-node` on a node need not compile it again.

Only bytecode of this version in its usual folder comes from here. The interpreter that `init-node` chose compiles
anything else.
"""

import os
import shutil
import tempfile
from typing import Any

from cnictl import __version__
from cnictl.core.errors import Problem
from cnictl.core.process import Finished
from cnictl.core.process import run as run_program
from cnictl.node.plugin import interpreters, plugin_version

_FOLDER = f"/usr/local/lib/cnictl/{__version__}"


def once() -> None:
    """Compile now, and make `plugin_version.build` use the result."""
    code = plugin_version.sources()
    try:
        chosen = interpreters.choose()
    except Problem:
        return  # a checkout whose interpreter others can write, for example: `init-node` reports that on each node
    made = tempfile.mkdtemp()
    try:
        for path, content in code.items():
            os.makedirs(os.path.dirname(f"{made}/{path}"), exist_ok=True)
            with open(f"{made}/{path}", "xb") as file:
                file.write(content)
        words = _words(chosen.path, made, chosen.cache_tag)
        run_program(words, "\0".join(code), timeout=60)
        files = {name: _read(f"{made}/{name}") for name in _below(made) if name not in code}
    finally:
        shutil.rmtree(made)

    def run(argv: list[str], stdin: str = "", **more: Any) -> Finished:
        new = argv[6] if len(argv) > 6 else ""  # the interpreter and its own five arguments come first
        if argv != _words(chosen.path, new, chosen.cache_tag) or stdin != "\0".join(code):
            return run_program(argv, stdin, **more)
        for name, content in files.items():
            os.makedirs(os.path.dirname(f"{new}/{name}"), 0o755, exist_ok=True)
            if isinstance(content, str):
                os.symlink(content, f"{new}/{name}")
            else:
                mode, data = content
                with open(f"{new}/{name}", "xb") as file:
                    file.write(data)
                    os.fchmod(file.fileno(), mode)
        return Finished(0, "", "")

    vars(plugin_version)["run"] = run


def _words(interpreter: str, new: str, tag: str) -> list[str]:
    """Return the command line that `plugin_version.build` uses."""
    start = [interpreter, "-ISB", "-X", "no_debug_ranges", "-c", plugin_version._COMPILE]
    return [*start, new, _FOLDER, plugin_version._bundles(new, tag), f"{new}/boot"]


def _below(folder: str) -> list[str]:
    return [os.path.relpath(f"{place}/{name}", folder) for place, _, names in os.walk(folder) for name in names]


def _read(path: str) -> str | tuple[int, bytes]:
    """Return the target of a link, or the mode and content of a file."""
    if os.path.islink(path):
        return os.readlink(path)
    with open(path, "rb") as file:
        return os.fstat(file.fileno()).st_mode & 0o777, file.read()
