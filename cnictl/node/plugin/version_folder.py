"""Keep several versions of a program in one folder, each in a subfolder with a manifest.

A version is built under a temporary name and renamed, so that it appears completely or not at all. Once it has its
name, its content never changes, because a process may be importing from it. Other content of the same release of cnictl
gets another name (`0.1.0+1a2b3c4d`). `plugin_version` keeps the plugin this way, `program` root's copy of cnictl.
"""

import ctypes
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import cnictl
from cnictl.core import durable
from cnictl.core.errors import Problem

MANIFEST = "manifest.json"
_FORMAT = 1
_BUILDING, _REMOVING = ".cnictl-building-", ".cnictl-removing-"
"""The prefixes of a version's name while it is built, and while it is removed."""
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def manifest(folder: str) -> dict[str, Any]:
    """Return a version's manifest; empty if the folder is not a version's."""
    try:
        document = json.loads(durable.contents(f"{folder}/{MANIFEST}"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) and document.get("format") == _FORMAT else {}


def write_manifest(folder: str, entries: dict[str, Any]) -> None:
    """Write a version's manifest."""
    write(f"{folder}/{MANIFEST}", json.dumps({"format": _FORMAT, **entries}, indent=1).encode() + b"\n", 0o644)


def names(parent: str) -> list[str]:
    """Return the names of the versions in a folder, sorted."""
    try:
        entries = os.listdir(parent)
    except OSError:
        return []
    whole = (name for name in entries if not name.startswith(".") and not os.path.islink(f"{parent}/{name}"))
    return sorted(name for name in whole if manifest(f"{parent}/{name}"))


def name_for(parent: str, digest: str) -> str:
    """Return the name for a digest: cnictl's version, with the start of the digest if other content has that name."""
    taken = f"{parent}/{cnictl.__version__}"
    if os.path.lexists(taken) and manifest(taken).get("digest") != digest:
        return f"{cnictl.__version__}+{digest[:8]}"
    return cnictl.__version__


def digest_of(files: Iterable[tuple[str, bytes]]) -> str:
    """Return a digest of names and contents, which differs between builds of one release. `files` are sorted."""
    whole = hashlib.sha256()
    for name, content in files:
        whole.update(f"{name}\0{len(content)}\0".encode())
        whole.update(content)
    return whole.hexdigest()


@contextmanager
def building(parent: str, name: str) -> Iterator[str]:
    """Yield the path of a folder to fill, then rename it to the version `name`, replacing a version of that name.

    The caller holds `exclusive`. If an exception ends the block, nothing is left behind and nothing is replaced.
    """
    new, final = f"{parent}/{_BUILDING}{os.getpid()}", f"{parent}/{name}"
    clear_half_built(parent)
    try:
        yield new
        for folder, _, _ in os.walk(new):
            os.chmod(folder, 0o755)  # whatever the operator's umask
        _sync(new)
        if os.path.lexists(final):
            _exchange(new, final)
        else:
            os.rename(new, final)
        _sync(parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def write(path: str, content: bytes, mode: int) -> None:
    """Write a file of a version that is being built, and make the folders on the way to it."""
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    with open(path, "xb") as file:
        file.write(content)
        os.fchmod(file.fileno(), mode)


def point(link: str, name: str) -> None:
    """Make a symbolic link in the versions' folder point to one of them, in one step."""
    temporary = f"{os.path.dirname(link)}/{_BUILDING}{os.getpid()}-link"
    if os.path.lexists(temporary):
        os.unlink(temporary)
    os.symlink(name, temporary)
    os.rename(temporary, link)


def remove(parent: str, name: str) -> None:
    """Delete a version. It is renamed first, so that a half-deleted version never has its name."""
    aside = f"{parent}/{_REMOVING}{os.getpid()}"
    try:
        os.rename(f"{parent}/{name}", aside)
    except FileNotFoundError:
        return
    shutil.rmtree(aside)


def clear_half_built(parent: str) -> None:
    """Delete what a killed process was building or removing, as far as possible. The caller holds `exclusive`."""
    try:
        entries = os.listdir(parent)
    except OSError:
        return
    for path in (f"{parent}/{name}" for name in entries if name.startswith((_BUILDING, _REMOVING))):
        if os.path.islink(path):
            os.unlink(path)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _sync(folder: str) -> None:
    """Sync the whole file system in one call, because a version has hundreds of files (syncfs(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            raise Problem(f"{folder}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(descriptor)


def _exchange(new: str, final: str) -> None:
    """Swap two names in one step, so that a call that starts meanwhile finds an intact version (renameat2(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(final), _RENAME_EXCHANGE):
        raise Problem(f"{final} can't be replaced: {os.strerror(ctypes.get_errno())}")
