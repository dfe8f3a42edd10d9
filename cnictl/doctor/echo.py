"""Echo requests of doctor's own: of any size, not to be cut up on the way, many at once."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cnictl.core.errors import Problem
from cnictl.core.process import run
from cnictl.node.host import firewall
from cnictl.node.spec.node_spec import is_ipv6

HEADERS = {False: 28, True: 48}
"""Bytes of IP and ICMP before an echo's payload, by whether it is IPv6's."""
_SMALL = 56
_AT_ONCE = 64
"""A silent host costs a second and a half; a cluster has many."""

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


def answers(address: str, source: str = "", payload: int = _SMALL) -> bool:
    """Whether an echo of that many bytes, not to be cut up on the way, is answered; once more if not."""
    if not firewall.has_command("ping"):
        raise Problem("there is no ping here", "install iputils-ping")
    argv = ["ping", "-n", "-q", "-c2", "-i0.2", "-W1", "-M", "do", "-s", str(payload)]
    return run([*argv, *(["-I", source] if source else []), address], check=False).status == 0


def largest(address: str, mtu: int) -> int:
    """The largest packet in bytes, up to `mtu`, that a host which answers a small one answers; found by halves."""
    header = HEADERS[is_ipv6(address)]
    if answers(address, "", mtu - header):
        return mtu
    low, high = _SMALL + header, mtu
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if answers(address, "", middle - header) else (low, middle)
    return low


def at_once(ask: Callable[[Asked], Answer], about: Iterable[Asked]) -> list[tuple[Asked, Answer]]:
    """What `ask` says about each, side by side."""
    questions = list(about)
    if not questions:
        return []
    with ThreadPoolExecutor(min(len(questions), _AT_ONCE)) as pool:
        return list(zip(questions, pool.map(ask, questions), strict=True))
