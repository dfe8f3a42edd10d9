"""Find the programs that cnictl starts by name: where PATH says, then in the folders that root's programs are in.

cron, units and runtimes start their programs with a PATH that lacks the sbin folders, or with none at all. The current
folder is never searched, whatever PATH says: it may be anybody's.
"""

from posix import X_OK, access, environ, stat

FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
"""Searched after those of PATH."""

_TYPE, _REGULAR = 0o170000, 0o100000  # S_IFMT, S_IFREG


def folders() -> "list[str]":
    """Return the folders that are searched, in their order, each once."""
    path = environ.get(b"PATH", b"").decode("utf-8", "surrogateescape")
    named = [folder for folder in path.split(":") if folder.startswith("/")]
    return list(dict.fromkeys([*named, *FOLDERS]))


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
