"""Ask one Kubernetes API server with one kubeconfig: list and watch Nodes, read objects by name.

Needs lightkube (`pip install cnictl[kubernetes]`).
"""

import base64
import contextlib
import json
import random
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import msgspec
import yaml
from lightkube import ApiError, Client, KubeConfig
from lightkube.config.client_adapter import verify_cluster
from lightkube.config.kubeconfig import SingleConfig
from lightkube.config.models import User
from lightkube.core import resource
from lightkube.core.exceptions import ConfigError, NotReadyError
from lightkube.resources.core_v1 import Node as FullNode
from lightkube.resources.core_v1 import Secret

from cnictl.core import untrusted_text
from cnictl.core.errors import Problem, UsageProblem
from cnictl.node.reach import kubernetes_access as access
from cnictl.node.reach.kubernetes_transport import TooLarge, Transport
from cnictl.node.reach.source import Announcement, SourceLost

_ANSWERS_WITHIN = 10.0
LIST_WITHIN = 120.0
_PAGE = 250
WATCH_FOR = 600
"""Seconds after which the server ends a watch, so that watches are spread over the API servers again."""
MAX_API_NODES = 100_000
_MOST_RELISTS = 3
_MOST_FRUITLESS = 2
"""Consecutive watches without any event after which the source counts as lost."""
_SPREAD = (0.1, 0.5)
"""Seconds before a watch is opened again, doubled each time: a server that restarts ends those of all nodes at once."""
_LONGEST_CIDR = 64
"""Characters of an address or CIDR that are kept."""
_MOST_ADDRESSES = 8


class _Metadata(msgspec.Struct):
    name: str = ""
    resourceVersion: str = ""


class _Spec(msgspec.Struct):
    podCIDR: str | None = None
    podCIDRs: list[str] | None = None


class _Address(msgspec.Struct):
    type: str = ""
    address: str = ""


class _Status(msgspec.Struct):
    addresses: list[_Address] | None = None


class Node(resource.GlobalResource, msgspec.Struct):
    """The parts of a Node that are read. The rest, mostly image names, is skipped unparsed."""

    _api_info = FullNode._api_info
    metadata: _Metadata
    spec: _Spec | None = None
    status: _Status | None = None


