"""Make a container image without a registry: busybox and its links, as a root folder and as a docker archive."""

import hashlib
import io
import json
import subprocess
import tarfile
from functools import cache
from pathlib import Path

from .machine import Machine

BUSYBOX = Path("/usr/bin/busybox")
NAME = "docker.io/library/pod:1"
ROOTFS = "/srv/rootfs"
LAYER = "/srv/layer.tar"
ARCHIVE = "/srv/pod.tar"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def place_rootfs(machine: Machine) -> None:
    """Unpack the image's only layer to ROOTFS on the machine, for `podman run --rootfs`."""
    machine.write(LAYER, _layer())
    machine.run("mkdir", ROOTFS)
    machine.run("tar", "-xf", LAYER, "-C", ROOTFS)


def place_archive(machine: Machine) -> None:
    """Write the image to ARCHIVE on the machine, for `ctr images import`."""
    machine.write(ARCHIVE, _archive())


@cache
def _layer() -> bytes:
    """Return the layer: busybox under each of its names, and the mount points that a runtime needs."""
    out = io.BytesIO()
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for folder in ("bin", "dev", "etc", "proc", "sys", "tmp", "www"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        _add(tar, "bin/busybox", BUSYBOX.read_bytes(), 0o755)
        _add(tar, "etc/passwd", b"root:x:0:0:root:/:/bin/sh\n")
        _add(tar, "etc/group", b"root:x:0:\n")
        _add(tar, "www/index.html", b"hello from the pod\n")
        for applet in applets:
            if applet != "busybox":
                entry = tarfile.TarInfo(f"bin/{applet}")
                entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(entry)
    return out.getvalue()


@cache
def _archive() -> bytes:
    """Return an archive as `docker save` writes it: the layer, a configuration with its digest, and a manifest."""
    machine = subprocess.run(["uname", "-m"], capture_output=True, text=True, check=True).stdout.strip()
    configuration = {
        "architecture": _ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "config": {"Entrypoint": ["/bin/sleep", "100000"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(_layer()).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        _add(tar, "config.json", json.dumps(configuration).encode())
        _add(tar, "layer.tar", _layer())
        _add(tar, "manifest.json", json.dumps(manifest).encode())
    return out.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))
