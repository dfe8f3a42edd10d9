"""Install cnictl from a bundle, or switch, list and remove installed versions. `install.sh` starts it.

It needs only the standard library. Versions are side by side in HOME, and each is complete before it gets its name.
COMMAND starts the version that the link `current` names. If COMMAND already exists, it is kept beside the new one.
"""

import argparse
import csv
import fcntl
import hashlib
import io
import os
import platform
import shlex
import shutil
import subprocess
import sys
import zipfile
from contextlib import contextmanager, suppress

HOME = "/usr/local/lib/cnictl-cli"
COMMAND = "/usr/local/bin/cnictl"
KEPT = f"{COMMAND}.before-bundle"
"""The command that was there before the first bundle."""
PACKAGED = "/usr/bin/cnictl"
"""The command of a Debian package."""
BEFORE = "before-bundle"
"""The name of KEPT among the versions."""
SUMS = "SHA256SUMS"
LOCK = "/run/cnictl-install.lock"

HERE = os.path.dirname(os.path.abspath(__file__))
_BUILDING = ".building"
_OVERFLOW_ID = 65534
"""The id that a user namespace shows for the host's root and every other user that it does not map."""
_LAUNCHER = """\
#!/bin/sh
# cnictl as its bundle installed it. `sh {home}/current/install.sh --help` shows how to switch or remove versions.
for python in {pythons}; do
    [ -x "$python" ] && exec "$python" -I -S -X utf8 {run} "$@"
done
echo "cnictl: no interpreter to run it with: {pythons} missing; install the bundle again" >&2
exit 1
"""
_RUN = """\
import sys
sys.path.insert(0, {site!r})
sys.argv[0] = "cnictl"
from cnictl.cli.entry import main
main()
"""
_SELF_TEST = """
import sys
sys.path.insert(0, sys.argv[1])
import cnictl.cli.entry, cnictl.cli.main, cnictl_conf, cnictl_plugin
from cnictl.cli import groups
groups.load_all()
from cnictl.node.plugin import plugin_version
plugin_version.sources()
"""
"""Imports everything, which also writes the bytecode that commands need."""


class InstallError(Exception):
    """A failure with a hint."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def main() -> int:
    """Do what the command line says; return the exit status."""
    arguments = _parser().parse_args()
    try:
        if arguments.what == "list":
            _list()
        elif arguments.dry_run:
            _preview(arguments)
        else:
            _require_root(arguments.what)
            os.umask(0o022)
            with _alone():
                _carry_out(arguments)
    except InstallError as error:
        print(f"install.sh: {error}", file=sys.stderr)
        if error.hint:
            print(f"  hint: {error.hint}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"install.sh: {error.filename or HOME}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="install.sh",
        description=f"Install this bundle's cnictl under {HOME}, and make {COMMAND} start it. "
        "The network, running pods and the CNI plugin do not change. Needs root, except for `list` and --dry-run.",
    )
    parser.add_argument("--dry-run", action="store_true", help="change nothing: show what would change")
    what = parser.add_subparsers(dest="what", metavar="list | use VERSION | uninstall [VERSION]")
    what.add_parser("list", help="show the installed versions")
    use = what.add_parser("use", help="make the command start another installed version")
    use.add_argument("version", help=f"a version that `list` shows; {BEFORE}: the command before the first bundle")
    uninstall = what.add_parser("uninstall", help="remove one version, or all; the plugin and the node file stay")
    uninstall.add_argument("version", nargs="?", default="")
    return parser


def _carry_out(arguments: argparse.Namespace) -> None:
    if arguments.what == "use":
        _use(arguments.version)
        _say(f"{COMMAND} now starts {arguments.version}")
    elif arguments.what == "uninstall":
        _uninstall(arguments.version)
    else:
        install()


def _preview(arguments: argparse.Namespace) -> None:
    if arguments.what == "uninstall":
        _say(f"would remove {f'{HOME}/{arguments.version}' if arguments.version else f'{HOME} and {COMMAND}'}")
        return
    if arguments.what == "use":
        _require_version(arguments.version)
        _say(f"would make {COMMAND} start {arguments.version}")
        return
    name = verify(HERE)
    _refuse_packaged()
    if name == current() and _is_ours():
        _say(f"cnictl {name} is installed: nothing to change")
        return
    if not os.path.isdir(f"{HOME}/{name}"):
        _say(f"would unpack {len(wheels(HERE))} wheels to {HOME}/{name}")
    if os.path.lexists(COMMAND) and not _is_ours():
        _say(f"would keep the existing {COMMAND} as {KEPT}")
    _say(f"would make {COMMAND} start {name}")


def install() -> None:
    """Install the bundle beside the version in use, and switch to it. A second call changes nothing."""
    name = verify(HERE)
    _refuse_packaged()
    _require_trusted()
    if name == current() and _is_ours():
        _say(f"cnictl {name} is installed: nothing to change")
        return
    if not os.path.isdir(f"{HOME}/{name}"):
        _build(name)
    _use(name)
    for other in versions():
        if other not in (name, _link("former")):
            shutil.rmtree(f"{HOME}/{other}")
    _say(f"cnictl {name} is installed, and {COMMAND} starts it")


def verify(bundle: str) -> str:
    """Check every file of the bundle, and that its wheels suit this Python. Return the version's name."""
    try:
        with open(f"{bundle}/{SUMS}", "rb") as file:
            sums = file.read()
    except OSError:
        raise InstallError(f"{bundle} is not an unpacked bundle: it has no {SUMS}") from None
    listed = dict(reversed(line.split("  ", 1)) for line in sums.decode().splitlines())
    there = {f"wheels/{name}" for name in os.listdir(f"{bundle}/wheels")}
    for path in sorted({*listed, *there}):
        if path not in listed or not os.path.isfile(f"{bundle}/{path}"):
            raise InstallError(f"{path} is {'missing' if path in listed else 'not a file of this bundle'}")
        with open(f"{bundle}/{path}", "rb") as file:
            if hashlib.sha256(file.read()).hexdigest() != listed[path]:
                raise InstallError(f"{path} does not match its SHA-256 in {SUMS}", "fetch the bundle again")
    unsuitable = [name for name in wheels(bundle) if not suits(name)]
    if unsuitable:
        here = f"Python {platform.python_version()} on {platform.machine()}"
        raise InstallError(f"{unsuitable[0]} is not for {here}", "make the bundle on a machine like this one")
    own = next((name for name in wheels(bundle) if name.startswith("cnictl-")), "")
    if not own:
        raise InstallError("the bundle has no wheel of cnictl")
    return f"{own.split('-')[1]}+{hashlib.sha256(sums).hexdigest()[:8]}"


