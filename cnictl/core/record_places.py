"""Where attachment records stand on a node that can't write to /var/lib/cnictl: loaded only there.

Rootless podman runs plugins in a user and mount namespace where /run and /var/lib/cni alone are its own. Records then
stand under /var/lib/cni, outside the networks' folders, for host-local would trip over them there.
"""

from posix import F_OK, R_OK, W_OK, X_OK, access

from cnictl.core import durable

_WHOLE = (b"0", b"0", b"4294967295")
"""user_namespaces(7): what the first user namespace's uid_map says."""


def places(usual: str, spare: str) -> tuple[str, ...]:
    """Return which of the two folders may hold records, the one for new records first.

    Where the usual folder can be written to by now, records that stand in the other one still count. Where it can't,
    those in it are read as long as they are this node's: in a user namespace they are the host's.
    """
    spare_is_there = access(spare, F_OK)
    if can_be_written(usual) or not can_be_written(spare):
        return (usual, spare) if spare_is_there else (usual,)
    if _in_user_namespace() or not access(usual, R_OK | X_OK):
        return (spare,)
    return (spare, usual)


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
