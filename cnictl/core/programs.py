"""Find programs by name in the folders of PATH, and in the usual folders of root's programs.

cron, systemd and runtimes start programs with a PATH that lacks the sbin folders, or without one. The current folder is
never searched, even if PATH names it: it may belong to anybody. A PATH without any usual folder was chosen to restrict
what can be run, so no folder is added to it.
"""

import sys
from posix import X_OK, access, environ, stat

FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
"""The usual folders: searched after those of PATH."""

_TYPE, _REGULAR = 0o170000, 0o100000  # S_IFMT, S_IFREG


def folders() -> "list[str]":
    """Return the folders to search, in order, each once."""
    named = [folder for folder in _path().split(":") if folder.startswith("/")]
    usual = FOLDERS if not named or any(folder.rstrip("/") in FOLDERS for folder in named) else ()
    return list(dict.fromkeys([*named, *usual]))


def _path() -> str:
    os = sys.modules.get("os")  # the plugin doesn't load it; if it is loaded, its PATH is the one in effect
    if os is not None:
        return str(os.environ.get("PATH", ""))
    return environ.get(b"PATH", b"").decode("utf-8", "surrogateescape")


def path() -> str:
    """Return the PATH for started programs, so that they find other programs too."""
    return ":".join(folders())


def find(name: str) -> str:
    """Return the path of a program, given by its name or path; empty if it is not installed."""
    places = [name] if "/" in name else [f"{folder}/{name}" for folder in folders()]
    return next((place for place in places if _is_program(place)), "")


def _is_program(place: str) -> bool:
    try:
        return stat(place).st_mode & _TYPE == _REGULAR and access(place, X_OK)
    except (OSError, ValueError):
        return False
