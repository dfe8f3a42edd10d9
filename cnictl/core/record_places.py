"""Choose the folder for attachment records if /var/lib/cnictl isn't writable.

Rootless podman runs plugins in a user and mount namespace that owns only /run and /var/lib/cni. The records are then
kept in /var/lib/cni/cnictl: in the networks' folders, host-local would take them for leases.
"""

from posix import F_OK, R_OK, W_OK, X_OK, access

from cnictl.core import durable

_WHOLE = (b"0", b"0", b"4294967295")
"""uid_map of the initial user namespace (user_namespaces(7))."""


def places(usual: str, spare: str) -> tuple[str, ...]:
    """Return the folders that may contain records, the one for new records first.

    If the usual folder has become writable, records in the spare one still count. If it isn't writable, its records are
    read unless this is a user namespace, where they belong to the host.
    """
    spare_is_there = access(spare, F_OK)
    if can_be_written(usual) or not can_be_written(spare):
        return (usual, spare) if spare_is_there else (usual,)
    if _in_user_namespace() or not access(usual, R_OK | X_OK):
        return (spare,)
    return (spare, usual)


def can_be_written(folder: str) -> bool:
    """Return whether files can be created in a folder, or the folder itself can be."""
    while folder and not access(folder, F_OK):
        folder = folder.rpartition("/")[0]
    return access(folder or "/", W_OK | X_OK)


def _in_user_namespace() -> bool:
    try:
        return tuple(durable.contents("/proc/self/uid_map").split()) != _WHOLE
    except OSError:
        return False  # a kernel without user namespaces
