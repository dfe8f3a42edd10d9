"""`macspoofchk`, tested with real frames: a pod can send only with its own MAC."""

import json
import subprocess

import pytest

from tests.kernel.plugin.client import Host, Pod
from tests.waiting import wait_for

OWN, OTHER = "02:00:00:00:00:11", "02:00:00:00:00:22"

_RECEIVER = """
import socket
frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
frames.bind(("eth0", 0))
frames.settimeout(10)
print("ready", flush=True)
said = b""
while b"last" not in said:
    frame = frames.recv(2000)
    if b"SAID:" in frame:
        said = frame.partition(b"SAID:")[2].rstrip(b"\\0.")
        print(said.decode(), flush=True)
"""
_SENDER = """
import socket, sys
frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
frames.bind(("eth0", 0))
everyone = b"\\xff" * 6
for line in sys.argv[1:]:
    said, source, sender = line.split()
    source, sender = bytes.fromhex(source.replace(":", "")), bytes.fromhex(sender.replace(":", ""))
    arp = bytes.fromhex("0806" "0001080006040001") + sender + bytes(4) + bytes(6) + bytes(4)
    kind = arp if said.startswith("arp") else bytes.fromhex("88b5")
    frames.send(everyone + source + kind + b"SAID:" + said.encode() + bytes(40))
"""


@pytest.fixture
def pair(host: Host) -> tuple[Pod, Pod]:
    """Attach two guarded pods; the first has the MAC `OWN`."""
    host.conf |= {"macspoofchk": True, "cniVersion": "1.0.0"}
    pod, other = host.pods(2)
    host.add(pod, {**host.conf, "args": {"cni": {"mac": OWN}}})
    host.add(other)
    return pod, other


def arrived(host: Host, sender: Pod, receiver: Pod, *frames: str) -> list[str]:
    """Return which of these frames (name, source MAC, sender's MAC within ARP) arrive, up to the final frame `last`."""
    listener = subprocess.Popen(
        [*host.enter, "nsenter", f"--net={receiver.netns}", "python3", "-IS", "-c", _RECEIVER],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert listener.stdout is not None
    assert listener.stdout.readline() == "ready\n"
    host.inside(sender, "python3", "-IS", "-c", _SENDER, *frames, f"last {OWN} {OWN}")
    return listener.communicate(timeout=20)[0].split()


def guards(host: Host) -> str:
    """Return the rules in the bridge family, or ""."""
    return host.run("nft", "list", "table", "bridge", "cnictl", check=False)


FRAMES = (f"wrong {OTHER} {OTHER}", f"arp-wrong {OTHER} {OTHER}", f"arp-lies {OWN} {OTHER}", f"arp-right {OWN} {OWN}")


def test_only_frames_with_the_pods_own_mac_arrive(host: Host, pair: tuple[Pod, Pod]) -> None:
    pod, other = pair
    assert host.pings(pod, "10.244.0.3") and host.pings(other, "10.244.0.2")
    assert arrived(host, pod, other, *FRAMES) == ["arp-right", "last"]
    host.inside(pod, "ip", "link", "set", "eth0", "address", OTHER)
    assert not host.pings(pod, "10.244.0.1")
    host.inside(pod, "ip", "link", "set", "eth0", "address", OWN)
    assert host.pings(pod, "10.244.0.1")


def test_without_the_key_every_frame_arrives(host: Host) -> None:
    """The frames that the test above expects to be dropped arrive without the key."""
    pod, other = host.pods(2)
    host.add(pod, {**host.conf, "args": {"cni": {"mac": OWN}}})
    host.add(other)
    assert arrived(host, pod, other, *FRAMES) == ["wrong", "arp-wrong", "arp-lies", "arp-right", "last"]
    assert guards(host) == ""


def test_each_guard_is_removed_with_its_pod(host: Host, pair: tuple[Pod, Pod]) -> None:
    pod, other = pair
    assert guards(host).count(" drop comment") == 4
    host.delete(pod)
    assert guards(host).count(" drop comment") == 2
    assert host.pings(other, "10.244.0.1")
    assert host.collect([]).result == {}
    assert guards(host) == ""
    host.delete(other)


@pytest.mark.parametrize("gone", ["rules", "link", "map", "record"])
def test_guards_are_deleted_with_any_part_already_gone(host: Host, pair: tuple[Pod, Pod], gone: str) -> None:
    pod, other = pair
    if gone == "rules":
        host.run("nft", "flush", "ruleset")
    elif gone == "link":
        host.kill(pod)
        wait_for(lambda: len(host.ports()) == 1, "the pair disappears with its namespace")
    elif gone == "map":
        host.run(*["nft", "flush", "map", "bridge", "cnictl", "macspoofchk"])
    else:
        host.path("/var/lib/cnictl/attachments/mynet/pod0@eth0").unlink()
    host.delete(pod)
    host.delete(other)
    assert guards(host) == ""


@pytest.mark.parametrize(
    "flush",
    ["delete table bridge cnictl", "flush map bridge cnictl macspoofchk", "flush chain bridge cnictl prerouting"],
)
def test_check_reports_flushed_rules(host: Host, flush: str) -> None:
    host.conf |= {"macspoofchk": True}
    pod = host.pod()
    result = host.add(pod)
    assert host.plugin("CHECK", pod, prev=result).result == {}
    host.run("nft", flush)
    assert "macspoofchk" in host.plugin("CHECK", pod, prev=result).error["msg"]


def test_failed_add_leaves_no_guard(host: Host) -> None:
    host.conf |= {"macspoofchk": True, "ipam": {"routes": [{"dst": "192.0.2.0/24", "gw": "203.0.113.1"}]}}
    pod = host.pod()
    before = host.traces()
    assert host.plugin("ADD", pod).error["msg"].startswith("eth0: route to 192.0.2.0/24")
    assert host.traces() == before


def test_host_without_nft_is_an_error_that_names_the_key(host: Host) -> None:
    host.conf |= {"macspoofchk": True}
    pod = host.pod()
    before = host.traces()
    failed = host.plugin("ADD", pod, PATH="/nonexistent")
    assert failed.code == 2
    assert failed.error["msg"].startswith("macspoofchk: nft")
    assert host.traces() == before


def test_guard_of_the_reference_plugin_is_removed_with_its_pod(host: Host) -> None:
    pod = host.pod("pod0")
    conf = {
        **host.conf,
        "type": "bridge",
        "macspoofchk": True,
        "ipam": {"type": "host-local", "subnet": "10.244.0.0/24"},
    }
    environment = host.environment("ADD", pod, TMPDIR="/run")
    result = host.call(environment, json.dumps(conf).encode(), "/usr/lib/cni/bridge").result
    assert "macspoofchk-pod0-eth0" in host.traces()["rules"]
    host.delete(pod, prev=result)
    assert "pod0-eth0" not in host.traces()["rules"]
