"""Make and read bundles: one tar.gz with cnictl, its dependencies as wheels, and an installer that needs no registry.

    cnictl-0.2.0/install.sh, install.py     the installer (conf/)
    cnictl-0.2.0/wheels/*.whl               cnictl and its pinned dependencies
    cnictl-0.2.0/requirements.txt           their names and hashes, for pip, pipx and uv
    cnictl-0.2.0/SHA256SUMS                 the digest of every file, which the installer checks

The same files always give the same bundle, byte for byte.
"""

import gzip
import hashlib
import importlib.resources
import io
import re
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cnictl.cluster import wheels
from cnictl.core import untrusted_text
from cnictl.core.errors import Problem, UsageProblem

_SUMS = "SHA256SUMS"
_INSTALLER = ("install.sh", "install.py")
_LARGEST = 128 << 20
"""Bytes, packed and unpacked. A bundle has about 6 million, and with the extra for Kubernetes 8 million."""
_OWN_WHEEL = re.compile(r"wheels/cnictl-([0-9][A-Za-z0-9.+!_]*)-[^/]*\.whl\Z")
_KUBERNETES = "wheels/lightkube-"


@dataclass(frozen=True)
class Bundle:
    """A bundle whose digests were verified."""

    contents: bytes
    version: str
    """The release of cnictl in it, such as `0.2.0`."""
    name: str
    """The version's folder on a host: the release and the start of a digest, such as `0.2.0+1a2b3c4d`."""
    has_kubernetes: bool
    """Whether it has the extra that learns peers from Kubernetes."""

    @property
    def sha256(self) -> str:
        """The digest of the whole file."""
        return hashlib.sha256(self.contents).hexdigest()


def of_running() -> Bundle:
    """Return a bundle of the running cnictl, without its extras. Raises Problem."""
    try:
        return assemble(wheels.of_running())
    except Problem as problem:
        hint = "give a bundle with --bundle FILE; `make bundle` in a checkout makes one"
        raise Problem(f"this installation can't be made into a bundle: {problem.message}", hint) from None


def load(path: str) -> Bundle:
    """Return the bundle in a file. Raises UsageProblem."""
    try:
        with open(path, "rb") as file:
            contents = file.read(_LARGEST + 1)
    except OSError as error:
        raise UsageProblem(f"{path}: {error.strerror}") from None
    return parse(contents, path)


def parse(contents: bytes, path: str) -> Bundle:
    """Return the bundle in these bytes; errors name `path`. Raises UsageProblem."""
    files = _unpacked(contents, path)
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in _text(files, path).splitlines())}
    for name in sorted({*files, *listed} - {_SUMS}):
        if name not in files or hashlib.sha256(files[name]).hexdigest() != listed.get(name):
            raise UsageProblem(
                f"{path}: {untrusted_text.line(name)} does not match its {_SUMS}", "fetch or make the bundle again"
            )
    return _described(contents, files, path)


def assemble(files_by_wheel: Mapping[str, bytes]) -> Bundle:
    """Return a bundle of these wheels, by file name. One of them is cnictl's own."""
    conf = importlib.resources.files("cnictl_conf")
    files = {name: (conf / name).read_bytes() for name in _INSTALLER}
    files |= {f"wheels/{name}": contents for name, contents in files_by_wheel.items()}
    files["requirements.txt"] = _requirements(files_by_wheel).encode()
    sums = "".join(f"{hashlib.sha256(contents).hexdigest()}  {name}\n" for name, contents in sorted(files.items()))
    files[_SUMS] = sums.encode()
    return _described(_packed(files), files, "the bundle")


def _described(contents: bytes, files: Mapping[str, bytes], path: str) -> Bundle:
    version = next((match[1] for name in files if (match := _OWN_WHEEL.match(name))), "")
    if not version or not set(_INSTALLER) <= files.keys():
        raise UsageProblem(f"{path} is not a bundle of cnictl", "`make bundle` in a checkout makes one")
    name = f"{version}+{hashlib.sha256(files[_SUMS]).hexdigest()[:8]}"
    return Bundle(contents, version, name, any(name.startswith(_KUBERNETES) for name in files))


def _unpacked(contents: bytes, path: str) -> dict[str, bytes]:
    """Return the files in a bundle by path, without its outer folder. Raises UsageProblem."""
    files: dict[str, bytes] = {}
    if len(contents) > _LARGEST:
        raise UsageProblem(f"{path} is larger than {_LARGEST >> 20} MiB")
    try:
        size = 0
        with tarfile.open(fileobj=io.BytesIO(contents), mode="r:gz") as archive:
            for member in archive:
                size += member.size
                _, _, name = member.name.partition("/")
                if size > _LARGEST or not name or not member.isfile() or ".." in name.split("/"):
                    raise UsageProblem(f"{path} is not a bundle of cnictl: {untrusted_text.line(member.name)}")
                content = archive.extractfile(member)
                assert content is not None
                files[name] = content.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UsageProblem(f"{path} is not a readable tar.gz: {error}") from None
    return files


def _text(files: Mapping[str, bytes], path: str) -> str:
    try:
        return files[_SUMS].decode()
    except (KeyError, UnicodeDecodeError):
        raise UsageProblem(f"{path} is not a bundle of cnictl: it has no {_SUMS}") from None


def _packed(files: Mapping[str, bytes]) -> bytes:
    version = next(match[1] for name in files if (match := _OWN_WHEEL.match(name)))
    packed = io.BytesIO()  # wheels are already compressed
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, contents in sorted(files.items()):
            member = tarfile.TarInfo(f"cnictl-{version}/{name}")
            member.size, member.mode = len(contents), 0o755 if name == "install.sh" else 0o644
            archive.addfile(member, io.BytesIO(contents))
    return packed.getvalue()


def _requirements(files_by_wheel: Mapping[str, bytes]) -> str:
    """Return pip's requirements for exactly these wheels."""
    lines = []
    for name, contents in sorted(files_by_wheel.items()):
        distribution, version = name.split("-")[:2]
        lines.append(f"{distribution}=={version} --hash=sha256:{hashlib.sha256(contents).hexdigest()}\n")
    return "".join(lines)


def main(folder: str, target: str) -> None:
    """Write a bundle of the wheels in `folder` into the folder `target`, and its digest beside it: `make bundle`."""
    made = assemble({path.name: path.read_bytes() for path in sorted(Path(folder).glob("*.whl"))})
    Path(target).mkdir(parents=True, exist_ok=True)
    path = Path(target, f"cnictl-{made.version}-bundle.tar.gz")
    path.write_bytes(made.contents)
    Path(f"{path}.sha256").write_text(f"{made.sha256}  {path.name}\n")
    print(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
