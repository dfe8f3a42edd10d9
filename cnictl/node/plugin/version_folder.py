"""Keep several versions of a program in one folder, each in a folder of its own name with a manifest.

A version is built under a passing name and renamed, so that it is there whole or not at all. Its content never changes
once it has its name: a process may be importing from it at that moment. Other content of the same release gets a
name of its own (`0.1.0+1a2b3c4d`). `plugin_version` keeps the plugin so, `program` root's copy of cnictl.
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
"""What the names begin with that a version has before it is whole, and while it is removed."""
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def manifest(folder: str) -> dict[str, Any]:
    """Return what a version's manifest says; empty if the folder is no version."""
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
    """Return the name for a digest: this release, or with the digest's start where other content has that name."""
    taken = f"{parent}/{cnictl.__version__}"
    if os.path.lexists(taken) and manifest(taken).get("digest") != digest:
        return f"{cnictl.__version__}+{digest[:8]}"
    return cnictl.__version__


def digest_of(files: Iterable[tuple[str, bytes]]) -> str:
    """Return one digest over names and contents, which tells two builds of one release apart. `files` are sorted."""
    whole = hashlib.sha256()
    for name, content in files:
        whole.update(f"{name}\0{len(content)}\0".encode())
        whole.update(content)
    return whole.hexdigest()


@contextmanager
def building(parent: str, name: str) -> Iterator[str]:
    """Give the path of a folder to fill, and then rename it to the version `name`; it replaces one of that name.

    The caller holds `exclusive`. If an exception ends the block, nothing is left and nothing replaced.
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
    """Point a symbolic link beside the versions to one of them, in one step."""
    temporary = f"{os.path.dirname(link)}/{_BUILDING}{os.getpid()}-link"
    if os.path.lexists(temporary):
        os.unlink(temporary)
    os.symlink(name, temporary)
    os.rename(temporary, link)


def remove(parent: str, name: str) -> None:
    """Delete a version: first its name, so that no half of it is ever found."""
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
    """Write all of a file system to disk in one go: a version has hundreds of files (syncfs(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            raise Problem(f"{folder}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(descriptor)


def _exchange(new: str, final: str) -> None:
    """Swap two names in one step, so that a call that starts meanwhile finds either whole (renameat2(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(final), _RENAME_EXCHANGE):
        raise Problem(f"{final}: can't be replaced: {os.strerror(ctypes.get_errno())}")
