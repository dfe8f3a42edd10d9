"""Find pods by what an operator calls them, in the same way for every command. Pure.

An operator gives an address, `namespace/name`, `name`, a container's id or its beginning. The first match in this
order counts, so a pod called `web` is not confused with a container whose id begins with `web`.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from cnictl.core.cidr import AddressError, parse_address, parse_interface

PROBE_NAMESPACE, PROBE_PREFIX = "cnictl", "cnictl-probe-"
"""How the short-lived pods of cnictl's own tests are called."""

T = TypeVar("T")


class Names(NamedTuple):
    """The names of an attachment."""

    addresses: tuple[str, ...]
    pod: str
    """`namespace/name` as the runtime gave it; empty if it gave none."""
    container: str


def address_in(who: str) -> bytes:
    """Return `who` as a packed address, even if it is written like `10.244.0.12/24`; empty if it is not an address."""
    try:
        if "/" not in who:
            return parse_address(who)
        interface = parse_interface(who)
    except AddressError:
        return b""
    return b"" if interface == interface.network else interface.packed


def named(who: str, candidates: Iterable[T], names: Callable[[T], Names], shortest: int = 1) -> list[T]:
    """Return the candidates that `who` means. The beginning of an id has at least `shortest` characters."""
    listed = [(candidate, names(candidate)) for candidate in candidates]
    packed = address_in(who)
    if packed or not who:
        return [candidate for candidate, own in listed if packed and packed in map(address_in, own.addresses)]
    by: tuple[Callable[[Names], bool], ...] = (
        lambda own: bool(own.pod) and who in (own.pod, own.pod.rpartition("/")[2]),
        lambda own: who == own.container,
        lambda own: len(who) >= shortest and own.container.startswith(who),
    )
    for matches in by:
        matching = [candidate for candidate, own in listed if matches(own)]
        if matching:
            return matching
    return []
