"""Where attachment records stand on a node that can't write to /var/lib/cnictl: loaded only there.

Rootless podman runs plugins in a user and mount namespace where /run and /var/lib/cni alone are its own. Records then
stand under /var/lib/cni, outside the networks' folders, for host-local would trip over them there.
"""

from posix import F_OK, R_OK, W_OK, X_OK, access

from cnictl.core import durable
from cnictl.core.paths import ATTACHMENTS_DIR, SPARE_ATTACHMENTS_DIR

_WHOLE = (b"0", b"0", b"4294967295")
"""user_namespaces(7): what the first user namespace's uid_map says."""


def places() -> tuple[str, ...]:
    """Return the folders that may hold records, the one for new records first.

    Where the usual folder can be written to by now, records that stand in the other one still count. Where it can't,
    those in it are read as long as they are this node's: in a user namespace they are the host's.
    """
    spare_is_there = access(SPARE_ATTACHMENTS_DIR, F_OK)
    if can_be_written(ATTACHMENTS_DIR) or not can_be_written(SPARE_ATTACHMENTS_DIR):
        return (ATTACHMENTS_DIR, SPARE_ATTACHMENTS_DIR) if spare_is_there else (ATTACHMENTS_DIR,)
    if _in_user_namespace() or not access(ATTACHMENTS_DIR, R_OK | X_OK):
        return (SPARE_ATTACHMENTS_DIR,)
    return (SPARE_ATTACHMENTS_DIR, ATTACHMENTS_DIR)


def can_be_written(folder: str) -> bool:
    """Whether files can be made in a folder, or it can be made itself."""
    while folder and not access(folder, F_OK):
        folder = folder.rpartition("/")[0]
    return access(folder or "/", W_OK | X_OK)


def _in_user_namespace() -> bool:
    try:
        return tuple(durable.contents("/proc/self/uid_map").split()) != _WHOLE
    except OSError:
        return False  # a kernel without user namespaces
