"""Serve one connection to the API server of the tests: requests, the rights that they need, and watches."""

import json
import select
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from tests.kubernetes.objects import ADMIN, NODES, SYSTEM, Object, status

if TYPE_CHECKING:
    from tests.kubernetes.server import ApiServer


class Handler(BaseHTTPRequestHandler):
    """Answer the requests of one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def __init__(self, request: Any, client_address: Any, http: Any, api: "ApiServer") -> None:
        self.api = api
        self.bookmarks = False
        self.bookmark_due = False
        self.seen = 0
        self._writing = threading.Lock()
        super().__init__(request, client_address, http)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""

    # -- verbs

    def do_GET(self) -> None:
        path, query = self._begun()
        if self._refused(path, "watch" if query.get("watch") == "true" else ""):
            return
        if path == NODES:
            if query.get("watch") == "true":
                self._watch(query)
            else:
                self._answer(*self.api.page(query))
            return
        name = path.removeprefix(f"{NODES}/")
        stored = self.api.nodes.get(name) if name != path else self.api.objects.get(path)
        if stored is None:
            self._answer(404, status(404, "NotFound", f'"{path.rpartition("/")[2]}" not found'))
        else:
            self._answer(200, {"kind": "Node", "apiVersion": "v1", **stored})

    def do_POST(self) -> None:
        self._change(lambda name, made: 409 if name in self.api.nodes else self.api.put(made))

    def do_PUT(self) -> None:
        self._change(lambda name, made: 404 if name not in self.api.nodes else self.api.put(made))

    def do_DELETE(self) -> None:
        self._change(lambda name, _: 404 if name not in self.api.nodes else self.api.delete(name))

    def _change(self, change: Callable[[str, Object], Object | int]) -> None:
        path, _ = self._begun()
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length)) if length else {}
        if self._refused(path, ""):
            return
        name = body.get("metadata", {}).get("name") or path.removeprefix(f"{NODES}/").removesuffix("/status")
        if not path.startswith(NODES):
            self._answer(404, status(404, "NotFound", "the server could not find the requested resource"))
            return
        made = change(name, body)
        if isinstance(made, int):
            self._answer(made, status(made, "AlreadyExists" if made == 409 else "NotFound", f'nodes "{name}"'))
        else:
            self._answer(201 if self.command == "POST" else 200, {"kind": "Node", "apiVersion": "v1", **made})

    # -- before an answer

    def _begun(self) -> tuple[str, dict[str, str]]:
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        self.api.requests.append((url.path, query))
        while self.api.deaf:
            time.sleep(0.02)
        return url.path, query

    def _refused(self, path: str, verb: str) -> bool:
        with self.api.news:
            for refusal in self.api.refusals:
                if refusal.times and refusal.watches == (verb == "watch"):
                    refusal.times -= 1
                    body = refusal.body
                    if body is None:
                        body = json.dumps(status(refusal.status, "Refused", f"refused with {refusal.status}")).encode()
                    self._send(refusal.status, body, {"Content-Type": "application/json"} | refusal.headers)
                    return True
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token == ADMIN or (isinstance(self.connection, ssl.SSLSocket) and self.connection.getpeercert()):
            return False
        if token not in self.api.tokens:
            self._answer(401, status(401, "Unauthorized", "Unauthorized"))
            return True
        parts = path.removeprefix(SYSTEM).removeprefix("/api/v1").strip("/").split("/")
        verb = verb or ("get" if len(parts) > 1 else "list") if self.command == "GET" else self.command.lower()
        if {f"{verb} {parts[0]}", f"{verb} {'/'.join(parts)}"} & self.api.tokens[token]:
            return False
        account = "system:serviceaccount:kube-system:cnictl"
        self._answer(403, status(403, "Forbidden", f'User "{account}" cannot {verb} resource "{parts[0]}"'))
        return True

    def _answer(self, code: int, body: Object) -> None:
        self._send(code, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _send(self, code: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    # -- watches

    def _watch(self, query: dict[str, str]) -> None:
        self.seen = int(query.get("resourceVersion") or self.api.version)
        self.bookmarks = query.get("allowWatchBookmarks") == "true"
        ends = time.monotonic() + float(query.get("timeoutSeconds", 1800))
        if self.seen < self.api.forgotten:  # newer servers report this in the stream; `Refusal` returns it as a status
            self._headers()
            self.chunk(json.dumps(self._expired()).encode() + b"\n")
            self.chunk(b"")
            return
        self._headers()
        self.api.watches.add(self)
        try:
            for event in self._events(ends):
                self.chunk(json.dumps(event).encode() + b"\n")
            self.chunk(b"")
        except OSError:
            self.close_connection = True
        finally:
            self.api.watches.discard(self)

    def _events(self, ends: float) -> Iterator[Object]:
        bookmark_at = time.monotonic() + self.api.bookmarks_every
        while time.monotonic() < ends:
            if select.select([self.connection], [], [], 0)[0]:
                raise ConnectionResetError("the client is gone")
            with self.api.news:
                self.api.news.wait(0.02)
                version = self.api.version
                silent = self.api.silent
                new = [] if silent else [event for event in self.api.events if event[0] > self.seen]
            for seen, kind, made in new:
                self.seen = seen
                yield {"type": kind, "object": {"kind": "Node", "apiVersion": "v1", **made}}
            if self.bookmark_due or time.monotonic() > bookmark_at:
                bookmark_at = time.monotonic() + self.api.bookmarks_every
                if self.bookmarks and not silent:
                    self.seen = version
                    metadata = {"resourceVersion": str(version), "creationTimestamp": None}
                    empty = {"kind": "Node", "apiVersion": "v1", "metadata": metadata, "spec": {}, "status": {}}
                    yield {"type": "BOOKMARK", "object": empty}
                self.bookmark_due = False

    def _expired(self) -> Object:
        message = f"too old resource version: {self.seen} ({self.api.forgotten})"
        return {"type": "ERROR", "object": status(410, "Expired", message)}

    def _headers(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()

    def chunk(self, data: bytes) -> None:
        """Send one piece of a stream. An empty piece ends the stream."""
        with self._writing:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()