def wheels(bundle: str) -> list[str]:
    """Return the names of the bundle's wheels."""
    return sorted(name for name in os.listdir(f"{bundle}/wheels") if name.endswith(".whl"))


def suits(wheel: str) -> bool:
    """Return whether a wheel is for this Python and machine, by its name (PEP 425)."""
    pythons, abi, place = wheel.removesuffix(".whl").split("-")[-3:]
    if (abi, place) == ("none", "any"):
        return True
    minor = sys.version_info[1]
    known = {f"cp3{minor}"} if abi != "abi3" else {f"cp3{number}" for number in range(minor + 1)}
    return bool(known & set(pythons.split("."))) and "linux" in place and place.endswith(platform.machine())


def _build(name: str) -> None:
    """Unpack the wheels as the version `name`, and test that it starts."""
    new, final = f"{HOME}/{_BUILDING}", f"{HOME}/{name}"
    shutil.rmtree(new, ignore_errors=True)
    os.makedirs(f"{new}/site")
    try:
        for wheel in wheels(HERE):
            _unpack(f"{HERE}/wheels/{wheel}", f"{new}/site")
        python = os.path.realpath(sys.executable)
        pythons = " ".join(map(shlex.quote, dict.fromkeys([python, "/usr/bin/python3"])))
        launcher = _LAUNCHER.format(home=HOME, pythons=pythons, run=shlex.quote(f"{final}/run.py"))
        _write(f"{new}/cnictl", launcher, 0o755)
        _write(f"{new}/run.py", _RUN.format(site=f"{final}/site"), 0o644)
        for file in ("install.sh", "install.py"):
            shutil.copyfile(f"{HERE}/{file}", f"{new}/{file}")
        command = [python, "-I", "-S", "-c", _SELF_TEST, f"{new}/site"]
        tested = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if tested.returncode:
            last = (tested.stderr.strip().splitlines() or ["no message"])[-1]
            raise InstallError(f"the new version does not start, and is not installed: {last}")
        os.rename(new, final)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def _unpack(wheel: str, site: str) -> None:
    """Unpack a wheel's modules and metadata. Each file must be listed in the wheel's RECORD."""
    with zipfile.ZipFile(wheel) as archive:
        record = next(name for name in archive.namelist() if name.endswith(".dist-info/RECORD"))
        rows = csv.reader(io.TextIOWrapper(archive.open(record), "utf-8", newline=""))
        listed = {row[0] for row in rows if row}
        for entry in archive.infolist():
            parts = entry.filename.split("/")
            if entry.is_dir():
                continue
            if entry.filename not in listed or ".." in parts or entry.filename.startswith("/"):
                raise InstallError(f"{os.path.basename(wheel)}: {entry.filename} is not in its RECORD")
            if parts[0].endswith(".data"):
                if parts[1] not in ("purelib", "platlib"):
                    continue  # scripts, headers and data, which no module needs
                parts = parts[2:]
            target = "/".join([site, *parts])
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with archive.open(entry) as source, open(target, "wb") as file:
                shutil.copyfileobj(source, file)


