"""An HTTP transport for lightkube that is bounded in size and time, and can be closed from another thread.

lightkube's `watch` asks for no bookmarks, never times out, and reconnects whenever the server ends it. This transport
changes that without touching lightkube's internals.
"""

import contextlib
import math
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2

LARGEST_PAGE = 64 << 20
"""Bytes of one answer. A page of 250 Nodes that list their images has about 5 MiB."""
LARGEST_EVENT = 4 << 20
"""Bytes of one line of a watch. etcd refuses objects above 1.5 MiB."""
_RETRIES = 3
_LONGEST_WAIT = 10.0
_BUSY = (429, 503)
"""Statuses that may come with Retry-After."""


class TooLarge(httpx2.RemoteProtocolError):
    """An answer or event is longer than the limit, or its length can't be known."""


class WatchEnded(httpx2.ReadError):
    """The server ended a watch as planned, after `timeoutSeconds`."""


class Transport(httpx2.HTTPTransport):
    """Connections to one API server."""

    def __init__(self, verify: ssl.SSLContext, silence: float, server_name: str) -> None:
        """`silence`: seconds after which a watch counts as dead. `server_name`: the name in the certificate, if set."""
        super().__init__(verify=verify, trust_env=False)
        self._silence = silence
        self._server_name = server_name
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self.ended = threading.Event()
        self.deadline = math.inf
        """The time, on the monotonic clock, by which answers other than watches have to be complete."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request. If the server is busy and names a Retry-After, wait and try again, at most until `end`."""
        watches = request.url.params.get("watch") == "true"
        request.headers["Accept-Encoding"] = "identity"  # a compressed answer's size is not known before it is read
        request.extensions = {**request.extensions, "trace": self._trace}
        if self._server_name:
            request.extensions["sni_hostname"] = self._server_name
        if watches:
            request.url = request.url.copy_merge_params({"allowWatchBookmarks": "true"})
            request.extensions["timeout"] = {**request.extensions["timeout"], "read": self._silence}
        for _ in range(_RETRIES):
            response = self._send(request, watches)
            delay = _retry_after(response) if response.status_code in _BUSY else None
            if delay is None:
                break
            response.close()
            self.ended.wait(delay)
        else:
            response = self._send(request, watches)
        return response

    def _send(self, request: httpx2.Request, watches: bool) -> httpx2.Response:
        if self.ended.is_set():
            raise WatchEnded("closed")
        response = super().handle_request(request)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise TooLarge("the answer is compressed, although the request forbids that")
        if not response.is_success:
            # lightkube reads an error's JSON body as a Status, and needs it to have a content type
            response.headers["Content-Type"] = "text/plain"
        assert isinstance(response.stream, httpx2.SyncByteStream)
        bounded = _Watched(response.stream) if watches and response.is_success else _Page(response.stream, self)
        response.stream = bounded
        return response

    def end(self) -> None:
        """End all requests, including those that wait for an answer; called from any thread."""
        self.ended.set()
        with self._lock:
            for connection in self._sockets:
                with contextlib.suppress(OSError):
                    # the plain socket's own method: the TLS socket's would change state that the reading thread uses
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def _trace(self, event: str, info: dict[str, Any]) -> None:
        """Note the socket of each new connection. httpcore calls this at each step of a request."""
        if event not in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            return
        with self._lock:
            self._sockets = [info["return_value"].get_extra_info("socket"), *self._sockets][:4]
        if self.ended.is_set():
            raise WatchEnded("closed")


class _Watched(httpx2.SyncByteStream):
    """The lines of a watch, each of bounded length."""

    def __init__(self, stream: httpx2.SyncByteStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        length = 0
        try:
            for piece in self._stream:
                line_end = piece.rfind(b"\n")
                length = length + len(piece) if line_end < 0 else len(piece) - line_end - 1
                if length > LARGEST_EVENT:
                    raise TooLarge(f"an event has more than {LARGEST_EVENT >> 20} MiB")
                yield piece
        finally:
            self.close()  # lightkube never closes a watch, so each would keep a connection of the pool
        raise WatchEnded("the server ended the watch")

    def close(self) -> None:
        self._stream.close()


class _Page(httpx2.SyncByteStream):
    """An answer of bounded size that has to arrive by the transport's deadline."""

    def __init__(self, stream: httpx2.SyncByteStream, transport: Transport) -> None:
        self._stream = stream
        self._transport = transport

    def __iter__(self) -> Iterator[bytes]:
        left = LARGEST_PAGE
        for piece in self._stream:
            left -= len(piece)
            if left < 0:
                raise TooLarge(f"an answer has more than {LARGEST_PAGE >> 20} MiB")
            if time.monotonic() > self._transport.deadline:
                raise httpx2.ReadTimeout("the answer took too long")
            yield piece

    def close(self) -> None:
        self._stream.close()


def _retry_after(response: httpx2.Response) -> float | None:
    """Return the seconds to wait before the next try; None if the server names none."""
    text = response.headers.get("Retry-After", "")
    return min(float(text[:6]), _LONGEST_WAIT) if text.isascii() and text.isdigit() else None
