"""Short digests that name things: the same text gives the same name in every process and release."""

try:
    from _blake2 import blake2s
except ImportError:
    from hashlib import blake2s


def short_digest(*parts: str) -> str:
    """8 hex digits of `parts` joined by NUL, a byte that none of them may hold."""
    return str(blake2s("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=4).hexdigest())


def long_digest(*parts: str) -> str:
    """16 hex digits of `parts`, joined as in `short_digest`."""
    return str(blake2s("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest())


def host_veth_name(network: str, container: str, ifname: str, turn: int = 0) -> str:
    """The host end of an attachment's veth pair: `veth` and 11 hex digits, all that IFNAMSIZ has room for.

    Should a link have the name already, the next `turn` gives another (`core.host_veth`).
    """
    return "veth" + long_digest(network, container, ifname, *((str(turn),) if turn else ()))[:11]


def former_host_veth_name(network: str, container: str, ifname: str) -> str:
    """The name that releases up to 0.1.0 gave: `veth` and 8 hex digits, as the reference's names have."""
    return "veth" + short_digest(network, container, ifname)
