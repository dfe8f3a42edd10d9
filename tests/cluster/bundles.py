"""Build bundles of this checkout with another version, and with a fault if a test needs one."""

import base64
import io
import zipfile
from collections.abc import Mapping

from cnictl.cluster import bundle, wheels
from cnictl.cluster.bundle import Bundle
from tests.cluster.world import World

NEWER = "9.1.0"
"""The version of the bundles, newer than any checkout's."""

FAILS_SELF_TEST = {
    "cnictl_plugin/main.py": "\n\ndef _serve(call, conf):\n    raise OSError(5, 'broken', 'self-test')\n"
}
"""A plugin whose self-test fails."""
FAILS_ON_NODE2 = {
    "cnictl_plugin/main.py": (
        "\n\n_whole = _serve\n\n\ndef _serve(call, conf):\n"
        "    if conf.name != 'cnictl-selftest' and open('/etc/hostname').read() == 'node2\\n':\n"
        "        raise OSError(5, 'broken', 'a pod')\n    return _whole(call, conf)\n"
    )
}
"""A plugin that passes its self-test, and then attaches no pod on node2."""


def bundle_of(appended: Mapping[str, str] | None = None, version: str = NEWER) -> Bundle:
    """Return this checkout as a bundle of another version, with lines appended to some of its modules."""
    made = wheels.of_running()
    own = next(name for name in made if name.startswith("cnictl-"))
    with zipfile.ZipFile(io.BytesIO(made.pop(own))) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    more = {"cnictl/__init__.py": f'\n__version__ = "{version}"\n', **(appended or {})}
    files = {name: contents + more.get(name, "").encode() for name, contents in files.items()}
    metadata = f"Metadata-Version: 2.1\nName: cnictl\nVersion: {version}\n"
    return bundle.assemble(made | dict([wheels.wheel("cnictl", version, files, metadata)]))


def lay(world: World, made: Bundle, path: str) -> str:
    """Write a bundle to the operator's machine; return its path."""
    text = base64.encodebytes(made.contents).decode()
    world.operator.run(["sh", "-c", f"base64 -d > {path}"], stdin=text)
    return path
