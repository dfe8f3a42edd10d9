"""One version of the plugin on disk: its code copied whole, with bytecode, a manifest and its launcher.

A version's folder never changes once it has its name: other content of the same version gets a name of its own
(`0.1.0+1a2b3c4d`), for a call may be importing from the old one at that moment.
"""

import ctypes
import hashlib
import importlib.resources
import json
import os
import shlex
import shutil
import time
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Any

import cnictl
from cnictl.core import durable
from cnictl.core.errors import Problem
from cnictl.core.process import run
from cnictl.node.plugin import interpreters
from cnictl.node.plugin.interpreters import Interpreter

PLUGIN = "cnictl-bridge"
MANIFEST = "manifest.json"
FORMAT = 1

NOT_STARTED = 110
"""CNI error code: the plugin could not be started at all. Ours, from 100 on (spec 1.1.0 section 5)."""

_NEW, _OLD = ".cnictl-building-", ".cnictl-removing-"
"""What names of versions begin with that are not whole yet, or not any more."""
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2

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
    """One digest over names and contents, that tells two builds of the same version apart."""
    whole = hashlib.sha256()
    for name in sorted(code):
        whole.update(f"{name}\0{len(code[name])}\0".encode())
        whole.update(code[name])
    return whole.hexdigest()


def name_for(lib_dir: str, digest: str) -> str:
    """The folder name for this cnictl's code: its version, or with a digest's start where other code has that name."""
    taken = _manifest(f"{lib_dir}/{cnictl.__version__}")
    if os.path.lexists(f"{lib_dir}/{cnictl.__version__}") and taken.get("digest") != digest:
        return f"{cnictl.__version__}+{digest[:8]}"
    return cnictl.__version__


def versions(lib_dir: str) -> list[str]:
    """Names of the versions in a library folder, oldest first."""
    try:
        names = os.listdir(lib_dir)
    except (FileNotFoundError, NotADirectoryError):
        return []
    dated = [(installed_at(f"{lib_dir}/{name}"), name) for name in names if not name.startswith((_NEW, _OLD))]
    return [name for installed, name in sorted(dated) if installed]


def installed_at(folder: str) -> str:
    """When a version was put there, `2026-01-31T12:00:00Z`; empty if the folder is none."""
    return str(_manifest(folder).get("installed", ""))


def release_of(folder: str) -> str:
    """The release of cnictl that a version was installed by; empty if the folder is no version."""
    return str(_manifest(folder).get("version", ""))


def digest_noted(folder: str) -> str:
    """The digest of a version as it was installed, whatever became of its files; empty if the folder is none."""
    return str(_manifest(folder).get("digest", ""))


def examine(folder: str) -> Library:
    """Look at a version: are all its files there and unchanged, bytecode too, and does its interpreter exist."""
    manifest = _manifest(folder)
    interpreter = str(manifest.get("interpreter", ""))
    if not manifest:
        return Library(folder, "", interpreter, f"{folder}/{MANIFEST} is missing or unreadable")
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
    new = f"{lib_dir}/{_NEW}{os.getpid()}"
    clear_half_built(lib_dir)
    second = interpreters.fallback()
    compiled_for = {one.cache_tag: one for one in (second, interpreter) if one is not None}
    try:
        for path, content in code.items():
            _write(f"{new}/{path}", content, 0o644)
        _write(f"{new}/{PLUGIN}", launcher_text(folder, interpreter.path, second).encode(), 0o755)
        for one in compiled_for.values():
            command = [one.path, "-ISB", "-X", "no_debug_ranges", "-c", _COMPILE]
            boot = f"{new}/boot" if one is interpreter else ""
            run([*command, new, folder, _bundles(new, one.cache_tag), boot], "\0".join(code), timeout=60)
        manifest = {
            "format": FORMAT,
            "version": cnictl.__version__,
            "digest": digest_of(code),
            "interpreter": interpreter.path,
            "installed": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "files": _digests(new),
        }
        _write(f"{new}/{MANIFEST}", json.dumps(manifest, indent=1).encode() + b"\n", 0o644)
        for parent, _, _ in os.walk(new):
            os.chmod(parent, 0o755)  # whatever the operator's umask
        _sync(new)
        if os.path.lexists(folder):
            exchange(new, folder)
        else:
            os.rename(new, folder)
        _sync(lib_dir)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return examine(folder)


def remove(lib_dir: str, name: str) -> None:
    """Delete a version: first its name, so that no half of it is ever found."""
    aside = f"{lib_dir}/{_OLD}{os.getpid()}"
    try:
        os.rename(f"{lib_dir}/{name}", aside)
    except FileNotFoundError:
        return
    shutil.rmtree(aside)


def clear_half_built(lib_dir: str) -> None:
    """Delete what a `build` or `remove` that was killed was at, if it can be. The caller holds `exclusive`."""
    try:
        names = os.listdir(lib_dir)
    except OSError:
        return
    for name in names:
        if name.startswith((_NEW, _OLD)):
            shutil.rmtree(f"{lib_dir}/{name}", ignore_errors=True)


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


def _manifest(folder: str) -> dict[str, Any]:
    try:
        found = json.loads(durable.contents(f"{folder}/{MANIFEST}"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get("format") == FORMAT else {}


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


def _write(path: str, content: bytes, mode: int) -> None:
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    with open(path, "xb") as file:
        file.write(content)
        os.fchmod(file.fileno(), mode)


def _sync(folder: str) -> None:
    """All of a file system to disk in one go: a version has some eighty files (syncfs(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            raise Problem(f"{folder}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(descriptor)


def exchange(one: str, other: str) -> None:
    """Swap two names in one step, so that a call that starts meanwhile finds either whole (renameat2(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
        raise Problem(f"{other}: can't be replaced: {os.strerror(ctypes.get_errno())}")
