"""Find the programs that cnictl starts by name: where PATH says, and in the other folders that root's programs are in.

cron, units and runtimes start their programs with a PATH that lacks the sbin folders, or with none at all. The current
folder is never searched, whatever PATH says: it may be anybody's. A PATH that names none of the usual folders is
somebody's choice of what may be run, and is taken as it is.
"""

import sys
from posix import X_OK, access, environ, stat

FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
"""The usual folders: searched after those of PATH."""

_TYPE, _REGULAR = 0o170000, 0o100000  # S_IFMT, S_IFREG


def folders() -> "list[str]":
    """Return the folders that are searched, in their order, each once."""
    named = [folder for folder in _path().split(":") if folder.startswith("/")]
    usual = FOLDERS if not named or any(folder.rstrip("/") in FOLDERS for folder in named) else ()
    return list(dict.fromkeys([*named, *usual]))


def _path() -> str:
    os = sys.modules.get("os")  # the plugin does without it; where it is loaded, its PATH is the one that is in effect
    if os is not None:
        return str(os.environ.get("PATH", ""))
    return environ.get(b"PATH", b"").decode("utf-8", "surrogateescape")


def path() -> str:
    """Return the PATH that programs are started with, so that they find theirs too."""
    return ":".join(folders())


def find(name: str) -> str:
    """Return the file that a program's name stands for; empty if it is not installed. A path stands for itself."""
    places = [name] if "/" in name else [f"{folder}/{name}" for folder in folders()]
    return next((place for place in places if _is_program(place)), "")


def _is_program(place: str) -> bool:
    try:
        return stat(place).st_mode & _TYPE == _REGULAR and access(place, X_OK)
    except (OSError, ValueError):
        return False
