"""Keep root's copy of cnictl, with all packages that it imports, for the units on this host.

The cnictl that an operator runs may be in the virtual environment of an ordinary user. A unit that started it would run
that user's code as root. The copy is in the plugin's library folder, belongs to root, and runs without `site`, so that
packages and `.pth` files of other folders are not read. `version_folder` keeps several versions side by side; the link
`current` names the one that the units start.
"""

import importlib.metadata
import os
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec

import cnictl
from cnictl.core import durable
from cnictl.core.errors import Problem
from cnictl.core.paths import LIB_DIR
from cnictl.core.process import run
from cnictl.node.plugin import install, interpreters, ownership, version_folder
from cnictl.node.plugin.interpreters import Interpreter
from cnictl.node.state import folders

HOME = f"{LIB_DIR}/cli"
CURRENT = f"{HOME}/current"
COMMAND = f"{CURRENT}/cnictl"
"""The program in the units' ExecStart."""

OWN = ("cnictl", "cnictl_plugin", "cnictl_conf")
NEEDED = ("typer", "rich", "pyroute2", "netaddr", "tomlkit", "prometheus-client")
"""Distributions that cnictl depends on (pyproject.toml)."""
_EXTRAS = ("lightkube",)
"""Optional dependencies, copied if they are installed: `cnictl watch` follows a source of peers with them."""

_IMPORTED_AS = {"markdown-it-py": "markdown_it"}
"""Names of packages that differ from their distributions' names."""

_LAUNCHER = """\
#!/bin/sh
# Starts root's copy of cnictl for systemd units. Written by cnictl; do not edit.
for python in @PYTHONS@; do
    [ -x "$python" ] && exec "$python" -I -S -B -X utf8 @RUN@ "$@"
done
echo "cnictl: no Python interpreter: @PYTHONS@ missing; run: cnictl plugin install" >&2
exit 1
"""
_RUN = """\
import sys
sys.path.insert(0, @SITE@)
sys.argv[0] = "cnictl"
from cnictl.cli.entry import main
main()
"""
_ROOTS = (0, ownership.OVERFLOW_ID)
_SELF_TEST = """
import os, sys
os.umask(0o022)  # only root may change the bytecode that this writes
sys.path.insert(0, sys.argv[1])
import netaddr, prometheus_client, pyroute2, rich.console, tomlkit, typer
import cnictl.cli.entry, cnictl.cli.main, cnictl.doctor.catalogue, cnictl.node.runs.confirm_guard
import cnictl.node.runs.history, cnictl.node.runs.reset, cnictl.node.preflight, cnictl.node.addresses.reclaim
import cnictl.views.status, cnictl.watch.keeper, cnictl_conf, cnictl_plugin
from cnictl.cli import groups
groups.load_all()
from cnictl.node.plugin import plugin_version
plugin_version.sources()
"""


@dataclass(frozen=True)
class Copy:
    """One version of the copy."""

    name: str
    release: str
    digest: str
    """The digest of its files; empty if one is missing, has another size, or users other than root can change it."""
    interpreter: str
    fault: str
    """What is wrong with it; empty if nothing."""


def examine(name: str) -> Copy:
    """Check that a version's files exist and only root can change them. Contents are not read, to save time."""
    folder = f"{HOME}/{name}"
    manifest = version_folder.manifest(folder)
    release, interpreter = str(manifest.get("release", "")), str(manifest.get("interpreter", ""))
    if not manifest:
        return Copy(name, release, "", interpreter, f"{folder}/{version_folder.MANIFEST} is missing or unreadable")
    fault = ownership.fault(f"{folder}/cnictl") or ownership.fault(f"{folder}/site/cnictl")
    fault = fault or _damage(folder, manifest["files"])
    return Copy(name, release, "" if fault else str(manifest["digest"]), interpreter, fault)


def _damage(folder: str, files: dict[str, int]) -> str:
    """Return in words which of these files or their folders has changed since the installation; empty if none has."""
    inner = {os.path.dirname(path) for path in files} - {""}
    for path in (*inner, *files):
        try:
            status = os.lstat(f"{folder}/{path}")
        except OSError as error:
            return f"{folder}/{path}: {error.strerror}"
        # with an ACL, the mode's group bits are its mask, so they show any writer
        if status.st_size != files.get(path, status.st_size) or status.st_mode & 0o022 or status.st_uid not in _ROOTS:
            return f"{folder}/{path} has changed since it was installed"
    return ""


def current() -> str:
    """Return the name of the version that the units start; empty if there is none."""
    try:
        return os.readlink(CURRENT)
    except OSError:
        return ""


def is_sound() -> bool:
    """Return whether the units have an intact copy that only root can change."""
    name = current()
    return bool(name) and not examine(name).fault


