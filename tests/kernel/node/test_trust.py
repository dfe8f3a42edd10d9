"""The trust check finds who could change files that root runs, by owner, mode, links or ACL."""

import os
import struct
import subprocess
import sys

import pytest

from cnictl.node.plugin import ownership

ACL = "system.posix_acl_access"


def acl(*entries: tuple[int, int, int]) -> bytes:
    """Return an ACL of root's that also has `entries`: tag, permissions and id of each (linux/posix_acl_xattr.h)."""
    none = 0xFFFFFFFF
    whole = sorted([(0x01, 7, none), (0x04, 5, none), (0x20, 5, none), *entries])
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in whole)


USER_WRITES = acl((0x02, 7, 1000), (0x10, 7, 0xFFFFFFFF))
USER_MASKED = acl((0x02, 7, 1000), (0x10, 5, 0xFFFFFFFF))
USER_READS = acl((0x02, 5, 1000), (0x10, 7, 0xFFFFFFFF))
GROUP_WRITES = acl((0x08, 6, 4), (0x10, 7, 0xFFFFFFFF))
ROOT_WRITES = acl((0x02, 7, 0), (0x08, 7, 0), (0x10, 7, 0xFFFFFFFF))


@pytest.mark.parametrize(
    ("value", "writers"),
    [
        (USER_WRITES, ["user 1000"]),
        (USER_MASKED, []),
        (USER_READS, []),
        (GROUP_WRITES, ["group 4"]),
        (ROOT_WRITES, []),
        (b"\2\0\0\0", []),
    ],
)
def test_acl_names_who_can_write(value: bytes, writers: list[str]) -> None:
    assert ownership.acl_writers(value, owning_group=0) == writers


def test_owning_group_counts_unless_it_is_roots() -> None:
    value = struct.pack("<I", 2) + struct.pack("<HHI", 0x04, 7, 0) + struct.pack("<HHI", 0x10, 7, 0)
    assert ownership.acl_writers(value, owning_group=50) == ["group 50"]
    assert ownership.acl_writers(value, owning_group=0) == []


PROGRAM = """
import os, sys
sys.path.insert(0, sys.argv[1])
from cnictl.node.plugin import ownership
os.makedirs("/mnt/a/bin", 0o755)
open("/mnt/a/bin/program", "w").close()
os.symlink("/mnt/a", "/mnt/link")
assert ownership.fault("/mnt/link/bin/program") == "", ownership.fault("/mnt/link/bin/program")
os.setxattr(sys.argv[2], "system.posix_acl_access", bytes.fromhex(sys.argv[3]))
print(ownership.fault("/mnt/link/bin/program"))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can set an ACL on root's file")
@pytest.mark.parametrize("place", ["/mnt/a", "/mnt/a/bin", "/mnt/a/bin/program"])
@pytest.mark.parametrize(
    ("value", "who"), [(USER_WRITES, "user 1000"), (GROUP_WRITES, "group 4"), (USER_READS, ""), (USER_MASKED, "")]
)
def test_file_or_folder_that_an_acl_opens_to_others_is_not_trusted(place: str, value: bytes, who: str) -> None:
    source = os.path.dirname(os.path.dirname(os.path.dirname(ownership.__file__)))
    done = subprocess.run(
        ["unshare", "-m", "sh", "-ec", 'mount -t tmpfs -o mode=755 none /mnt; exec "$0" "$@"',
         sys.executable, "-c", PROGRAM, source, place, value.hex()],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (f"{place} is writable by {who} through its ACL (getfacl {place})" if who else "")
