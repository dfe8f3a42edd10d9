"""`macspoofchk` against frames with hidden content: behind VLAN tags, or in options of neighbour discovery."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.kernel.plugin.client import Host, Pod, new_host
from tests.kernel.plugin.test_macspoof import OTHER, OWN

_RECEIVER = """
import socket
frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
frames.bind(("eth0", 0))
frames.settimeout(10)
print("ready", flush=True)
said = b""
while said != b"last":
    frame = frames.recv(4000)
    if b"SAID:" in frame:
        said = frame.rpartition(b"SAID:")[2].partition(b".")[0]
        print(said.decode(), flush=True)
"""
_SENDER = """
import socket, sys
frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
frames.bind(("eth0", 0))
for line in sys.argv[1:]:
    name, frame = line.split()
    frames.send(bytes.fromhex(frame) + b"SAID:" + name.encode() + b"." + bytes(40))
"""

TAGS = {
    "no tag": "",
    "priority": "8100e000",
    "VLAN 5": "81000005",
    "priority in priority": "8100e00081006000",
    "QinQ": "88a8000781000005",
    "QinQ of one kind": "8100000781000005",
}
THREE = "810000008100000081000000"


def packed(mac: str) -> str:
    return mac.replace(":", "")


def frame(tags: str, source: str, body: str) -> str:
    return "ff" * 6 + packed(source) + tags + body


def arp(sender: str) -> str:
    return "0806" + "0001080006040002" + packed(sender) + "0a0900fe" + "00" * 10


def discovery(kind: int, fixed: int, option: str, extension: str = "") -> str:
    """Return an ICMPv6 message of that type, with its options at byte `fixed`."""
    message = f"{kind:02x}00" + "0000" + "00" * (fixed - 4) + option
    payload = extension + message
    header = "60000000" + f"{len(payload) // 2 + 50:04x}" + ("00" if extension else "3a") + "ff"
    return "86dd" + header + "fe80" + "00" * 13 + "01" + "ff02" + "00" * 13 + "01" + payload


def told(kind: int, mac: str) -> str:
    """Return the option with the link-layer address of the source (1) or the target (2)."""
    return f"{kind:02x}01" + packed(mac)


NONCE = "0e01" + "11" * 6
PREFIX = "0304" + "40c0" + "00" * 28
HOP_BY_HOP = "3a00" + "0104" + "00" * 4
MESSAGES = {
    "solicitation": (135, 24, told(1, "{}")),
    "advertisement": (136, 24, told(2, "{}")),
    "advertisement, nonce first": (136, 24, NONCE + told(2, "{}")),
    "router solicitation": (133, 8, told(1, "{}")),
    "router advertisement": (134, 16, told(1, "{}")),
    "router advertisement, prefix first": (134, 16, PREFIX + told(1, "{}")),
    "redirect": (137, 40, told(2, "{}")),
}


def message(name: str, mac: str) -> str:
    kind, fixed, option = MESSAGES[name]
    return discovery(kind, fixed, option.replace("{}", packed(mac)))


@pytest.fixture(scope="module")
def guarded() -> Iterator[tuple[Host, Pod, Pod]]:
    """A host with a guarded pod whose MAC is `OWN`, and a receiver."""
    with new_host() as host:
        host.conf |= {"macspoofchk": True, "cniVersion": "1.0.0"}
        pod, other = host.pods(2)
        host.add(pod, {**host.conf, "args": {"cni": {"mac": OWN}}})
        host.add(other)
        yield host, pod, other


def arrived(guarded: tuple[Host, Pod, Pod], frames: dict[str, str]) -> list[str]:
    """Return the names of the frames that arrive."""
    host, sender, receiver = guarded
    listener = subprocess.Popen(
        [*host.enter, "nsenter", f"--net={receiver.netns}", "python3", "-IS", "-c", _RECEIVER],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert listener.stdout is not None
    assert listener.stdout.readline() == "ready\n"
    named = [f"{name.replace(' ', '-')} {content}" for name, content in frames.items()]
    host.inside(sender, "python3", "-IS", "-c", _SENDER, *named, f"last {frame('', OWN, '88b5')}")
    return [name.replace("-", " ") for name in listener.communicate(timeout=20)[0].split()][:-1]


@pytest.mark.parametrize("tags", TAGS)
def test_a_tagged_frame_with_a_forged_mac_is_dropped(guarded: tuple[Host, Pod, Pod], tags: str) -> None:
    tag = TAGS[tags]
    frames = {
        "wrong source": frame(tag, OTHER, "88b5"),
        "wrong source with IPv4": frame(tag, OTHER, "0800"),
        "wrong source with IPv6": frame(tag, OTHER, message("advertisement", OTHER)),
        "wrong source with ARP": frame(tag, OTHER, arp(OTHER)),
        "ARP that lies": frame(tag, OWN, arp(OTHER)),
        **{f"{name} that lies": frame(tag, OWN, message(name, OTHER)) for name in MESSAGES},
        "hidden": frame(tag, OWN, discovery(136, 24, told(2, OTHER), HOP_BY_HOP)),
    }
    truth = {
        "own frame": frame(tag, OWN, "88b5"),
        "own ARP": frame(tag, OWN, arp(OWN)),
        **{f"own {name}": frame(tag, OWN, message(name, OWN)) for name in MESSAGES},
    }
    assert arrived(guarded, {**frames, **truth}) == [name.replace("-", " ") for name in truth]


def test_a_third_tag_is_dropped(guarded: tuple[Host, Pod, Pod]) -> None:
    assert arrived(guarded, {"three": frame(THREE, OWN, arp(OTHER)), "own": frame(THREE, OWN, "88b5")}) == []


def test_without_the_key_all_tagged_frames_arrive(guarded: tuple[Host, Pod, Pod]) -> None:
    """Nothing else drops these frames."""
    host, _, other = guarded
    free = Pod("free", host.pod("free").netns)
    host.add(free, {**host.conf, "macspoofchk": False})
    frames = {
        f"{name} {number}": frame(tag, OWN, body)
        for number, tag in enumerate((*TAGS.values(), THREE))
        for name, body in (("arp", arp(OTHER)), ("nd", message("advertisement", OTHER)))
    }
    assert arrived((host, free, other), frames) == list(frames)
    host.delete(free)


def test_a_guarded_pod_still_finds_its_neighbours(guarded: tuple[Host, Pod, Pod]) -> None:
    """Real neighbour discovery and ARP pass, also with priority tags."""
    host, first, other = guarded
    for pod, address in ((first, "fd00:9::2"), (other, "fd00:9::3")):
        host.inside(pod, "ip", "address", "add", f"{address}/64", "dev", "eth0", "nodad")
    assert "1 received" in host.inside(first, "ping", "-6", "-n", "-c1", "-W2", "fd00:9::3")
    assert host.pings(first, "10.244.0.3") and host.pings(other, "10.244.0.2")


def test_check_reports_a_missing_rule(guarded: tuple[Host, Pod, Pod]) -> None:
    host, _, _ = guarded
    pod = host.pod("checked")
    result = host.add(pod)
    assert host.plugin("CHECK", pod, prev=result).result == {}
    veth = result["interfaces"][1]["name"]
    handle = host.run("nft", "-a", "list", "chain", "bridge", "cnictl", veth).split("# handle ")[-1].split()[0]
    host.run("nft", "delete", "rule", "bridge", "cnictl", veth, "handle", handle)
    assert "macspoofchk" in host.plugin("CHECK", pod, prev=result).error["msg"]
    host.delete(pod)
