"""Send unfragmented echo requests of any size to many hosts at the same time."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cnictl.core.errors import Problem
from cnictl.core.process import run
from cnictl.node.host import firewall
from cnictl.node.spec.node_spec import is_ipv6

HEADERS = {False: 28, True: 48}
"""The bytes of the IP and ICMP headers, by whether the family is IPv6."""
_SMALL = 56
_AT_ONCE = 64
"""Hosts to ask at the same time. A silent host takes 1.5 seconds."""

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


def answers(address: str, source: str = "", payload: int = _SMALL) -> bool:
    """Return whether one of two echo requests of that many bytes, which must not be fragmented, is answered."""
    if not firewall.has_command("ping"):
        raise Problem("ping is not installed", "install iputils-ping")
    argv = ["ping", "-n", "-q", "-c2", "-i0.2", "-W1", "-M", "do", "-s", str(payload)]
    return run([*argv, *(["-I", source] if source else []), address], check=False).status == 0


def largest(address: str, mtu: int) -> int:
    """Return the size in bytes of the largest packet, up to `mtu`, that a host answers. Small packets must pass."""
    header = HEADERS[is_ipv6(address)]
    if answers(address, "", mtu - header):
        return mtu
    low, high = _SMALL + header, mtu
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if answers(address, "", middle - header) else (low, middle)
    return low


def at_once(ask: Callable[[Asked], Answer], about: Iterable[Asked]) -> list[tuple[Asked, Answer]]:
    """Return each value of `about` with the answer of `ask`, which is called for many of them at the same time."""
    questions = list(about)
    if not questions:
        return []
    with ThreadPoolExecutor(min(len(questions), _AT_ONCE)) as pool:
        return list(zip(questions, pool.map(ask, questions), strict=True))