class Api:
    """One API server, with one credential."""

    def __init__(self, path: str, silence: float, private: bool = True) -> None:
        """Raises UsageProblem if the kubeconfig at `path` is wrong, or (with `private`) if others may read it.

        `silence`: seconds of silence after which a watch counts as dead.
        """
        self.config, self.server_name = config, server_name = _configuration(path, private)
        renew = f"write a new one on a control-plane node: {access.written_to(path)}"
        self._another = renew if private else access.right_to("secrets")
        """The hint if the credential is refused."""
        self.server = untrusted_text.word(config.cluster.server)
        self.title = f"kubernetes {self.server}"
        """The server as messages name it."""
        try:
            verify = verify_cluster(config.cluster, config.user or User(), config.abs_file, trust_env=False)
            # Python 3.13 began to refuse certificates without an Authority Key Identifier, which many clusters have
            verify.verify_flags &= ~ssl.VERIFY_X509_STRICT
            self._transport = Transport(verify, silence, server_name)
            # trust_env: ignore the proxy and the certificate authority that the caller's environment may name
            self._client = Client(
                config, timeout=httpx2.Timeout(_ANSWERS_WITHIN), trust_env=False, transport=self._transport
            )
        except (OSError, ValueError, ConfigError, httpx2.InvalidURL) as error:
            raise UsageProblem(f"{path}: {untrusted_text.line(str(error), 300)}") from None

    @contextlib.contextmanager
    def reading(self, verb: str, kind: str) -> Iterator[None]:
        """Turn failures of the block's requests into SourceLost; the block must end within two minutes."""
        self._transport.deadline = time.monotonic() + LIST_WITHIN
        try:
            yield
        except httpx2.HTTPStatusError as error:
            raise self._refused(error, verb, kind) from None
        except httpx2.HTTPError as error:
            raise self._silent(error) from None
        except (msgspec.MsgspecError, NotReadyError) as error:
            raise SourceLost(
                f"{self.title} did not answer with {kind}: {access.shown(str(error))}",
                "check `server` in the kubeconfig",
            ) from None
        except (ConfigError, OSError, LookupError, ValueError) as error:
            # a token file is gone, or a program that prints tokens failed
            raise SourceLost(f"{self.title}: the credential can't be used: {access.shown(str(error))}") from None

    def nodes(self) -> tuple[tuple[Announcement, ...], str]:
        """Return all Nodes, and the version of the list."""
        for attempt in range(_MOST_RELISTS):
            listing = self._client.list(Node, chunk_size=_PAGE)
            nodes: dict[str, Announcement] = {}
            try:
                for node in listing:
                    announcement = announced(node)
                    nodes[announcement.name] = announcement
                    if len(nodes) > MAX_API_NODES:
                        raise SourceLost(f"{self.title} has more than {MAX_API_NODES} Nodes")
                return tuple(nodes.values()), listing.resourceVersion
            except httpx2.HTTPStatusError as error:
                # the server no longer has the version that the next page belongs to: begin again
                if _code(error) != 410 or attempt == _MOST_RELISTS - 1:
                    raise
        raise AssertionError("unreachable")

    def get(self, kind: Any, name: str, namespace: str | None = None) -> Any:
        """Return an object by its name; None if there is none."""
        try:
            return self._client.get(kind, name, **({"namespace": namespace} if namespace else {}))
        except httpx2.HTTPStatusError as error:
            if _code(error) == 404:
                return None
            raise

    def follow(self, version: str, note: Callable[[str, Node], None]) -> None:
        """Call `note` for each event after `version`, until it raises SourceLost.

        If a watch ends, breaks or falls silent, a new one continues from the last version seen, bookmarks included.
        """
        fruitless = 0
        while True:
            try:
                with self.reading("watch", "nodes"):
                    for kind, node in self._client.watch(Node, resource_version=version, server_timeout=WATCH_FOR):
                        fruitless = 0
                        version = node.metadata.resourceVersion or version
                        note(kind, node)
            except _Interrupted as interrupted:
                fruitless += 1
                if fruitless > _MOST_FRUITLESS:
                    raise SourceLost(interrupted.message, interrupted.hint) from None
            if fruitless:
                self._transport.ended.wait(random.uniform(*_SPREAD) * 2**fruitless)

    def end(self) -> None:
        """End all requests; called from any thread."""
        self._transport.end()

    def _refused(self, error: httpx2.HTTPStatusError, verb: str, kind: str) -> SourceLost:
        code, message = _code(error), _message_of(error)
        if code == 410:
            return SourceLost(
                f"{self.title} no longer knows the version that the watch was at: {message}", "list it again"
            )
        if code == 401:
            return SourceLost(
                f"{self.title} refuses the credential: {message}",
                self._another,
            )
        if code == 403:
            return SourceLost(
                f"{self.title} refuses to {verb} {kind}: {message}",
                access.right_to(kind),
            )
        return SourceLost(f"{self.title} answers {code}: {message}")

    def _silent(self, error: httpx2.HTTPError) -> SourceLost:
        message = access.shown(str(error)) or type(error).__name__
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            return SourceLost(f"{self.title} can't be reached: {message}")
        if isinstance(error, TooLarge):
            return SourceLost(f"{self.title}: {message}")
        return _Interrupted(f"{self.title} does not answer: {message}")


class _Interrupted(SourceLost):
    """An established connection has ended: a new one may continue."""


