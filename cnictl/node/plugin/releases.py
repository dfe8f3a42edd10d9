"""One version of the plugin on disk: its code copied whole, with bytecode, a manifest and its launcher.

`version_folder` says how versions live side by side.
"""

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
from cnictl.core.process import run
from cnictl.node.plugin import interpreters, version_folder
from cnictl.node.plugin.interpreters import Interpreter

PLUGIN = "cnictl-bridge"

NOT_STARTED = 110
"""CNI error code: the plugin could not be started at all. Ours, from 100 on (spec 1.1.0 section 5)."""

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
"""What the interpreter is started with: the verb's bundle, if this interpreter has a whole one, then `main`."""

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
class Library:
    """A version of the plugin in a library folder."""

    folder: str
    """`/usr/local/lib/cnictl/0.1.0`"""
    digest: str
    """Of its sources; empty if one of its files is missing or changed."""
    interpreter: str
    """The one recorded in its launcher."""
    fault: str
    """What is wrong with it; empty if nothing."""

    @property
    def version(self) -> str:
        """The folder's name."""
        return os.path.basename(self.folder)

    @property
    def launcher(self) -> str:
        """The version's own copy of its launcher."""
        return f"{self.folder}/{PLUGIN}"


def sources() -> dict[str, bytes]:
    """The plugin's code by path in the library: `cnictl/__init__.py`, `cnictl/core` and below, `cnictl_plugin`."""
    found = {"cnictl/__init__.py": (importlib.resources.files("cnictl") / "__init__.py").read_bytes()}
    for package in ("cnictl.core", "cnictl_plugin"):
        found |= _modules(importlib.resources.files(package), package.replace(".", "/"))
    return found


def _modules(folder: Traversable, place: str) -> dict[str, bytes]:
    """The Python files of a package and of those in it, by path."""
    found = {}
    for entry in folder.iterdir():
        path = f"{place}/{entry.name}"
        if entry.name.endswith(".py"):
            found[path] = entry.read_bytes()
        elif entry.is_dir() and entry.name != "__pycache__":
            found |= _modules(entry, path)
    return found


def digest_of(code: dict[str, bytes]) -> str:
    """Return the digest of the plugin's code."""
    return version_folder.digest_of(sorted(code.items()))


def versions(lib_dir: str) -> list[str]:
    """Names of the versions in a library folder, oldest first."""
    return sorted(version_folder.names(lib_dir), key=lambda name: installed_at(f"{lib_dir}/{name}"))


def installed_at(folder: str) -> str:
    """When a version was put there, `2026-01-31T12:00:00Z`; empty if the folder is none."""
    return str(version_folder.manifest(folder).get("installed", ""))


def release_of(folder: str) -> str:
    """The release of cnictl that a version was installed by; empty if the folder is no version."""
    return str(version_folder.manifest(folder).get("version", ""))


def digest_noted(folder: str) -> str:
    """The digest of a version as it was installed, whatever became of its files; empty if the folder is none."""
    return str(version_folder.manifest(folder).get("digest", ""))


def examine(folder: str) -> Library:
    """Look at a version: are all its files there and unchanged, bytecode too, and does its interpreter exist."""
    manifest = version_folder.manifest(folder)
    interpreter = str(manifest.get("interpreter", ""))
    if not manifest:
        return Library(folder, "", interpreter, f"{folder}/{version_folder.MANIFEST} is missing or unreadable")
    for name, digest in manifest["files"].items():
        try:
            content = durable.contents(f"{folder}/{name}")
        except OSError as error:
            return Library(folder, "", interpreter, f"{folder}/{name}: {error.strerror}")
        if hashlib.sha256(content).hexdigest() != digest:
            return Library(folder, "", interpreter, f"{folder}/{name} is not as it was installed")
    gone = "" if os.access(interpreter, os.X_OK) else f"interpreter {interpreter} is gone"
    return Library(folder, str(manifest["digest"]), "" if gone else interpreter, gone)


def build(lib_dir: str, name: str, code: dict[str, bytes], interpreter: Interpreter) -> Library:
    """Put a version on disk under its final name, in one step, whatever had that name before.

    Raises Problem if the code doesn't compile.
    """
    folder = f"{lib_dir}/{name}"
    second = interpreters.fallback()
    compiled_for = {one.cache_tag: one for one in (second, interpreter) if one is not None}
    with version_folder.building(lib_dir, name) as new:
        for path, content in code.items():
            version_folder.write(f"{new}/{path}", content, 0o644)
        launcher = launcher_text(folder, interpreter.path, second)
        version_folder.write(f"{new}/{PLUGIN}", launcher.encode(), 0o755)
        for one in compiled_for.values():
            command = [one.path, "-ISB", "-X", "no_debug_ranges", "-c", _COMPILE]
            boot = f"{new}/boot" if one is interpreter else ""
            run([*command, new, folder, _bundles(new, one.cache_tag), boot], "\0".join(code), timeout=60)
        manifest = {
            "version": cnictl.__version__,
            "digest": digest_of(code),
            "interpreter": interpreter.path,
            "installed": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "files": _digests(new),
        }
        version_folder.write_manifest(new, manifest)
    return examine(folder)


def launcher_text(folder: str, interpreter: str, second: Interpreter | None) -> str:
    """The launcher of the version in `folder`. A system interpreter installed later may serve as second choice too."""
    other = interpreters.SYSTEM if second is not None or not os.path.exists(interpreters.SYSTEM) else ""
    program = _PROGRAM.replace("@LIBRARY@", repr(folder)).replace("@BUNDLES@", repr(_bundles(folder, "")))
    pythons = list(dict.fromkeys(path for path in (interpreter, other) if path))
    no_python = f"cnictl-bridge cannot start: no interpreter, {' and '.join(pythons)} missing"
    no_library = f"cnictl-bridge cannot start: its code in {folder} is gone"
    text = (importlib.resources.files("cnictl_plugin") / "launcher.sh").read_text(encoding="utf-8")
    text = text.replace("@PYTHONS@", " ".join(shlex.quote(path) for path in pythons))
    for mark, value in (
        ("@LIBRARY@", folder),
        ("@NO_PYTHON@", _error(no_python)),
        ("@NO_LIBRARY@", _error(no_library)),
        ("@PROGRAM@", program),
    ):
        text = text.replace(mark, shlex.quote(value))
    return text


def _error(message: str) -> str:
    document = {"cniVersion": "1.0.0", "code": NOT_STARTED, "msg": message, "details": "run: cnictl plugin install"}
    return json.dumps(document)


def _bundles(folder: str, tag: str) -> str:
    """Where a version keeps its bundles for an interpreter, one file a verb, named after it."""
    return f"{folder}/bundles/{tag}"


def _digests(folder: str) -> dict[str, str]:
    """SHA-256 of every file below `folder`, by its path there: what runs is the bytecode, not the source beside it."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = f"{place}/{name}"
            if os.path.islink(path):
                continue  # the interpreter, that is the distribution's to replace
            found[os.path.relpath(path, folder)] = hashlib.sha256(durable.contents(path)).hexdigest()
    return dict(sorted(found.items()))
