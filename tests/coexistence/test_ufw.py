"""ufw as Debian ships it: its FORWARD drops, before cnictl comes and after, and over its own reload."""

import io
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.operator import Pod, cnictl, drifted, init, start_pod

pytestmark = pytest.mark.once

_UNPACKED = Path(__file__).parents[2] / ".venv" / "packages" / "ufw"
_EXTERNAL = "192.0.2.10"
_SERVE = """
import socket
server = socket.create_server(("0.0.0.0", 80))
print("ready", flush=True)
while True:
    server.accept()[0].close()
"""
_INSTALL = """
cp -a /opt/ufw/lib/. /opt/ufw/usr/lib/
cp -a /opt/ufw/etc/. /etc/
mkdir /opt/local /opt/plugins && mount --rbind /usr/local /opt/local && mount --bind /usr/lib/cni /opt/plugins
mount -t overlay overlay -o lowerdir=/opt/ufw/usr:/usr /usr
mount --rbind /opt/local /usr/local && mount --bind /opt/plugins /usr/lib/cni
cp /usr/share/ufw/ufw.conf /etc/ufw/
for name in before after user; do cp -L /usr/share/ufw/$name.rules /usr/share/ufw/${name}6.rules /etc/ufw/; done
for name in before after; do cp /usr/share/ufw/$name.init /etc/ufw/; done
"""
"""What the package's installation does, on a node that can't write its /usr."""


@pytest.fixture
def node() -> Iterator[Node]:
    """A node with ufw installed, and not enabled."""
    if not _UNPACKED.is_dir():
        pytest.skip("not here: Debian's ufw (tests/packages.sh fetches it as root)")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(_UNPACKED, ".", filter=_as_root)
    with Lab(nodes=2) as lab:
        one = lab.nodes[0]
        unpacking = one.popen(["sh", "-c", "mkdir /opt/ufw && tar -x -C /opt/ufw"], stdin=_file_of(packed))
        assert unpacking.communicate(timeout=30) == ("", "")
        one.run(["sh", "-ec", _INSTALL])
        serving = lab.outside.popen(["/usr/bin/python3", "-c", _SERVE])
        assert serving.stdout is not None
        assert serving.stdout.readline() == "ready\n"
        yield one


def _as_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    return entry


def _file_of(data: io.BytesIO) -> io.BufferedRandom:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the process that reads it closes it
    file.write(data.getvalue())
    file.seek(0)
    return file


def reaches(pod: Pod) -> bool:
    """Whether the pod reaches its own host, and a server outside: ufw lets echo requests pass in any case."""
    connect = f"import socket; socket.create_connection(('{_EXTERNAL}', 80), 2)"
    connected = pod.run("/usr/bin/python3", "-c", connect, check=False).status == 0
    return pod.pings("10.244.0.1") and connected


def ufw(node: Node, *words: str) -> str:
    return node.run(["ufw", *words], timeout=60).stdout


def all_of_ufw(node: Node) -> tuple[str, ...]:
    """What it says of itself, its rules, and its files."""
    return ufw(node, "status", "verbose"), *(
        node.run(argv).stdout for argv in (["iptables", "-S"], ["ls", "-R", "/etc/ufw"])
    )


def test_ufw_enabled_after_cnictl_and_reloaded(node: Node) -> None:
    init(node)
    pod = start_pod(node, "pod")
    assert reaches(pod)
    ufw(node, "--force", "enable")
    assert "-P FORWARD DROP" in node.run(["iptables", "-S", "FORWARD"]).stdout
    assert reaches(pod)
    ufw(node, "reload")
    assert reaches(pod)
    ufw(node, "disable")
    ufw(node, "--force", "enable")
    assert reaches(pod)
    assert drifted(node) == []
    assert cnictl(node, "doctor").status == 0


def test_ufw_that_was_there_first_gets_its_rules_back(node: Node) -> None:
    ufw(node, "--force", "enable")
    before = (
        ufw(node, "status", "verbose"),
        node.run(["iptables", "-S"]).stdout,
        node.run(["ls", "-R", "/etc/ufw"]).stdout,
    )
    init(node)
    pod = start_pod(node, "pod")
    assert reaches(pod)
    ufw(node, "reload")
    assert reaches(pod)
    node.run(["iptables", "-D", "FORWARD", "-m", "comment", "--comment", "cnictl:mynet", "-j", "CNICTL-FORWARD"])
    assert not reaches(pod)
    assert "forward-drop" in cnictl(node, "doctor", check=False).stdout
    cnictl(node, "doctor", "--fix")
    assert reaches(pod)
    node.run(["ip", "netns", "delete", "pod"])
    cnictl(node, "reset-node", "--yes", "--force")
    after = (
        ufw(node, "status", "verbose"),
        node.run(["iptables", "-S"]).stdout,
        node.run(["ls", "-R", "/etc/ufw"]).stdout,
    )
    assert after == before
