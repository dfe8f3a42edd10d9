"""Short digests that name things: the same text gives the same name in every process and release."""

try:
    from _blake2 import blake2s
except ImportError:
    from hashlib import blake2s


def short_digest(*parts: str) -> str:
    """8 hex digits of `parts` joined by NUL, a byte that none of them may hold."""
    return str(blake2s("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=4).hexdigest())


def host_veth_name(network: str, container: str, ifname: str) -> str:
    """The host end of an attachment's veth pair: found again by DEL and GC without a record."""
    return "veth" + short_digest(network, container, ifname)
