"""Record the echo requests that reach a pod: each sender's token, and the source addresses that the pod sees."""

import contextlib
import select
import socket
import threading
from collections.abc import Iterable

from cnictl.node.spec.node_spec import is_ipv6
from cnictl.probe.icmp import ECHO_REQUEST, any_token, echo_socket, kind_of
from cnictl.probe.pair_reports import SeenRequests
from cnictl.probe.pods import CheckedPod

_BUFFER = 1 << 20
_MOST_SERIES, _MOST_SOURCES = 64, 4
"""The limits of series per sender, and of sources per series. Tokens are not secret: anybody can send more."""
_LOOK = 0.1


class Sightings:
    """The echo requests of some senders that reached a pod."""

    def __init__(self, tokens: Iterable[str] = ()) -> None:
        """`tokens` are the senders' marks, in hexadecimal digits."""
        self._seen: dict[bytes, dict[int, list[str]]] = {bytes.fromhex(token): {} for token in tokens}

    def note(self, message: bytes, ipv6: bool, source: str) -> None:
        """Record an ICMP message if it is a request of one of the senders."""
        marks = any_token(message)
        if marks is None or kind_of(message, ipv6)[0] != ECHO_REQUEST or marks[0] not in self._seen:
            return
        by_series = self._seen[marks[0]]
        if marks[1] in by_series or len(by_series) < _MOST_SERIES:
            sources = by_series.setdefault(marks[1], [])
            if source not in sources and len(sources) < _MOST_SOURCES:
                sources.append(source)

    def listed(self) -> list[SeenRequests]:
        """Return the requests that were recorded."""
        return [
            SeenRequests(token.hex(), number, tuple(sources))
            for token, by_series in self._seen.items()
            for number, sources in by_series.items()
        ]


class Receiver:
    """The sockets of a pod that receive echo requests. They queue requests as soon as they are created."""

    def __init__(self, pod: CheckedPod) -> None:
        self._sockets = [echo_socket(pod.netns, ipv6) for ipv6 in dict.fromkeys(map(is_ipv6, pod.addresses))]
        for receiver in self._sockets:
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._sightings = Sightings()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def listen(self, tokens: Iterable[str]) -> None:
        """Record the requests of these senders, including those that have already arrived."""
        self._sightings = Sightings(tokens)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def seen(self) -> list[SeenRequests]:
        """Stop listening, and return the requests that were recorded."""
        self._stop()
        return self._sightings.listed()

    def close(self) -> None:
        """Stop listening and close the sockets."""
        self._stop()
        for receiver in self._sockets:
            receiver.close()

    def _stop(self) -> None:
        self._ending.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while self._receive() or not self._ending.is_set():
            pass

    def _receive(self) -> bool:
        """Read one message from each socket that has any. Return whether there was one."""
        waiting = select.select(self._sockets, [], [], 0 if self._ending.is_set() else _LOOK)[0]
        for receiver in waiting:
            with contextlib.suppress(BlockingIOError):
                packet, origin = receiver.recvfrom(2048)
                ipv6 = receiver.family == socket.AF_INET6
                message = packet if ipv6 else packet[(packet[0] & 15) * 4 :]
                self._sightings.note(message, ipv6, str(origin[0]).partition("%")[0])
        return bool(waiting)
