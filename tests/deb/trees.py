"""Prepare the tests of the packages: make a bare Debian, and build the packages of this version and of a later one.

python -m tests.deb.trees FOLDER

Run it as root. It fills the folder from Debian's mirror, with some 700 MB, and reuses everything in it except the
packages. The Debian that builds uses this machine's network for apt and pip; it sees no other part of the machine.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BASE = "base"
LATER = "later"
"""The folder of the later version's packages."""
PACKAGES = "dist"
LINTIAN = "lintian.txt"

_MIRROR = "http://deb.debian.org/debian"
_BARE = "python3,nftables,iproute2,iptables,iputils-ping,procps,logrotate,systemd,systemd-sysv,zsh"
_TOOLS = (
    "build-essential", "debhelper", "dh-python", "fakeroot", "git", "lintian", "make", "python3-pip",
    "python3-setuptools", "python3-wheel", "man-db", "bash-completion", "zsh",
)  # fmt: skip
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_ENTER = """
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount -t tmpfs -o mode=1777 tmpfs "$1/tmp"
mount -t devpts -o ptmxmode=666 devpts "$1/dev/pts"
ln -sfn pts/ptmx "$1/dev/ptmx"
for device in null zero full random urandom tty; do
    [ -e "$1/dev/$device" ] || : >"$1/dev/$device"
    mount --bind "/dev/$device" "$1/dev/$device"
done
touch "$1/tmp/certificates" "$1/etc/resolv.conf"
mount --bind "$2" "$1/tmp/certificates"
mount --bind /etc/resolv.conf "$1/etc/resolv.conf"
tree="$1"
shift 2
exec chroot "$tree" "$@"
"""


def inside(tree: Path, *command: str, quiet: bool = True) -> None:
    """Run a command in a tree, in its own mount and process namespaces. Raises CalledProcessError."""
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive", "PIP_ROOT_USER_ACTION": "ignore", "PIP_CERT": "/tmp/certificates",
    }  # fmt: skip
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    subprocess.run(
        [*unshare, "sh", "-ec", _ENTER, "sh", str(tree), _CERTIFICATES, *command],
        env=environment,
        stdout=subprocess.DEVNULL if quiet else None,
        check=True,
    )


def base(folder: Path) -> Path:
    """Return a tree with Debian 12 and the dependencies of cnictl's package."""
    tree = folder / BASE
    if not tree.exists():
        half = folder / "base.new"
        shutil.rmtree(half, ignore_errors=True)
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={_BARE}", "bookworm", str(half), _MIRROR],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        half.rename(tree)
    return tree


def tools(folder: Path) -> Path:
    """Return a tree with the tools that build and check the packages."""
    tree = folder / "tools"
    if not tree.exists():
        half = folder / "tools.new"
        shutil.rmtree(half, ignore_errors=True)
        subprocess.run(["cp", "-a", str(base(folder)), str(half)], check=True)
        inside(half, "apt-get", "update", "-qq")
        inside(half, "apt-get", "install", "-y", "-qq", "--no-install-recommends", *_TOOLS)
        half.rename(tree)
    return tree


def sources(place: Path) -> None:
    """Copy this checkout to `place`, without the files that git ignores."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    packed = subprocess.run(
        ["tar", "--null", "--ignore-failed-read", "-T", "-", "-cf", "-"],
        cwd=ROOT,
        input=listed.stdout,
        capture_output=True,
        check=True,
    )
    subprocess.run(["tar", "-C", str(place), "-xf", "-"], input=packed.stdout, check=True)


def build(folder: Path) -> None:
    """Build the packages of this checkout and of a later version, and write lintian's report on the former."""
    tree = tools(folder)
    for name in (PACKAGES, LATER):
        source = tree / "root/src"
        sources(source)
        if name == LATER:
            version = source / "cnictl/__init__.py"
            version.write_text(version.read_text(encoding="utf-8").replace('__version__ = "0.', '__version__ = "9.'))
        inside(tree, "env", "SOURCE_DATE_EPOCH=1700000000", "make", "-C", "/root/src", "deb")
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(source / "dist", folder / name)
    judged = "lintian --tag-display-limit 0 --show-overrides --allow-root --fail-on none /root/judged/*.deb"
    shutil.rmtree(tree / "root/judged", ignore_errors=True)
    shutil.copytree(folder / PACKAGES, tree / "root/judged")
    inside(tree, "sh", "-ec", f"{judged} > /root/judged/{LINTIAN}")
    shutil.copy(tree / "root/judged" / LINTIAN, folder / LINTIAN)


def main() -> None:
    """Make the bare Debian, and build and check the packages."""
    if os.geteuid() != 0:
        sys.exit("the packages' tests run as root: debootstrap and chroot need it")
    if shutil.which("debootstrap") is None:
        sys.exit("debootstrap is missing: apt-get install debootstrap")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    base(folder)
    build(folder)


if __name__ == "__main__":
    main()
