"""A small Kubernetes API server: Nodes that are listed, watched and changed, and the faults that real servers have.

Written after https://kubernetes.io/docs/reference/using-api/api-concepts/: pages with `limit` and `continue`, watches
from a resourceVersion, bookmarks, 410 for what is forgotten, and errors as `Status` objects.

It also runs as a program, for a lab: `python -m tests.kubernetes.server FOLDER --address 127.0.0.1 --port 6443` keeps
its certificates, its Nodes and an administrator's kubeconfig in FOLDER, and may be killed at any time.
"""

import argparse
import base64
import contextlib
import copy
import json
import select
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Object = dict[str, Any]

NODES = "/api/v1/nodes"
SYSTEM = "/api/v1/namespaces/kube-system"
ADMIN = "admin-token"
"""A token with all rights."""


@dataclass(frozen=True)
class Authority:
    """A certificate authority, and the certificates of a server and of an administrator that it signed."""

    folder: Path

    @property
    def certificate(self) -> Path:
        """Of the authority."""
        return self.folder / "ca.crt"

    def context(self) -> ssl.SSLContext:
        """Return the server's side of TLS, which takes clients' certificates."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.crt", self.folder / "server.key")
        context.load_verify_locations(self.certificate)
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def base64(self, name: str) -> str:
        """Return a file as kubeconfigs hold it."""
        return base64.b64encode((self.folder / name).read_bytes()).decode()


def make_authority(folder: Path, *addresses: str) -> Authority:
    """Make an authority with openssl, and a certificate for a server at some addresses; once for each folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "client.crt").exists():
        return Authority(folder)
    names = ",".join(["DNS:localhost", "DNS:kubernetes", *(f"IP:{address}" for address in addresses)])
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"]
    openssl = ["openssl", "req", "-x509", *key]
    signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-addext", f"subjectAltName={names}"]
    not_ca = ["-addext", "basicConstraints=critical,CA:FALSE"]
    for command in (
        [*openssl, "-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.crt"],
        [*openssl, "-subj", "/CN=kubernetes", "-keyout", "server.key", "-out", "server.crt", *signed, *not_ca],
        [*openssl, "-subj", "/CN=admin", "-keyout", "client.key", "-out", "client.crt", *signed[:4], *not_ca],
    ):
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=30)
    return Authority(folder)


def node(name: str, pod_cidrs: list[str], addresses: list[str], rest: int = 0) -> Object:
    """Return a Node as kubelet registers it. With `rest` it lists that many images, as Nodes of real clusters do."""
    images = [
        {"names": [f"registry.example/{name}/image-{at}@sha256:{at:064x}", f"image:{at}"], "sizeBytes": at << 20}
        for at in range(rest)
    ]
    listed = [{"type": "Hostname", "address": name}, {"type": "ExternalIP", "address": "203.0.113.9"}]
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {"podCIDR": pod_cidrs[0], "podCIDRs": pod_cidrs} if pod_cidrs else {},
        "status": {
            "addresses": [*listed, *({"type": "InternalIP", "address": address} for address in addresses)],
            "images": images,
        },
    }


