"""Run a small Kubernetes API server: it lists, watches and changes Nodes, and has the faults of real servers.

It follows https://kubernetes.io/docs/reference/using-api/api-concepts/: pages with `limit` and `continue`, watches from
a resourceVersion, bookmarks, 410 for a forgotten version, and errors as `Status` objects.

It also runs as a program, for a lab: `python -m tests.kubernetes.server FOLDER --address 127.0.0.1 --port 6443` keeps
its certificates, its Nodes and an administrator's kubeconfig in FOLDER, and may be killed at any time.
"""

import argparse
import base64
import contextlib
import copy
import json
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.kubernetes.authority import Authority, make_authority
from tests.kubernetes.handler import Handler
from tests.kubernetes.objects import ADMIN, NODES, SYSTEM, Object, node, status


@dataclass
class Refusal:
    """A wrong answer to the next `times` requests of its kind."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1
    watches: bool = False
    """True: for watches. False: for all other requests."""
    body: bytes | None = None
    """None: the body is a Status."""


class ApiServer:
    """The server. Tests control it through its methods and public attributes."""

    def __init__(self, authority: Authority | None = None, address: str = "127.0.0.1", port: int = 0) -> None:
        """Store the server's settings. Without an authority, it serves plain HTTP."""
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
        """The rights of each token, such as `list nodes` or `get configmaps/kubeadm-config`. ADMIN has all rights."""
        self.refusals: list[Refusal] = []
        self.silent = False
        """Whether watches send nothing."""
        self.deaf = False
        """Whether requests get no answer."""
        self.bookmarks_every = 60.0
        self.requests: list[tuple[str, dict[str, str]]] = []
        """Path and query of each request so far."""
        self.watches: set[Handler] = set()
        self.saved: Path | None = None
        """The file that keeps Nodes for the next process."""
        self.connections = 0
        """The number of open connections."""
        self._pages: dict[str, tuple[int, list[Object]]] = {}
        self._http: ThreadingHTTPServer | None = None

    # -- running

    def start(self) -> None:
        """Listen. The kernel chooses a port for port 0, and the server keeps that port when it is started again."""
        outer = self

        class Http(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            allow_reuse_address = True
            address_family = socket.AF_INET6 if ":" in outer.address else socket.AF_INET

            def finish_request(self, request: Any, client_address: Any) -> None:
                if outer.authority is not None:  # in the connection's own thread, so that a slow client delays no other
                    request = outer.authority.context().wrap_socket(request, server_side=True)
                outer.count(1)
                try:
                    Handler(request, client_address, self, outer)
                finally:
                    outer.count(-1)

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Ignore a client that has disconnected."""

        self._http = Http((self.address, self.port), BaseHTTPRequestHandler)  # `finish_request` creates the handler
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
        """The server's URL."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{'https' if self.authority else 'http'}://{host}:{self.port}"

    def kubeconfig(self, path: Path, token: str = ADMIN, **cluster: Any) -> Path:
        """Write a kubeconfig that no other user may access. `cluster` replaces settings of the cluster.

        With an empty token, the kubeconfig has the administrator's certificate.
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

    # -- objects

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
        """Close all watches in the middle of their streams."""
        for watch in list(self.watches):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(watch.connection, socket.SHUT_RDWR)

    def forget(self) -> None:
        """Forget all events so far, as a compaction does: older watches and pages get 410."""
        with self.news:
            self.forgotten = self.version
            self.events.clear()
            self._pages.clear()

    def send(self, event: Object | bytes) -> None:
        """Send an event or bytes to all watches."""
        data = event if isinstance(event, bytes) else json.dumps(event).encode()
        for watch in list(self.watches):
            with contextlib.suppress(OSError):
                watch.chunk(data + b"\n")

    def bookmark(self) -> None:
        """Send a bookmark to the watches that asked for them."""
        for watch in list(self.watches):
            watch.bookmark_due = True

    def requests_of(self, watches: bool) -> list[dict[str, str]]:
        """Return the queries so far of the watches of Nodes, or of the lists."""
        return [query for path, query in self.requests if path == NODES and ("watch" in query) == watches]

    def count(self, more: int) -> None:
        """Count a connection that begins or ends."""
        with self.news:
            self.connections += more

    # -- lists

    def page(self, query: dict[str, str]) -> tuple[int, Object]:
        """Return the HTTP status of a list request, and one page of Nodes."""
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


def main() -> None:
    """Serve until the process ends."""
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
        server.forgotten = server.version  # events are not saved, so earlier watches must start again
    for text in options.node:
        name, pod_cidr, address = text.split("=")
        server.put(node(name, [pod_cidr], [address]))
    server.start()
    print(server.kubeconfig(options.folder / "kubeconfig"), flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
