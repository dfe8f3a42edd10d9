"""Install the plugin: versions side by side in a library folder, and a launcher in each runtime's bin folder."""

import json
import os
import shlex
from dataclasses import dataclass

from cnictl.core import durable
from cnictl.core.errors import Problem
from cnictl.core.paths import LIB_DIR
from cnictl.node.host import runtimes
from cnictl.node.plugin import files, interpreters, ownership, plugin_version, selftest, version_folder
from cnictl.node.plugin.plugin_version import PLUGIN, PluginVersion
from cnictl.node.state import folders

RECORD = "installed.json"

_MARK = "# cnictl-bridge: starts the CNI plugin."
_LIBRARY_LINE = "library="


@dataclass(frozen=True)
class Installed:
    """The installed parts of the plugin."""

    lib_dir: str
    """The library folder, `/usr/local/lib/cnictl` unless the operator chose another."""
    current: str
    """The name of the version that the launchers start; empty if there is no launcher."""
    versions: tuple[str, ...]
    """The names of all installed versions, oldest first."""
    bin_dirs: tuple[str, ...]
    """The folders with an intact launcher of the current version."""
    other_bin_dirs: tuple[str, ...]
    """The folders that once had a launcher, or have one of another version."""


def installed(bin_dirs: tuple[str, ...], lib_dir: str = "") -> Installed:
    """Look for the plugin in `bin_dirs` and in the folders that an earlier installation recorded."""
    libraries = (started_library(f"{folder}/{PLUGIN}") for folder in bin_dirs)
    lib_dir = lib_dir or os.path.dirname(next(filter(None, libraries), "")) or LIB_DIR
    noted = _noted_bin_dirs(lib_dir)
    places = tuple(dict.fromkeys([*noted, *bin_dirs]))
    started = {folder: started_library(f"{folder}/{PLUGIN}") for folder in places}
    current = next((started_version for started_version in started.values() if started_version), "")
    own_copy = _read(f"{current}/{PLUGIN}") if current else None
    whole = tuple(folder for folder in places if own_copy is not None and _read(f"{folder}/{PLUGIN}") == own_copy)
    others = tuple(folder for folder in places if folder not in whole and (folder in noted or started[folder]))
    return Installed(
        os.path.dirname(current) or lib_dir,
        os.path.basename(current),
        tuple(plugin_version.versions(os.path.dirname(current) or lib_dir)),
        whole,
        others,
    )


def install(lib_dir: str, bin_dirs: tuple[str, ...], name: str, interpreter: str) -> None:
    """Install this cnictl's plugin in `lib_dir` as version `name`, test it, and have the launchers start it.

    The previous version stays installed. `interpreter` is a path, or empty for the best choice. Raises Problem, with
    the launchers unchanged, if anyone but root could change the code that will run, if another program's file has a
    launcher's name, or if the self-test fails.
    """
    chosen = interpreters.inspect(interpreter) if interpreter else interpreters.choose()
    for folder in (lib_dir, *bin_dirs):
        if not runtimes.writable(folder):
            raise Problem(f"{folder} can't be written to", "name another folder with --lib-dir or --bin-dir")
        _require_trusted(folder)
    for path in (f"{folder}/{PLUGIN}" for folder in bin_dirs):
        if is_foreign(path):
            raise Problem(f"{path} exists and is not cnictl's", "move it away, or name another folder with --bin-dir")
    code = plugin_version.sources()
    version = plugin_version.examine(f"{lib_dir}/{name}")
    fresh = not os.path.lexists(version.folder)
    try:
        if version.digest != plugin_version.digest_of(code) or version.interpreter != chosen.path:
            folders.make(lib_dir)
            version = plugin_version.build(lib_dir, name, code, chosen)
            if version.fault:
                raise Problem(version.fault)
        selftest.check(version.launcher)
    except BaseException:  # an interruption as well
        if fresh:
            version_folder.remove(lib_dir, name)
            folders.unmake(lib_dir)
        raise
    _place(version, bin_dirs)


