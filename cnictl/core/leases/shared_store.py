"""Find out whether other nodes may lease from the same store, so that a lease without a record may be theirs.

Loaded only when such a lease is judged or freed.
"""

from posix import O_CLOEXEC, O_PATH, close
from posix import open as open_descriptor

from cnictl.core import durable
from cnictl.core.paths import NETWORKS_DIR

LOCAL_TYPES = frozenset(
    (
        *("aufs", "bcachefs", "btrfs", "devtmpfs", "ecryptfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs"),
        *("fuse.fuse-overlayfs", "fuse.ntfs-3g", "fuseblk", "hfsplus", "jffs2", "jfs", "minix", "nilfs2", "ntfs"),
        *("ntfs3", "overlay", "ramfs", "reiserfs", "rootfs", "squashfs", "tmpfs", "ubifs", "udf", "vfat", "xfs", "zfs"),
    )
)
"""File systems that only one node uses, by type in /proc/self/mountinfo. Any other may be shared, FUSE above all:
NFS, CIFS, 9p, virtiofs, Ceph, Gluster, Lustre, AFS, and GFS2 and OCFS2, whose disk several nodes have."""


def may_be_shared(data_dir: str) -> bool:
    """Return whether other nodes may lease from the stores in `data_dir` (empty: the default).

    They may if the operator chose the dataDir, or if the file system is not known to be local.
    """
    return (data_dir or NETWORKS_DIR) != NETWORKS_DIR or file_system(NETWORKS_DIR) not in LOCAL_TYPES


def file_system(folder: str) -> str:
    """Return the type of the file system that a folder is, or will be, on; empty if it can't be found out."""
    while True:
        try:
            descriptor = open_descriptor(folder or "/", O_PATH | O_CLOEXEC)
            break
        except (FileNotFoundError, NotADirectoryError):
            folder = folder.rpartition("/")[0]
        except OSError:
            return ""
    try:
        words = durable.contents(f"/proc/self/fdinfo/{descriptor}").split()
        mount = words[words.index(b"mnt_id:") + 1]
        return _type_of(mount)
    except (OSError, ValueError, LookupError):
        return ""
    finally:
        close(descriptor)


def _type_of(mount: bytes) -> str:
    """Return a mount's type by its id (proc(5): the word after ` - `). Raises LookupError."""
    for line in durable.contents("/proc/self/mountinfo").splitlines():
        if line.startswith(mount + b" "):
            return line.partition(b" - ")[2].split()[0].decode("utf-8", "replace")
    raise LookupError(mount)
