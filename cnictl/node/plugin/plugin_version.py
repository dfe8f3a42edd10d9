"""Build and examine versions of the plugin: a copy of its code with bytecode, a manifest and a launcher.

`version_folder` keeps several versions side by side.
"""

import contextlib
import hashlib
import importlib.resources
import json
import os
import shlex
import time
from dataclasses import dataclass
from importlib.resources.abc import Traversable

import cnictl
from cnictl.core import durable
from cnictl.core.errors import Problem
from cnictl.core.process import run
from cnictl.node.plugin import interpreters, version_folder
from cnictl.node.plugin.interpreters import Interpreter

PLUGIN = "cnictl-bridge"

NOT_STARTED = 110
"""CNI error code: the plugin could not be started at all. Codes from 100 on are a plugin's (spec 1.1.0 section 5)."""

_PROGRAM = """import gc, marshal, posix, sys
gc.disable()
sys.path.insert(0, @LIBRARY@)
verb = posix.environ.get(b"CNI_COMMAND", b"").decode("latin-1")
try:
    bundle = posix.open(@BUNDLES@ + sys.implementation.cache_tag + "/" + (verb if verb.isalpha() else "-"), 0)
    start, *parts = marshal.loads(posix.read(bundle, 1 << 22))
    posix.close(bundle)
except (OSError, EOFError, ValueError, TypeError):
    pass
else:
    exec(start)
    load(@LIBRARY@, *parts)
from cnictl_plugin.main import main
main()
"""
"""The program for the interpreter: load the verb's bundle if this interpreter has an intact one, then run `main`."""

_COMPILE = """
import importlib.machinery, py_compile, sys
source, final, bundles, boot = sys.argv[1:]
sys.path.insert(0, source)
from cnictl_plugin.boot import write_boot
from cnictl_plugin.bundle import write_bundles
write_bundles(source, final, bundles)
if boot:
    write_boot(f"{source}/cnictl_plugin/codec.py", boot)
for name in sys.stdin.read().split("\\0"):
    py_compile.compile(
        f"{source}/{name}", dfile=f"{final}/{name}", doraise=True,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
"""


@dataclass(frozen=True)
class PluginVersion:
    """A version of the plugin in a library folder."""

    folder: str
    """`/usr/local/lib/cnictl/0.1.0`"""
    digest: str
    """The digest of its sources; empty if one of its files is missing or changed."""
    interpreter: str
    """The interpreter that its launcher names."""
    fault: str
    """What is wrong with it; empty if nothing."""

    @property
    def launcher(self) -> str:
        """The version's own copy of its launcher."""
        return f"{self.folder}/{PLUGIN}"


def sources() -> dict[str, bytes]:
    """Return the plugin's code by path in the library: `cnictl/__init__.py`, `cnictl/core` and `cnictl_plugin`."""
    code = {"cnictl/__init__.py": (importlib.resources.files("cnictl") / "__init__.py").read_bytes()}
    for package in ("cnictl.core", "cnictl_plugin"):
        code |= _modules(importlib.resources.files(package), package.replace(".", "/"))
    return code


def _modules(folder: Traversable, place: str) -> dict[str, bytes]:
    """Return the Python files of a package and of those in it, by path."""
    modules = {}
    for entry in folder.iterdir():
        path = f"{place}/{entry.name}"
        if entry.name.endswith(".py"):
            modules[path] = entry.read_bytes()
        elif entry.is_dir() and entry.name != "__pycache__":
            modules |= _modules(entry, path)
    return modules


def digest_of(code: dict[str, bytes]) -> str:
    """Return the digest of the plugin's code."""
    return version_folder.digest_of(sorted(code.items()))


def versions(lib_dir: str) -> list[str]:
    """Return the names of the versions in a library folder, oldest first."""
    return sorted(version_folder.names(lib_dir), key=lambda name: noted(f"{lib_dir}/{name}", "installed"))


def noted(folder: str, key: str) -> str:
    """Return a value of a version's manifest; empty if the folder is not a version's.

    The keys are `installed` (`2026-01-31T12:00:00Z`), `version` (of cnictl), `digest` and `interpreter`.
    """
    return str(version_folder.manifest(folder).get(key, ""))


