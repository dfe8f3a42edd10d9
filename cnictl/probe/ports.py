"""Try TCP and UDP in addition to the pings of `test-connectivity`: a filter may pass pings and drop everything else.

On this node cnictl itself listens, so only an answer counts as success. On another host a closed port also counts: the
host answers with a reset (TCP) or port unreachable (UDP). Only silence, or the ICMP error of a packet filter, is a
fault. Sources: RFC 9293 (3.10.7.1), RFC 1122 (4.1.3.1).
"""

import contextlib
import errno
import selectors
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cnictl.node.spec.node_spec import is_ipv6
from cnictl.probe import error_queue
from cnictl.probe.netns_thread import inside

TCP, UDP = "tcp", "udp"
PROTOCOLS = (TCP, UDP)
PASSES, REFUSED, SILENT, UNTRIED = "passes", "refused", "silent", "not tried"
SERVED_PORT = 46837
"""The port on which `test-connectivity --serve` listens. IANA has no other use registered for it."""

_TOKEN = b"cnictl-probe"
_AGAIN = 0.2
"""Seconds until a datagram is repeated."""


@dataclass(eq=False)
class Attempt:
    """A TCP connection, or a datagram and its answer, from the network namespace at path `netns` to an address."""

    protocol: str
    netns: str
    to: str
    port: int = SERVED_PORT
    listening: bool = False
    """Whether our own listener is at the address. Then only its answer counts."""
    state: str = UNTRIED
    words: str = ""
    """What happened instead of an answer."""
    asking: socket.socket | None = None
    sent_at: float = 0.0

    def send(self) -> None:
        """Start the connection or send the datagram; a second call sends it again."""
        if self.asking is None:
            self.asking = inside(self.netns, lambda: _socket(self.protocol, self.to))
            error_queue.ask_for_errors(self.asking)
        self.sent_at = time.monotonic()
        try:
            if self.protocol == TCP:
                number = self.asking.connect_ex((self.to, self.port))
                if number not in (0, errno.EINPROGRESS, errno.EALREADY):
                    self._failed(number)
            else:
                self.asking.connect((self.to, self.port))
                self.asking.send(_TOKEN)
        except OSError as error:
            self._failed(error.errno or 0)

    def read(self) -> None:
        """Read what arrived and update `state`."""
        assert self.asking is not None
        try:
            if self.protocol == TCP:
                number = self.asking.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if number == 0:
                    self.asking.getpeername()  # raises ENOTCONN until it is connected
                    self.state = PASSES
                else:
                    self._failed(number)
            elif self.asking.recv(64):
                self.state = PASSES
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                self._failed(error.errno or 0)

    def _failed(self, number: int) -> None:
        refusal = error_queue.reported(self.asking) if self.asking is not None else None
        no_port = refusal is not None and refusal.no_port and refusal.by == self.to
        closed = number == errno.ECONNREFUSED and (refusal is None or no_port)
        if closed and not self.listening and (self.protocol == UDP or refusal is None):
            self.state = PASSES
            return
        self.state = REFUSED
        if refusal is None:
            self.words = "connection refused" if number == errno.ECONNREFUSED else _strerror(number)
        else:
            self.words = f"{refusal.by} answers: {refusal.words}"


def _strerror(number: int) -> str:
    return OSError(number, "").strerror or errno.errorcode.get(number, str(number))


def _socket(protocol: str, address: str) -> socket.socket:
    family = socket.AF_INET6 if is_ipv6(address) else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == TCP else socket.SOCK_DGRAM
    return socket.socket(family, kind | socket.SOCK_NONBLOCK)


class Listener:
    """A TCP and a UDP socket at one address, in the namespace at path `netns`, that answer requests."""

    def __init__(self, netns: str, address: str, port: int = 0) -> None:
        """Listen at `address`; 0 picks a free port. Raises OSError if the address is missing or the port is taken."""
        self.tcp = inside(netns, lambda: _socket(TCP, address))
        self.udp = inside(netns, lambda: _socket(UDP, address))
        try:
            self.tcp.bind((address, port))
            self.tcp.listen(16)
            self.port: int = self.tcp.getsockname()[1]
            self.udp.bind((address, self.port))
        except OSError:
            self.close()
            raise

    def answer(self, receiver: socket.socket) -> str:
        """Answer the request that waits on one of the two sockets; return its sender."""
        with contextlib.suppress(OSError):
            if receiver is self.tcp:
                connection, origin = self.tcp.accept()
                connection.close()
            else:
                _, origin = self.udp.recvfrom(64)
                self.udp.sendto(_TOKEN, origin)
            return str(origin[0])
        return ""

    def close(self) -> None:
        """Stop listening."""
        self.tcp.close()
        self.udp.close()


def listen(netns: str, address: str) -> Listener | None:
    """Return a listener on any free port; None if listening fails."""
    with contextlib.suppress(OSError):
        return Listener(netns, address)
    return None


class AttemptThread:
    """Runs attempts in a separate thread while the pings run."""

    def __init__(self, attempts: Sequence[Attempt], listeners: Iterable[Listener], timeout: float) -> None:
        self._attempts, self._listeners, self._timeout = attempts, list(listeners), timeout
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait for the last attempt, and close every socket."""
        self._thread.join()
        for attempt in self._attempts:
            if attempt.asking is not None:
                attempt.asking.close()
        for listener in self._listeners:
            listener.close()

    def _run(self) -> None:
        deadline = time.monotonic() + self._timeout
        for attempt in self._attempts:
            attempt.send()
        with selectors.DefaultSelector() as selector:
            self._register(selector)
            while (waiting := [attempt for attempt in self._attempts if attempt.state == UNTRIED]) and (
                left := deadline - time.monotonic()
            ) > 0:
                self._take_events(selector, min(left, _AGAIN))
                for attempt in waiting:
                    if (
                        attempt.protocol == UDP
                        and attempt.state == UNTRIED
                        and time.monotonic() - attempt.sent_at >= _AGAIN
                    ):
                        attempt.send()
        for attempt in self._attempts:
            if attempt.state == UNTRIED:
                attempt.state, attempt.words = SILENT, "no answer"

    def _register(self, selector: selectors.BaseSelector) -> None:
        for listener in self._listeners:
            for endpoint in (listener.tcp, listener.udp):
                selector.register(endpoint, selectors.EVENT_READ, listener)
        for attempt in self._attempts:
            if attempt.state == UNTRIED and attempt.asking is not None:
                wanted = selectors.EVENT_WRITE if attempt.protocol == TCP else selectors.EVENT_READ
                selector.register(attempt.asking, wanted, attempt)

    @staticmethod
    def _take_events(selector: selectors.BaseSelector, timeout: float) -> None:
        for key, _ in selector.select(timeout):
            if isinstance(key.data, Attempt):
                key.data.read()
                if key.data.state != UNTRIED:
                    selector.unregister(key.fileobj)
            elif isinstance(key.fileobj, socket.socket):
                key.data.answer(key.fileobj)
