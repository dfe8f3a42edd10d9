"""Refuse to run without root's rights."""

import os

from cnictl.core.errors import Problem
from cnictl.node import command_line


def require_root(command: str, why: str) -> None:
    """Raise Problem unless this process is root (in its user namespace)."""
    if os.geteuid() != 0:
        raise Problem(f"cnictl {command} needs root: it {why}", command_line.as_root())
