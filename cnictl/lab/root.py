"""Build a machine's root file system: the host's programs, read-only, and new files for everything else.

There are two steps, so that the machines can't undo the first. `stage` makes the read-only views outside the machines'
user namespace. The kernel then locks the mounts' flags for that namespace, so its root can't remount them writable.
`build` runs inside that namespace, once per machine.
"""

import os
import stat
from dataclasses import dataclass

from cnictl.lab.plan import Machine
from cnictl.lab.syscalls import (
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    bind,
    leave_for,
    make_read_only,
    mount,
    pivot_root,
)

HOST = "/host"
"""Where the host's root is mounted after `stage`."""
_VIEWS = "/views"
_NEW = "/new"

_SYSTEM_FOLDERS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_ETC = (
    "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "nsswitch.conf", "protocols", "services", "ethertypes", "iproute2",
    "localtime", "os-release", "debian_version", "gai.conf", "bash.bashrc", "inputrc",
)  # fmt: skip
_WRITABLE = ("/usr/local/lib", "/usr/local/bin", "/usr/lib/cni")
_NOT_SHOWN = {"cnictl", "cnictl-bridge", "cnictl-cli", "cnictl.before-bundle"}
"""Files that cnictl installed on the host; a node starts without them."""
_FOLDERS = (
    "etc/cni/net.d", "opt/cni/bin", "var/log", "var/lib/cni", "var/cache", "var/spool", "run/lock", "root", "home",
    "srv", "mnt", "proc", "sys", "dev",
)  # fmt: skip
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_SECOND_SYS = "run/cnictl-lab/sys"


@dataclass(frozen=True)
class Program:
    """How to start cnictl inside: its interpreter, and the folder that contains the package."""

    interpreter: str
    source: str
    folders: tuple[str, ...]
    """Every folder outside /usr that they need, none inside another."""


def stage(program: Program) -> None:
    """Move into a new root with the host's root at HOST and read-only views of what machines may see of it.

    The caller must be root of its own mount namespace. Raises OSError.
    """
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    for folder in (HOST, _VIEWS, _NEW):
        os.mkdir("/tmp" + folder)
    os.chdir("/tmp")
    pivot_root(".", HOST[1:])
    os.chdir("/")
    shown = ["/usr", *program.folders]
    shown += [f"/{name}" for name in _SYSTEM_FOLDERS if stat.S_ISDIR(_mode(f"{HOST}/{name}"))]
    if os.path.isdir(f"{HOST}/etc/alternatives"):
        shown.append("/etc/alternatives")
    for path in shown:
        os.makedirs(_VIEWS + path, exist_ok=True)
        bind(HOST + path, _VIEWS + path)
        make_read_only(_VIEWS + path)


def readable(path: str) -> bool:
    """Return whether the present user can read what machines will see at `path`."""
    return os.access(_VIEWS + path, os.R_OK)


