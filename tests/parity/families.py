"""Define the scenarios' addresses: for each family two subnets, the node, and a host outside."""

import ipaddress
from dataclasses import dataclass


@dataclass(frozen=True)
class Net:
    """One family's subnet on the node."""

    version: int
    subnet: str
    outside: str
    """The address of the host outside, which has a route to the pods' subnets through the node."""
    node: str
    """The node's own address on the uplink."""
    anywhere: str
    elsewhere: str
    """A destination for routes other than the default route."""

    @property
    def prefix(self) -> int:
        """The length of the subnet's prefix."""
        return ipaddress.ip_network(self.subnet).prefixlen

    @property
    def gateway(self) -> str:
        """The subnet's first address, which the bridge has unless a conf names another."""
        return self.at(1)

    def at(self, number: int) -> str:
        """Return the address with that number in the subnet."""
        return str(ipaddress.ip_network(self.subnet)[number])

    def with_prefix(self, number: int) -> str:
        """Return the same address with its prefix length, as in `10.22.0.9/24`."""
        return f"{self.at(number)}/{self.prefix}"


V4 = Net(4, "10.22.0.0/24", "198.51.100.1", "198.51.100.2", "0.0.0.0/0", "203.0.113.0/24")
V6 = Net(6, "2001:db8:22::/64", "2001:db8:ff::1", "2001:db8:ff::2", "::/0", "2001:db8:cb::/48")
SECOND_V4 = Net(4, "10.23.0.0/24", V4.outside, V4.node, V4.anywhere, V4.elsewhere)
SECOND_V6 = Net(6, "2001:db8:23::/64", V6.outside, V6.node, V6.anywhere, V6.elsewhere)


@dataclass(frozen=True)
class Family:
    """The family or families of a scenario, each a column of the table."""

    name: str
    nets: tuple[Net, ...]
    second: tuple[Net, ...]


FAMILIES = (
    Family("IPv4", (V4,), (SECOND_V4,)),
    Family("IPv6", (V6,), (SECOND_V6,)),
    Family("dual", (V4, V6), (SECOND_V4, SECOND_V6)),
)
