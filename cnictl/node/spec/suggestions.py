"""Suggest the value that was probably meant instead of a wrong address."""

from collections.abc import Iterable

from cnictl.core.cidr import Cidr


def meant_network(cidr: Cidr, network: Cidr) -> str:
    """Return in words the smallest network that contains both; empty if it is more than one bit wider than `network`.

    A CIDR that is further away is more likely mistyped, and a wider pod network would contain other hosts' addresses.
    """
    from netaddr import IPNetwork, spanning_cidr

    spanning = spanning_cidr([IPNetwork(str(cidr)), IPNetwork(str(network))])
    return f"; a network that contains both is {spanning}" if spanning.prefixlen >= network.prefix - 1 else ""


def meant_free(cidr: Cidr, subnet: Cidr, network: Cidr) -> str:
    """Return in words the first subnet of that size in `network` that does not overlap `subnet`."""
    free = first_free(str(network), cidr.prefix, [str(subnet)])
    return f"; the first /{cidr.prefix} of {network} outside it is {free}" if free else ""


def first_free(network: str, prefix: int, taken: Iterable[str]) -> str:
    """Return the first subnet of that prefix length in `network` that overlaps none of `taken`; empty without one."""
    from netaddr import IPNetwork, IPSet, cidr_merge

    free = IPSet([IPNetwork(network)]) - IPSet(IPNetwork(cidr) for cidr in taken)
    for block in cidr_merge(free.iter_cidrs()):
        if block.prefixlen <= prefix:
            return f"{block.network}/{prefix}"
    return ""