def examine(folder: str) -> PluginVersion:
    """Check that all files of a version are unchanged, bytecode included, and that its interpreter exists."""
    manifest = version_folder.manifest(folder)
    interpreter = str(manifest.get("interpreter", ""))
    if not manifest:
        return PluginVersion(folder, "", interpreter, f"{folder}/{version_folder.MANIFEST} is missing or unreadable")
    for name, digest in manifest["files"].items():
        try:
            content = durable.contents(f"{folder}/{name}")
        except OSError as error:
            return PluginVersion(folder, "", interpreter, f"{folder}/{name}: {error.strerror}")
        if hashlib.sha256(content).hexdigest() != digest:
            return PluginVersion(folder, "", interpreter, f"{folder}/{name} has changed since it was installed")
    gone = "" if os.access(interpreter, os.X_OK) else f"interpreter {interpreter} is gone"
    return PluginVersion(folder, str(manifest["digest"]), "" if gone else interpreter, gone)


def build(lib_dir: str, name: str, code: dict[str, bytes], interpreter: Interpreter) -> PluginVersion:
    """Write a version under its final name in one step, replacing a version of that name.

    Raises Problem if the code doesn't compile.
    """
    folder = f"{lib_dir}/{name}"
    second = None
    with contextlib.suppress(Problem):
        second = interpreters.inspect(interpreters.SYSTEM)
    compiled_for = {python.cache_tag: python for python in (second, interpreter) if python is not None}
    with version_folder.building(lib_dir, name) as new:
        for path, content in code.items():
            version_folder.write(f"{new}/{path}", content, 0o644)
        launcher = launcher_text(folder, interpreter.path, second)
        version_folder.write(f"{new}/{PLUGIN}", launcher.encode(), 0o755)
        for python in compiled_for.values():
            command = [python.path, "-ISB", "-X", "no_debug_ranges", "-c", _COMPILE]
            boot = f"{new}/boot" if python is interpreter else ""
            run([*command, new, folder, _bundles(new, python.cache_tag), boot], "\0".join(code), timeout=60)
        # digests of every file, because the bytecode runs, not the source; the link to the interpreter may change
        paths = sorted(f"{place}/{file}" for place, _, files in os.walk(new) for file in files)
        digests = {
            os.path.relpath(path, new): hashlib.sha256(durable.contents(path)).hexdigest()
            for path in paths
            if not os.path.islink(path)
        }
        manifest = {
            "version": cnictl.__version__,
            "digest": digest_of(code),
            "interpreter": interpreter.path,
            "installed": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "files": digests,
        }
        version_folder.write_manifest(new, manifest)
    return examine(folder)


def launcher_text(folder: str, interpreter: str, second: Interpreter | None) -> str:
    """Return the launcher of the version in `folder`. Its second choice is the system's interpreter, present or not."""
    other = interpreters.SYSTEM if second is not None or not os.path.exists(interpreters.SYSTEM) else ""
    program = _PROGRAM.replace("@LIBRARY@", repr(folder)).replace("@BUNDLES@", repr(_bundles(folder, "")))
    pythons = list(dict.fromkeys(path for path in (interpreter, other) if path))
    text = (importlib.resources.files("cnictl_plugin") / "launcher.sh").read_text(encoding="utf-8")
    text = text.replace("@PYTHONS@", " ".join(shlex.quote(path) for path in pythons))
    for mark, value in (
        ("@LIBRARY@", folder),
        ("@NO_PYTHON@", _error(f"no interpreter, {' and '.join(pythons)} missing")),
        ("@NO_LIBRARY@", _error(f"its code in {folder} is gone")),
        ("@PROGRAM@", program),
    ):
        text = text.replace(mark, shlex.quote(value))
    return text


def _error(why: str) -> str:
    message = f"cnictl-bridge cannot start: {why}"
    hint = "run: cnictl plugin install"
    return json.dumps({"cniVersion": "1.0.0", "code": NOT_STARTED, "msg": message, "details": hint})


def _bundles(folder: str, tag: str) -> str:
    """Return the folder of a version's bundles for an interpreter; it has a file for each verb, named after it."""
    return f"{folder}/bundles/{tag}"
