"""A kernel without a netlink protocol: changes report that, and reads find nothing."""

import errno

import pytest

from cnictl.core import sysctl
from cnictl.core.masquerade import nft
from cnictl.core.netlink import conntrack, nftables
from cnictl.core.netlink.messages import Netlink, NetlinkError

MISSING = 31
"""The last protocol number that exists (MAX_LINKS, linux/netlink.h); no protocol uses it."""


def test_a_protocol_that_the_kernel_lacks_is_a_refusal() -> None:
    with pytest.raises(NetlinkError) as refused:
        Netlink(MISSING)
    assert refused.value.errno == errno.EPROTONOSUPPORT


def test_without_nfnetlink_there_are_no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("messages", "nftables", "conntrack"):
        monkeypatch.setattr(f"cnictl.core.netlink.{module}.NETLINK_NETFILTER", MISSING)
    monkeypatch.setattr(nft, "NETLINK_NETFILTER", MISSING)
    monkeypatch.setattr(sysctl, "read", lambda _: "7")
    assert nftables.chains(nftables.FAMILY_BRIDGE, "cnictl") == []
    assert nftables.rules(nftables.FAMILY_BRIDGE, "cnictl", "prerouting") == []
    assert not nft.Nft().present("mynet")
    conntrack.forget([b"\x0a\0\0\7"])