@dataclass
class Refusal:
    """An answer in place of the right one, for the next `times` requests that `matches`."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1
    watches: bool = False
    """Whether it is about watches, or else about all other requests."""
    body: bytes | None = None
    """None: a Status."""


class ApiServer:
    """The server. What tests make it do are its methods and plain attributes."""

    def __init__(self, authority: Authority | None = None, address: str = "127.0.0.1", port: int = 0) -> None:
        """Without an authority it speaks plain HTTP."""
        self.authority = authority
        self.address = address
        self.port = port
        self.news = threading.Condition()
        self.version = 1000
        self.forgotten = 0
        """Versions up to this one are too old to watch from."""
        self.nodes: dict[str, Object] = {}
        self.events: list[tuple[int, str, Object]] = []
        self.objects: dict[str, Object] = {}
        """Other objects by their path."""
        self.tokens: dict[str, frozenset[str]] = {}
        """What a token may do: `list nodes`, `get configmaps/kubeadm-config`. ADMIN may all."""
        self.refusals: list[Refusal] = []
        self.silent = False
        """Whether watches send nothing."""
        self.deaf = False
        """Whether requests get no answer at all."""
        self.bookmarks_every = 60.0
        self.requests: list[tuple[str, dict[str, str]]] = []
        """Path and query of each request so far."""
        self.watches: set[_Handler] = set()
        self.saved: Path | None = None
        """Where Nodes are kept for the next process."""
        self.connections = 0
        """How many are open."""
        self._pages: dict[str, tuple[int, list[Object]]] = {}
        self._http: ThreadingHTTPServer | None = None

    # -- running

    def start(self) -> None:
        """Listen; a port of 0 becomes the one that the kernel chose, and stays when the server is started again."""
        outer = self

        class Http(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            allow_reuse_address = True
            address_family = socket.AF_INET6 if ":" in outer.address else socket.AF_INET

            def finish_request(self, request: Any, client_address: Any) -> None:
                if outer.authority is not None:  # in the connection's own thread: a slow client holds up nobody
                    request = outer.authority.context().wrap_socket(request, server_side=True)
                outer.count(1)
                try:
                    _Handler(request, client_address, self, outer)
                finally:
                    outer.count(-1)

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that went away is none of the server's business."""

        self._http = Http((self.address, self.port), BaseHTTPRequestHandler)  # `finish_request` makes the handler
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Stop listening and break all watches, as when the process is killed."""
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None
        self.cut()

    @property
    def url(self) -> str:
        """Where it is reached."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{'https' if self.authority else 'http'}://{host}:{self.port}"

    def kubeconfig(self, path: Path, token: str = ADMIN, **cluster: Any) -> Path:
        """Write a kubeconfig that is the caller's alone. `cluster` replaces settings of the cluster.

        An empty token stands for the administrator's certificate.
        """
        settings = {"server": self.url}
        if self.authority is not None:
            settings["certificate-authority-data"] = self.authority.base64("ca.crt")
        user = {"token": token}
        if self.authority is not None and not token:
            data = {"certificate": self.authority.base64("client.crt"), "key": self.authority.base64("client.key")}
            user = {f"client-{name}-data": text for name, text in data.items()}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": settings | cluster}],
            "users": [{"name": "test", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }
        path.touch(0o600)
        path.write_text(json.dumps(document))
        return path

    # -- what it holds

    def put(self, made: Object) -> Object:
        """Create or replace a Node."""
        with self.news:
            name = made["metadata"]["name"]
            kind = "MODIFIED" if name in self.nodes else "ADDED"
            self.nodes[name] = made
            self._happened(kind, made)
            return made

    def delete(self, name: str) -> Object:
        """Delete a Node."""
        with self.news:
            gone = self.nodes.pop(name)
            self._happened("DELETED", gone)
            return gone

    def _happened(self, kind: str, made: Object) -> None:
        self.version += 1
        made["metadata"]["resourceVersion"] = str(self.version)
        self.events.append((self.version, kind, copy.deepcopy(made)))
        if self.saved is not None:
            new = self.saved.with_suffix(".new")
            new.write_text(json.dumps({"version": self.version, "nodes": self.nodes}))
            new.replace(self.saved)
        self.news.notify_all()

    def config_map(self, name: str, **data: str) -> None:
        """Create a ConfigMap in kube-system."""
        self.objects[f"{SYSTEM}/configmaps/{name}"] = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": "kube-system"},
            "data": data,
        }

    def secret(self, name: str, **data: bytes) -> None:
        """Create a Secret in kube-system."""
        self.objects[f"{SYSTEM}/secrets/{name}"] = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": "kube-system"},
            "type": "kubernetes.io/service-account-token",
            "data": {key.replace("_", "."): base64.b64encode(value).decode() for key, value in data.items()},
        }

    # -- faults

    def cut(self) -> None:
        """Break all watches in the middle."""
        for watch in list(self.watches):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(watch.connection, socket.SHUT_RDWR)

    def forget(self) -> None:
        """Forget all that happened so far (compaction): watches from before get 410, pages too."""
        with self.news:
            self.forgotten = self.version
            self.events.clear()
            self._pages.clear()

    def send(self, event: Object | bytes) -> None:
        """Send something to all watches."""
        data = event if isinstance(event, bytes) else json.dumps(event).encode()
        for watch in list(self.watches):
            with contextlib.suppress(OSError):
                watch.chunk(data + b"\n")

    def bookmark(self) -> None:
        """Send a bookmark to the watches that asked for them."""
        for watch in list(self.watches):
            watch.bookmark_due = True

    def requests_of(self, watches: bool) -> list[dict[str, str]]:
        """Return the queries of the watches, or of the lists, of Nodes so far."""
        return [query for path, query in self.requests if path == NODES and ("watch" in query) == watches]

    def count(self, more: int) -> None:
        """Count a connection that begins or ends."""
        with self.news:
            self.connections += more

    # -- lists

    def page(self, query: dict[str, str]) -> tuple[int, Object]:
        """Return one page of Nodes and its status."""
        with self.news:
            limit, token = int(query.get("limit", 0)), query.get("continue", "")
            if token:
                if token not in self._pages:
                    return 410, status(410, "Expired", "The provided continue parameter is too old")
                version, left = self._pages[token]
            else:
                version, left = self.version, [copy.copy(self.nodes[name]) for name in sorted(self.nodes)]
            page, left = (left[:limit], left[limit:]) if limit else (left, [])
            metadata: Object = {"resourceVersion": str(version)}
            if left:
                metadata["continue"] = f"page-{version}-{left[0]['metadata']['name']}"
                metadata["remainingItemCount"] = len(left)
                self._pages[metadata["continue"]] = (version, left)
        return 200, {"kind": "NodeList", "apiVersion": "v1", "metadata": metadata, "items": page}


def status(code: int, reason: str, message: str) -> Object:
    """Return a Status, as every error is."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def __init__(self, request: Any, client_address: Any, http: Any, api: ApiServer) -> None:
        self.api = api
        self.bookmarks = False
        self.bookmark_due = False
        self.seen = 0
        self._writing = threading.Lock()
        super().__init__(request, client_address, http)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

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
        found = self.api.nodes.get(name) if name != path else self.api.objects.get(path)
        if found is None:
            self._answer(404, status(404, "NotFound", f'"{path.rpartition("/")[2]}" not found'))
        else:
            self._answer(200, {"kind": "Node", "apiVersion": "v1", **found})

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

    # -- what precedes an answer

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
        if self.seen < self.api.forgotten:  # newer servers say so in the stream; `Refusal` gives the status
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
        """Send one piece of a stream; an empty one ends it."""
        with self._writing:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=6443)
    parser.add_argument("--node", action="append", default=[], help="NAME=POD-CIDR=ADDRESS")
    options = parser.parse_args()
    server = ApiServer(make_authority(options.folder, options.address), options.address, options.port)
    server.saved = options.folder / "nodes.json"
    if server.saved.exists():
        state = json.loads(server.saved.read_text())
        server.nodes, server.version = state["nodes"], state["version"] + 1
        server.forgotten = server.version  # what happened is not kept: watches from before begin anew
    for text in options.node:
        name, pod_cidr, address = text.split("=")
        server.put(node(name, [pod_cidr], [address]))
    server.start()
    print(server.kubeconfig(options.folder / "kubeconfig"), flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
