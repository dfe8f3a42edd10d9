"""Find out what on this host belongs to the Debian package cnictl."""

import os

import cnictl

_MODULES = "/usr/lib/cnictl/site"
_LIST = "/var/lib/dpkg/info/cnictl.list"
"""dpkg's list of the package's files, one on each line; after a removal, of its configuration files."""


def owns(path: str) -> bool:
    """Return whether a file belongs to the package. If so, dpkg installs and removes it, not cnictl."""
    try:
        with open(_LIST, encoding="utf-8", errors="surrogateescape") as file:
            return any(line.rstrip("\n") == path for line in file)
    except OSError:
        return False


def runs() -> bool:
    """Return whether the running cnictl is the package's."""
    return os.path.dirname(os.path.dirname(os.path.abspath(cnictl.__file__))) == _MODULES
