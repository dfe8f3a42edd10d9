"""Find out what the Debian package cnictl has to do with this host."""

import os

import cnictl

_MODULES = "/usr/lib/cnictl/site"
_LIST = "/var/lib/dpkg/info/cnictl.list"
"""dpkg's list of the package's files, one a line; after a removal, of its configuration files."""


def owns(path: str) -> bool:
    """Return whether a file is the package's. dpkg installs and removes it then, not cnictl."""
    try:
        with open(_LIST, encoding="utf-8", errors="surrogateescape") as file:
            return any(line.rstrip("\n") == path for line in file)
    except OSError:
        return False


def runs() -> bool:
    """Return whether the running cnictl is the package's."""
    return os.path.dirname(os.path.dirname(os.path.abspath(cnictl.__file__))) == _MODULES