def use(lib_dir: str, name: str, bin_dirs: tuple[str, ...]) -> None:
    """Have the launchers in `bin_dirs` start an installed version. Raises Problem if it is damaged."""
    version = plugin_version.examine(f"{lib_dir}/{name}")
    if version.fault:
        raise Problem(version.fault, "run: cnictl plugin install")
    for folder in (version.folder, *bin_dirs):
        _require_trusted(folder)
    if os.path.lexists(version.interpreter):  # without it, the launcher uses the system's
        interpreters.inspect(version.interpreter)
    selftest.check(version.launcher)
    _place(version, bin_dirs)


def remove_launchers(bin_dirs: tuple[str, ...]) -> None:
    """Remove our launchers from `bin_dirs`; another program's file of that name stays."""
    for folder in bin_dirs:
        path = f"{folder}/{PLUGIN}"
        if started_library(path):
            files.remove(path)
        folders.unmake(folder)


def remove_all(lib_dir: str, launchers: tuple[str, ...], bin_dirs: tuple[str, ...]) -> None:
    """Remove the plugin: its versions, and its launchers in both kinds of folders.

    Those in `bin_dirs` are removed last, because `installed` finds the rest by them if this is cut off.
    """
    remove_launchers(tuple(folder for folder in launchers if folder not in bin_dirs))
    for name in plugin_version.versions(lib_dir):
        version_folder.remove(lib_dir, name)
    if os.path.lexists(f"{lib_dir}/{RECORD}"):
        os.unlink(f"{lib_dir}/{RECORD}")
    folders.unmake(lib_dir)
    remove_launchers(bin_dirs)


def nearest(folder: str) -> str:
    """Return `folder`, or the first one above it that exists."""
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    return folder


def started_library(launcher: str) -> str:
    """Return the version folder that a launcher starts; empty if there is none or it isn't ours."""
    content = _read(launcher)
    if content is None or _MARK.encode() not in content:
        return ""
    for line in content.decode("utf-8", "surrogateescape").splitlines():
        if line.startswith(_LIBRARY_LINE):
            return "".join(shlex.split(line.removeprefix(_LIBRARY_LINE)))
    return ""


def is_foreign(launcher: str) -> bool:
    """Return whether a launcher's name belongs to something that cnictl didn't write."""
    return os.path.lexists(launcher) and not started_library(launcher)


def _place(version: PluginVersion, bin_dirs: tuple[str, ...]) -> None:
    """Record the bin folders, then put the launcher into each by one rename."""
    text = durable.contents(version.launcher)
    lib_dir = os.path.dirname(version.folder)
    noted = json.dumps({"bin_dirs": sorted({*_noted_bin_dirs(lib_dir), *bin_dirs})}).encode() + b"\n"
    if _read(f"{lib_dir}/{RECORD}") != noted:
        durable.replace(f"{lib_dir}/{RECORD}", noted, 0o644)
    for folder in bin_dirs:
        folders.make(folder)
        path = f"{folder}/{PLUGIN}"
        if _read(path) != text:
            if os.path.islink(path):
                _require_trusted(os.path.dirname(files.resolve(path)))
            files.write(path, text, 0o755, keep=False)


def _require_trusted(folder: str) -> None:
    """Raise Problem if anyone but root could put something else into `folder`, which may not exist yet."""
    reason = ownership.fault(nearest(folder))
    if reason:
        raise Problem(
            f"{reason}: code of users who can write there would run as root when the next pod starts",
            "let only root write there (chown root:root, chmod go-w, setfacl -b), or use --lib-dir and --bin-dir",
        )


def _noted_bin_dirs(lib_dir: str) -> tuple[str, ...]:
    content = _read(f"{lib_dir}/{RECORD}")
    if content is None:
        return ()
    try:
        return tuple(str(folder) for folder in json.loads(content)["bin_dirs"])
    except (ValueError, KeyError, TypeError):
        return ()


def _read(path: str) -> bytes | None:
    try:
        return durable.contents(path)
    except OSError:
        return None
