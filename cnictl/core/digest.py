"""Digests for names. The same text gives the same name in every process, and in every version of cnictl."""

try:
    from _blake2 import blake2s
except ImportError:
    from hashlib import blake2s


def short_digest(*parts: str) -> str:
    """Return 8 hex digits for `parts`, which may contain no NUL."""
    return str(blake2s("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=4).hexdigest())


def long_digest(*parts: str) -> str:
    """Return 16 hex digits for `parts`, which may contain no NUL."""
    return str(blake2s("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest())


def host_veth_name(network: str, container: str, ifname: str, turn: int = 0) -> str:
    """Return the name of an attachment's host veth: `veth` and 11 hex digits, as many as IFNAMSIZ has room for.

    If another link has the name, the next `turn` gives another one (`core.host_veth`).
    """
    return "veth" + long_digest(network, container, ifname, *((str(turn),) if turn else ()))[:11]


def former_host_veth_name(network: str, container: str, ifname: str) -> str:
    """Return the name that cnictl up to 0.1.0 gave a host veth: `veth` and 8 hex digits."""
    return "veth" + short_digest(network, container, ifname)
