"""Return the command line of this process in a form that can be pasted into a shell."""

import shlex
import sys


def as_root() -> str:
    """Return the whole command line again, with `sudo`. Nothing in cnictl's arguments is secret."""
    return shlex.join(["sudo", "cnictl", *sys.argv[1:]])
