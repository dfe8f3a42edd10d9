"""Make the hint for a file or folder that users other than root can change."""

import os
import shlex
import stat

from cnictl.node import hint
from cnictl.node.hint import Hint
from cnictl.node.plugin import ownership


def to_root(path: str, why: str = "") -> Hint:
    """Return the command after which only root can change the file that `path` leads to.

    A folder that is open to everyone by design, such as /tmp, stays open; then the hint is to move the file.
    """
    culprits = ownership.culprits(path)
    if not culprits or any(os.lstat(culprit).st_mode & stat.S_ISVTX for culprit in culprits):
        return hint.advice(
            "move it into a folder that only root can change",
            because="a folder such as /tmp has to stay open to everyone",
        )
    lines = []
    for culprit in culprits:
        lines.append(f"chown -h root:root {shlex.quote(culprit)}")
        if not os.path.islink(culprit):
            lines.append(f"chmod go-w {shlex.quote(culprit)}")
        if ownership.has_acl(culprit):
            lines.append(f"setfacl -b {shlex.quote(culprit)}")
    return hint.command("; ".join(lines), why)