def build(machine: Machine, everyone: list[Machine], program: Program) -> None:
    """Make `machine`'s root and enter it. The caller must be process 1 of its pid namespace. Raises OSError."""
    mount("tmpfs", _NEW, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    for folder in _FOLDERS:
        os.makedirs(f"{_NEW}/{folder}")
    for folder in ("tmp", "var/tmp"):
        os.mkdir(f"{_NEW}/{folder}")
        os.chmod(f"{_NEW}/{folder}", 0o1777)
    os.symlink("/run", f"{_NEW}/var/run")
    os.chmod(f"{_NEW}/root", 0o700)
    _show_programs(program)
    _write_etc(machine, everyone)
    _show_devices()
    mount("proc", f"{_NEW}/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    # `ip netns exec` replaces /sys; the kernel allows that only if another complete sysfs is mounted
    os.makedirs(f"{_NEW}/{_SECOND_SYS}")
    for folder in ("sys", _SECOND_SYS):
        mount("sysfs", f"{_NEW}/{folder}", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    leave_for(_NEW)


def leave_host() -> None:
    """Release the host's file systems: the holder needs none, and would stop the host from unmounting them."""
    mount("tmpfs", _NEW, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    leave_for(_NEW)


def _show_programs(program: Program) -> None:
    for name in _SYSTEM_FOLDERS:
        mode = _mode(f"{HOST}/{name}")
        if stat.S_ISLNK(mode):
            os.symlink(os.readlink(f"{HOST}/{name}"), f"{_NEW}/{name}")
        elif stat.S_ISDIR(mode):
            _show(f"/{name}")
    _show("/usr")
    for folder in _WRITABLE:
        if os.path.isdir(_VIEWS + folder):
            _make_writable(folder)
    for folder in program.folders:
        _show(folder)
    launcher = (
        "#!/bin/sh\n"
        "# the cnictl that started the lab\n"
        f'exec {_quoted(program.interpreter)} -I -c "import sys; sys.path.insert(0, sys.argv.pop(1)); '
        "sys.argv[0] = 'cnictl'; from cnictl.cli.entry import main; main()\" "
        f'{_quoted(program.source)} "$@"\n'
    )
    _write("/usr/local/bin/cnictl", launcher, 0o755)


def _show(path: str) -> None:
    os.makedirs(_NEW + path, exist_ok=True)
    bind(_VIEWS + path, _NEW + path)


def _make_writable(folder: str) -> None:
    """Replace a read-only folder by a writable one with the same entries."""
    mount("tmpfs", _NEW + folder, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    for name in os.listdir(_VIEWS + folder):
        if name in _NOT_SHOWN:
            continue
        source, target = f"{_VIEWS}{folder}/{name}", f"{_NEW}{folder}/{name}"
        mode = _mode(source)
        if stat.S_ISLNK(mode):
            os.symlink(os.readlink(source), target)
            continue
        if stat.S_ISDIR(mode):
            os.mkdir(target)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
        bind(source, target)


def _write_etc(machine: Machine, everyone: list[Machine]) -> None:
    for name in _ETC:
        _copy(f"{HOST}/etc/{name}", f"{_NEW}/etc/{name}")
    if os.path.isdir(f"{_VIEWS}/etc/alternatives"):
        _show("/etc/alternatives")
    addresses = [(other.name, address) for other in everyone for address in (other.address, other.address6) if address]
    hosts = "".join(f"{address} {name}\n" for name, address in addresses)
    _write("/etc/hosts", f"127.0.0.1 localhost\n::1 localhost\n{hosts}")
    _write("/etc/hostname", f"{machine.name}\n")
    _write("/etc/resolv.conf", "# the lab has no name server\n")
    _write("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n")
    _write("/etc/group", "root:x:0:\nadm:x:4:\nnogroup:x:65534:\n")
    _write("/etc/fstab", "")


def _show_devices() -> None:
    for name in _DEVICES:
        _write(f"/dev/{name}", "")
        bind(f"{HOST}/dev/{name}", f"{_NEW}/dev/{name}")
    for name, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(f"/proc/self/{target}", f"{_NEW}/dev/{name}")
    for folder in ("pts", "shm"):
        os.mkdir(f"{_NEW}/dev/{folder}")
    mount("devpts", f"{_NEW}/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620")
    os.symlink("pts/ptmx", f"{_NEW}/dev/ptmx")
    mount("tmpfs", f"{_NEW}/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")


def _copy(source: str, target: str) -> None:
    """Copy a file, a symbolic link or a folder, if the host has it and the lab's user can read it."""
    mode = _mode(source)
    if stat.S_ISLNK(mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISDIR(mode):
        os.mkdir(target)
        for name in os.listdir(source):
            _copy(f"{source}/{name}", f"{target}/{name}")
    elif stat.S_ISREG(mode) and os.access(source, os.R_OK):
        with open(source, "rb") as original, open(target, "wb") as copy:
            copy.write(original.read())


def _write(path: str, text: str, mode: int = 0o644) -> None:
    with open(_NEW + path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(_NEW + path, mode)


def _mode(path: str) -> int:
    """Return the type and mode of the file at `path`, without following links; 0 if there is none."""
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return 0


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