def sources() -> dict[str, str]:
    """Return the files of the running cnictl and of what it imports: path in the copy to path here. Raises Problem."""
    files: dict[str, str] = {}
    site = os.path.dirname(os.path.dirname(os.path.abspath(cnictl.__file__)))
    if os.path.dirname(os.path.dirname(site)) == HOME:  # the running cnictl is a copy: its manifest lists its files
        files = {path: f"{site}/{path}" for path in _below(site)}
        name = os.path.basename(os.path.dirname(site))
        if digest_of(files) != version_folder.manifest(f"{HOME}/{name}").get("digest"):
            raise Problem(
                f"{HOME}/{name} is damaged, and a damaged copy can't replace itself",
                "run `cnictl apply` from another installation",
            )
        return files
    for package in OWN:
        files |= package_files(package)
    for name, distribution in distributions((*NEEDED, *_EXTRAS)):
        if distribution is not None:
            files |= files_of(distribution)
        elif name in NEEDED:
            files |= package_files(name.replace("-", "_"))
    return files


def distributions(names: Iterable[str]) -> Iterator[tuple[str, importlib.metadata.Distribution | None]]:
    """Yield these distributions and all that they require, by normalized name.

    None means that the distribution is not installed: an extra, or a requirement of another platform or Python.
    """
    waiting, seen = list(names), set[str]()
    while waiting:
        name = _normal(waiting.pop())
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            yield name, None
            continue
        yield name, distribution
        waiting += [
            re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0]
            for line in distribution.requires or []
            if not re.search(r"\bextra\s*==", line)
        ]


def digest_of(files: dict[str, str]) -> str:
    """Return the digest of the copy's files; `files` maps the path in the copy to the path here."""
    return version_folder.digest_of((name, durable.contents(files[name])) for name in sorted(files))


def build(name: str, files: dict[str, str], interpreter: Interpreter) -> None:
    """Copy this cnictl as version `name`, and test that it starts. Raises Problem, leaving nothing behind."""
    reason = ownership.fault(install.nearest(HOME))
    if reason:
        raise Problem(
            f"{reason}: code of users who can write there would run as root at the next boot",
            "let only root write there: chown root:root, chmod go-w, setfacl -b",
        )
    folders.make(HOME)
    final = f"{HOME}/{name}"
    pythons = " ".join(shlex.quote(path) for path in dict.fromkeys([interpreter.path, interpreters.SYSTEM]))
    launcher = _LAUNCHER.replace("@PYTHONS@", pythons).replace("@RUN@", shlex.quote(f"{final}/run.py"))
    with version_folder.building(HOME, name) as new:
        for path, source in files.items():
            version_folder.write(f"{new}/site/{path}", durable.contents(source), 0o644)
        version_folder.write(f"{new}/cnictl", launcher.encode(), 0o755)
        version_folder.write(f"{new}/run.py", _RUN.replace("@SITE@", repr(f"{final}/site")).encode(), 0o644)
        manifest = {
            "release": cnictl.__version__,
            "digest": digest_of(files),
            "interpreter": interpreter.path,
            "files": {path: os.lstat(f"{new}/{path}").st_size for path in sorted(_below(new))},
        }
        version_folder.write_manifest(new, manifest)
        run([interpreter.path, "-I", "-S", "-c", _SELF_TEST, f"{new}/site"], timeout=120)


def remove_all() -> None:
    """Delete all versions of the copy."""
    if os.path.lexists(CURRENT):
        os.unlink(CURRENT)
    for name in version_folder.names(HOME):
        version_folder.remove(HOME, name)
    version_folder.clear_half_built(HOME)
    folders.unmake(HOME)


def package_files(name: str) -> dict[str, str]:
    """Return a package's files by their path in the copy. Raises Problem if it is not installed."""
    spec = find_spec(name)
    if spec is None:
        raise Problem(f"package {name}, which cnictl needs, is not installed with it")
    if not spec.submodule_search_locations:
        return {f"{name}.py": spec.origin or ""}
    return {f"{name}/{path}": f"{top}/{path}" for top in spec.submodule_search_locations for path in _below(top)}


def _below(top: str) -> list[str]:
    """Return the paths of all files below a folder, except bytecode."""
    paths = []
    for place, inner, files in os.walk(top):
        inner[:] = [folder for folder in inner if folder != "__pycache__"]
        paths += [os.path.relpath(f"{place}/{file}", top) for file in files]
    return paths


def files_of(distribution: importlib.metadata.Distribution) -> dict[str, str]:
    """Return a distribution's modules and metadata, without its scripts, by their path in the copy."""
    if distribution.files is None:  # Debian's packages come without the list
        name = _normal(distribution.metadata["Name"])
        tops = (distribution.read_text("top_level.txt") or _IMPORTED_AS.get(name, name.replace("-", "_"))).split()
        return {path: place for top in tops if find_spec(top) for path, place in package_files(top).items()}
    outside = {"..", "__pycache__"}
    kept = [file for file in distribution.files if not outside & set(file.parts) and file.suffix != ".pth"]
    places = {str(file): str(distribution.locate_file(file)) for file in kept}
    return {path: place for path, place in places.items() if os.path.isfile(place)}


def _normal(name: str) -> str:
    """Return a distribution's normalized name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
