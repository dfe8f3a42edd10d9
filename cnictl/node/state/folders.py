"""Folders made on the way to a file of ours, remembered so that a reset takes them away again, if they are empty.

A runtime that watches its conf folder goes blind for good when that is removed, so those stay where one runs.
"""

import json
import os

from cnictl.core import durable
from cnictl.core.errors import Problem
from cnictl.core.paths import STATE_DIR

RECORD = f"{STATE_DIR}/folders.json"


def make(path: str, mode: int = 0o755) -> None:
    """Make `path` and what is missing above it, and remember which of them that made."""
    missing = []
    while not os.path.isdir(path):
        if os.path.islink(path):
            raise Problem(
                f"{path} is a link to {os.readlink(path)}, where there is no folder",
                f"make that folder, or remove the link: rm {path}",
            )
        if os.path.lexists(path):
            raise Problem(f"{path} is there and no folder", f"move it out of the way: mv {path} {path}.old")
        missing.append(path)
        path = os.path.dirname(path)
    if not missing:
        return
    _remember([*_remembered(), *missing])  # first: whoever is killed between the two leaves nothing unknown
    for folder in reversed(missing):
        try:
            os.mkdir(folder, mode)
        except OSError:
            if os.path.isdir(folder):  # somebody else made it meanwhile
                _remember([other for other in _remembered() if other != folder])
                continue
            unmake(missing[0])
            raise


def unmake(path: str) -> None:
    """Remove `path` and those above it, as far as `make` made them and they are empty."""
    remembered = _remembered()
    while path in remembered:
        try:
            os.rmdir(path)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError:
            return  # something else lives there by now
        remembered.remove(path)
        _remember(remembered)
        path = os.path.dirname(path)


def remembered() -> list[str]:
    """Every folder that `make` made and `unmake` has not removed, deepest first."""
    return sorted(_remembered(), reverse=True)


def _remembered() -> list[str]:
    try:
        paths = json.loads(durable.contents(RECORD))
    except FileNotFoundError:
        return []
    return [str(path) for path in paths]


def _remember(paths: list[str]) -> None:
    if paths:
        durable.make_folder(STATE_DIR)
        durable.replace(RECORD, json.dumps(sorted(set(paths))).encode() + b"\n", 0o600)
        return
    if os.path.exists(RECORD):
        os.unlink(RECORD)
    try:
        os.rmdir(STATE_DIR)
    except OSError:
        return  # attachment records or the journal live there too
