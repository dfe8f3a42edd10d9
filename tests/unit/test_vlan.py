"""Parse VLAN messages with another netlink library, because few kernels here can apply them to a bridge."""

import errno
import struct
from typing import Any

import pytest
from cnictl_plugin import vlan
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from cnictl.core.bridge import BridgeMade
from cnictl.core.conf.netconf import NetConf
from cnictl.core.errors import CniError
from cnictl.core.netlink.messages import Netlink, NetlinkError
from cnictl.core.netlink.rtnetlink import Link

Message = tuple[int, int, bytes]


def read(message: Message) -> dict[str, Any]:
    kind, flags, body = message
    parsed = ifinfmsg(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)
    parsed.decode()
    infos = parsed.get_attr("IFLA_AF_SPEC")["attrs"]
    return {
        "type": kind,
        "family": parsed["family"],
        "index": parsed["index"],
        "master": [value for name, value in infos if name == "IFLA_BRIDGE_VLAN_FLAGS"],
        "vlans": [(info["vid"], info["flags"]) for name, info in infos if name == "IFLA_BRIDGE_VLAN_INFO"],
    }


class Kernel(Netlink):
    """Answers a dump of bridge ports with predefined messages, and records the messages that it gets."""

    def __init__(self, present: list[tuple[int, int, int]]) -> None:
        self.told: list[Message] = []
        self._dump = [vlan.vlan_message(16, index, present)[2] for index in (6, 7)]

    def dump(self, kind: int, payload: bytes, flags: int = 0) -> list[bytes]:
        if flags == 0 and kind == 18 and payload[:1] != bytes((vlan.AF_BRIDGE,)):
            return [struct.pack("=BBHiII", 0, 0, 1, 7, 0, 0)]
        return self._dump

    def refusals(self, *messages: Message) -> list[Any]:
        self.told += messages
        return []


class Overtaken(Kernel):
    """Another ADD creates the gateway's interface between this ADD's query and its request to create it."""

    asked = False

    def dump(self, kind: int, payload: bytes, flags: int = 0) -> list[bytes]:
        first, self.asked = not self.asked, True
        if first:
            raise NetlinkError(errno.ENODEV, "", 0)
        return super().dump(kind, payload, flags)

    def refusals(self, *messages: Message) -> list[Any]:
        first = not self.told
        super().refusals(*messages)
        return [NetlinkError(errno.EEXIST, "", 0)] if first else []


def test_a_gateway_that_another_add_creates_first_is_used_and_kept_at_an_undo() -> None:
    kernel = Overtaken([(5, 5, vlan.PVID | vlan.UNTAGGED)])
    bridge = BridgeMade(Link(struct.pack("=BBHiII", 0, 0, 1, 3, 0, 0)), made=False)
    assert vlan.ensure_gateway(kernel, bridge, conf_of(vlan=5), "cnictl:mynet").index == 7
    assert bridge.former == []


def conf_of(**keys: Any) -> NetConf:
    conf = NetConf("mynet", "1.1.0")
    for key, value in keys.items():
        setattr(conf, key, value)
    return conf


def test_spans_are_ranges_and_the_native_vlan_is_separate() -> None:
    message = vlan.vlan_message(
        vlan.RTM_SETLINK, 7, [(200, 202, 0), (300, 300, 0), (100, 100, vlan.PVID | vlan.UNTAGGED)]
    )
    begin, end = 0x08, 0x10
    assert read(message) == {
        "type": 19,
        "family": 7,
        "index": 7,
        "master": [1],
        "vlans": [(200, begin), (202, end), (300, 0), (100, 0x06)],
    }


def test_vlan_spans_of_the_kernel_are_read_as_single_vlans() -> None:
    kernel = Kernel([(1, 1, vlan.PVID | vlan.UNTAGGED), (200, 202, 0)])
    assert vlan.port_vlans(kernel, 7) == {1: vlan.PVID | vlan.UNTAGGED, 200: 0, 201: 0, 202: 0}
    assert vlan.port_vlans(kernel, 8) == {}


@pytest.mark.parametrize(
    ("keys", "vlans"),
    [
        ({"vlan": 100}, [(100, 6)]),
        ({"vlan_trunk": [(200, 201)]}, [(200, 0x08), (201, 0x10), (1, 6)]),
        ({"vlan_trunk": [(1, 3)]}, [(2, 0x08), (3, 0x10), (1, 6)]),
        ({"vlan": 100, "vlan_trunk": [(5, 5)]}, [(5, 0), (100, 6)]),
    ],
)
@pytest.mark.parametrize("keep", [False, True])
def test_port_gets_its_vlans_and_loses_the_default_unless_it_is_kept(
    keys: dict[str, Any], vlans: list[tuple[int, int]], keep: bool
) -> None:
    kernel = Kernel([(1, 1, vlan.PVID | vlan.UNTAGGED)])
    vlan.set_port(kernel, "veth0", conf_of(**keys, keep_default_vlan=keep))
    told = [read(message) for message in kernel.told]
    assert told[-1]["type"] == vlan.RTM_SETLINK and told[-1]["vlans"] == vlans
    assert [(message["type"], message["vlans"]) for message in told[:-1]] == ([] if keep else [(17, [(1, 0)])])


def test_gateway_interface_needs_a_name_that_the_kernel_accepts() -> None:
    assert vlan.gateway_name("cni0", 4094) == "cni0.4094"
    with pytest.raises(CniError, match=r"bridge-longer.100") as caught:
        vlan.gateway_name("bridge-longer", 100)
    assert caught.value.code == 7
