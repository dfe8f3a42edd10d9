"""The masquerade rule set: one text for `nat enable` and for the plugin's ADD, loaded whole or not at all.

Two chains a network in the node's own table `inet cnictl` (nftables), or two chains of its own under
`nat POSTROUTING` (iptables). Each rule's comment carries a digest of the whole rule set, so that one look tells
whether it stands as it should.

The first chain binds pod→pod traffic between nodes to its own source address before any other tool's masquerade
in the same hook can: an accept would not stop that one, a NAT binding once set is kept. It leaves out this node's
own subnet and packets that kube-proxy (0x4000) or portmap (0x2000) marked for masquerade, or their hairpin dies.
"""

from cnictl.core.cidr import Cidr

TABLE = "cnictl"
MASQUERADE_MARKS = 0x6000


class Masquerade:
    """What a node masquerades: from `subnet`, to anywhere outside `network` (the cluster's pods)."""

    __slots__ = ("name", "network", "subnet")

    def __init__(self, name: str, subnet: Cidr, network: Cidr) -> None:
        self.name = name
        self.subnet = subnet
        self.network = network