def _use(name: str) -> None:
    """Make the command start this version."""
    _require_version(name)
    before = current()
    if name == BEFORE:
        os.replace(KEPT, COMMAND)
        os.unlink(f"{HOME}/current")
        return
    if name != before:
        if before:
            _point("former", before)
        _point("current", name)
    if not _is_ours():
        if os.path.lexists(COMMAND):
            with suppress(FileNotFoundError):
                os.unlink(KEPT)
            os.link(COMMAND, KEPT, follow_symlinks=False)
        os.makedirs(os.path.dirname(COMMAND), exist_ok=True)
        _replace_link(COMMAND, f"{HOME}/current/cnictl")


def _uninstall(name: str) -> None:
    if name:
        if name == current():
            raise InstallError(f"{name} is the version in use", "`use VERSION` switches to another first")
        if name not in versions():
            raise InstallError(f"there is no version {name}", f"installed: {', '.join(versions()) or 'none'}")
        shutil.rmtree(f"{HOME}/{name}")
        if _link("former") == name:
            os.unlink(f"{HOME}/former")
        _say(f"removed {HOME}/{name}")
        return
    kept = os.path.lexists(KEPT)
    if _is_ours():
        os.replace(KEPT, COMMAND) if kept else os.unlink(COMMAND)
    shutil.rmtree(HOME, ignore_errors=True)
    _say(f"removed {HOME}" + (f"; {COMMAND} is again the command from before" if kept else f" and {COMMAND}"))


def versions() -> list[str]:
    """Return the names of the installed versions."""
    with suppress(FileNotFoundError):
        names = [name for name in os.listdir(HOME) if os.path.isfile(f"{HOME}/{name}/run.py")]
        return sorted(name for name in names if not name.startswith(".") and not os.path.islink(f"{HOME}/{name}"))
    return []


def current() -> str:
    """Return the name of the version in use; empty if none is."""
    return _link("current")


def _list() -> None:
    for name in versions():
        _say(f"{name}{'  current' if name == current() else ''}{'  former' if name == _link('former') else ''}")
    if os.path.lexists(KEPT):
        _say(f"{BEFORE}  {KEPT}")
    if not versions():
        _say(f"there is no version in {HOME}")


def _require_version(name: str) -> None:
    if name not in versions() and not (name == BEFORE and os.path.lexists(KEPT)):
        raise InstallError(f"there is no version {name}", f"installed: {', '.join(versions()) or 'none'}")


def _require_root(what: str) -> None:
    if os.geteuid() != 0:
        words = " ".join(filter(None, [shlex.quote(f"{HERE}/install.sh"), *map(shlex.quote, sys.argv[1:])]))
        doing = what or "install"
        raise InstallError(f"{doing} needs root: it writes {HOME} and {COMMAND}", f"sudo sh {words}")


def _refuse_packaged() -> None:
    if os.path.lexists(PACKAGED) and os.path.realpath(PACKAGED) != os.path.realpath(COMMAND):
        raise InstallError(
            f"{PACKAGED} belongs to a package, and {COMMAND} would take precedence over it",
            "upgrade the package, or remove it first (apt remove cnictl: pods keep running)",
        )


def _require_trusted() -> None:
    """Refuse folders that users other than root can write, because root runs what is in them."""
    folder = HOME
    while True:
        if os.path.lexists(folder):
            fault = _writers(os.stat(folder))
            if fault:
                raise InstallError(f"{folder} {fault}", f"chown root:root {folder} && chmod go-w {folder}")
        if folder == "/":
            return
        folder = os.path.dirname(folder)


def _writers(status: os.stat_result) -> str:
    """Return who can write there besides root; empty if nobody can."""
    roots = {0} if _is_mapped(_OVERFLOW_ID) else {0, _OVERFLOW_ID}
    if status.st_uid not in roots:
        return f"belongs to user {status.st_uid}, not to root"
    if status.st_mode & 0o002:
        return "is writable by everyone"
    if status.st_mode & 0o020 and status.st_gid not in roots:
        return f"is writable by group {status.st_gid}"
    return ""


def _is_mapped(user: int) -> bool:
    """Return whether a process of this user namespace can be that user (user_namespaces(7))."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        ranges = [[int(number) for number in line.split()] for line in file]
    return any(first <= user < first + count for first, _, count in ranges)


def _is_ours() -> bool:
    return os.path.islink(COMMAND) and os.readlink(COMMAND) == f"{HOME}/current/cnictl"


def _link(name: str) -> str:
    with suppress(OSError):
        return os.readlink(f"{HOME}/{name}")
    return ""


def _point(name: str, version: str) -> None:
    _replace_link(f"{HOME}/{name}", version)


def _replace_link(path: str, target: str) -> None:
    """Make or replace a link in one step."""
    new = f"{path}.new"
    with suppress(FileNotFoundError):
        os.unlink(new)
    os.symlink(target, new)
    os.replace(new, path)


@contextmanager
def _alone():
    """Make a second install.sh wait until this one is done."""
    with open(LOCK, "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(path: str, text: str, mode: int) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, mode)


def _say(text: str) -> None:
    print(text)


if __name__ == "__main__":
    sys.exit(main())