def token_credential(admin: str, server: str = "", wait: float = 10.0) -> access.NodeCredential:
    """Fetch the ServiceAccount's credential with the administrator's kubeconfig at `admin`.

    `server` replaces the server's address in that kubeconfig. A new Secret gets its token a moment later, so this waits
    up to `wait` seconds for it. Raises SourceLost, UsageProblem, or Problem if there is no token.
    """
    api = Api(admin, silence=0, private=False)
    until = time.monotonic() + wait
    while True:
        with api.reading("get", "secrets"):
            secret = api.get(Secret, access.ACCOUNT, access.NAMESPACE)
        name = f"Secret {access.ACCOUNT} in namespace {access.NAMESPACE}"
        if secret is None:
            raise Problem(f"there is no {name} in {api.server}", access.GRANT)
        held = secret.data or {}
        if held.get("token"):
            break
        if time.monotonic() > until:
            raise Problem(f"{name} has no token yet", "kube-controller-manager fills it in: check that it runs")
        time.sleep(0.2)
    cluster = api.config.cluster
    try:
        authority = cluster.certificate_auth_data or held.get("ca.crt", "")
        if cluster.certificate_auth:
            with open(api.config.abs_file(cluster.certificate_auth), "rb") as file:
                authority = base64.b64encode(file.read()).decode()
        token = base64.b64decode(held["token"], validate=True).decode()
    except (OSError, ValueError) as error:
        raise Problem(f"{admin}: {error}") from None
    server = server or cluster.server
    return access.NodeCredential(server, authority if server.startswith("https:") else "", token, api.server_name)


def _configuration(path: str, private: bool) -> tuple[SingleConfig, str]:
    """Return a kubeconfig's current context, and the name in the server's certificate if it is set."""
    try:
        document = yaml.safe_load(access.read(path, private))
        config = KubeConfig.from_dict(document, fname=path).get()
        assert config is not None
        cluster = next(each["cluster"] for each in document["clusters"] if each["name"] == config.context.cluster)
    except (yaml.YAMLError, msgspec.MsgspecError, LookupError, TypeError, AttributeError, ConfigError) as error:
        message = untrusted_text.line(" ".join(str(error).split()), 300)
        raise UsageProblem(f"{path} is not a usable kubeconfig: {message}") from None
    if cluster.get("proxy-url"):
        raise UsageProblem(f"{path}: proxy-url is not supported", "name an address of the API server itself")
    user = config.user or User()
    for file, secret in (
        (config.cluster.certificate_auth, False),
        (user.client_cert, False),
        (user.client_key, True),
        (user.token_file, True),
    ):
        if file:
            access.ensure_private(str(config.abs_file(file)), secret and private)
    if user.token_file:
        user.token_file = str(config.abs_file(user.token_file))  # lightkube would look in the current folder
    return config._replace(user=user), str(cluster.get("tls-server-name") or "")


def announced(node: Node) -> Announcement:
    """Return a Node's announcement. Its texts are bounded here and judged by `accept`."""
    spec, status = node.spec or _Spec(), node.status or _Status()
    pod_cidrs = spec.podCIDRs or ([spec.podCIDR] if spec.podCIDR else [])
    addresses = [entry.address for entry in status.addresses or () if entry.type == "InternalIP"]
    return Announcement(
        untrusted_text.cut(node.metadata.name, untrusted_text.LONGEST_NAME),
        tuple(untrusted_text.cut(text, _LONGEST_CIDR) for text in of_each_family(pod_cidrs)),
        tuple(untrusted_text.cut(text, _LONGEST_CIDR) for text in addresses[:_MOST_ADDRESSES]),
    )


def of_each_family(texts: list[str]) -> tuple[str, ...]:
    """Return the first address or CIDR of each family."""
    first: dict[bool, str] = {}
    for text in texts:
        first.setdefault(":" in text, text)
    return tuple(first.values())


def _code(error: httpx2.HTTPStatusError) -> int:
    """Return the HTTP status of an answer, or the status in an error event of a watch."""
    if isinstance(error, ApiError) and error.status is not None:
        return error.status.code or 500
    return error.response.status_code


def _message_of(error: httpx2.HTTPStatusError) -> str:
    """Return the server's own message about an error (that of its Status object), else the HTTP error."""
    if isinstance(error, ApiError) and error.status is not None:
        return access.shown(error.status.message or "")
    try:
        body = json.loads(error.response.read())
    except (httpx2.HTTPError, httpx2.StreamError, ValueError, RecursionError):
        body = None
    message = body.get("message") if isinstance(body, dict) else None
    return access.shown(message if isinstance(message, str) else error.response.reason_phrase)
