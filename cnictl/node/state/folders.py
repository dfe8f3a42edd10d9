"""Make folders for our files, and record them so that a reset can remove the empty ones.

A runtime that watches its conf folder no longer notices changes once the folder was removed, so the folder stays while
a runtime runs.
"""

import json
import os

from cnictl.core import durable
from cnictl.core.errors import Problem
from cnictl.core.paths import STATE_DIR

RECORD = f"{STATE_DIR}/folders.json"


def make(path: str, mode: int = 0o755) -> None:
    """Make `path` and the missing folders above it, and record those that were made."""
    missing = []
    while not os.path.isdir(path):
        if os.path.islink(path):
            raise Problem(
                f"{path} is a link to {os.readlink(path)}, which is not a folder",
                f"make that folder, or remove the link: rm {path}",
            )
        if os.path.lexists(path):
            raise Problem(f"{path} exists and is not a folder", f"move it out of the way: mv {path} {path}.old")
        missing.append(path)
        path = os.path.dirname(path)
    if not missing:
        return
    _remember([*_remembered(), *missing])  # before mkdir, so that a killed process leaves nothing unrecorded
    for folder in reversed(missing):
        try:
            os.mkdir(folder, mode)
        except OSError:
            if os.path.isdir(folder):  # another process made it meanwhile
                _remember([other for other in _remembered() if other != folder])
                continue
            unmake(missing[0])
            raise


def unmake(path: str) -> None:
    """Remove `path` and the folders above it that `make` made, if they are empty."""
    remembered = _remembered()
    while path in remembered:
        try:
            os.rmdir(path)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError:
            return  # others use the folder now
        remembered.remove(path)
        _remember(remembered)
        path = os.path.dirname(path)


def remembered() -> list[str]:
    """Return every folder that `make` made and `unmake` has not removed, deepest first."""
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
        return  # it also holds attachment records or the journal
