"""Make wheels of the running cnictl and of its dependencies, as a registry or `pip wheel` would give them.

Every installation has the files for this, so `cnictl cluster install` needs no registry and no checkout.
"""

import base64
import hashlib
import io
import os
import zipfile
from collections.abc import Mapping

import cnictl
from cnictl.core import durable
from cnictl.core.errors import Problem
from cnictl.node.plugin import program

_WHEEL = "Wheel-Version: 1.0\nGenerator: cnictl\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_OLDEST = (1980, 1, 1, 0, 0, 0)
"""The time of each file, so that the same files give the same wheel."""
_OF_INSTALLER = ("RECORD", "WHEEL", "METADATA", "INSTALLER", "REQUESTED", "direct_url.json")
_MODULE_SUFFIXES = (".so", ".pyd")


def of_running() -> dict[str, bytes]:
    """Return the wheels of the running cnictl by file name, without its extras. Raises Problem."""
    own = {path: place for package in program.OWN for path, place in program.package_files(package).items()}
    wheels = dict([wheel("cnictl", cnictl.__version__, _contents(own), _own_metadata())])
    for name, distribution in program.distributions(program.NEEDED):
        if distribution is None:
            if name in program.NEEDED:
                raise Problem(f"{name}, which cnictl needs, was installed without its metadata")
            continue
        files = program.files_of(distribution)
        compiled = next((path for path in files if path.endswith(_MODULE_SUFFIXES)), "")
        if compiled:
            raise Problem(f"{compiled} of {name} is compiled for this machine")
        text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
        file, contents = wheel(name, distribution.version, _contents(files), text)
        wheels[file] = contents
    return wheels


def wheel(name: str, version: str, files: Mapping[str, bytes], metadata: str) -> tuple[str, bytes]:
    """Return the file name and the contents of a wheel with these files by path (PEP 427)."""
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    entries = {}
    for path, contents in files.items():
        first, _, rest = path.partition("/")
        if not first.endswith(".dist-info"):
            entries[path] = contents
        elif rest not in _OF_INSTALLER:
            entries[f"{info}/{rest}"] = contents
    entries[f"{info}/METADATA"] = metadata.encode()
    entries[f"{info}/WHEEL"] = _WHEEL.encode()
    rows = [f"{path},sha256={_digest(contents)},{len(contents)}" for path, contents in sorted(entries.items())]
    entries[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path, contents in sorted(entries.items()):
            entry = zipfile.ZipInfo(path, _OLDEST)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, contents, zipfile.ZIP_DEFLATED, 1)
    return f"{stem}-py3-none-any.whl", packed.getvalue()


def _own_metadata() -> str:
    needed = "".join(f"Requires-Dist: {name}\n" for name in program.NEEDED)
    return f"Metadata-Version: 2.1\nName: cnictl\nVersion: {cnictl.__version__}\nRequires-Python: >=3.11\n{needed}"


def _contents(files: Mapping[str, str]) -> dict[str, bytes]:
    return {path: durable.contents(place) for path, place in files.items() if os.path.isfile(place)}


def _digest(contents: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(contents).digest()).rstrip(b"=").decode()
