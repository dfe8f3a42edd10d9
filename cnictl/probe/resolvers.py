"""Resolve names as a pod does: with the resolver configuration of its processes, from its network namespace.

Sources: resolv.conf(5), hosts(5), ip-netns(8) for /etc/netns.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cnictl.core import durable
from cnictl.core.cidr import format_address, is_address, parse_address
from cnictl.core.errors import Problem
from cnictl.core.netns import identity
from cnictl.node.host import other_root
from cnictl.node.spec.node_spec import is_ipv6
from cnictl.probe import dns

_RESOLV_CONF, _HOSTS = "/etc/resolv.conf", "/etc/hosts"
_MOST_SERVERS, _MOST_DOMAINS = 3, 32
_LARGEST = 1 << 20
_TIMEOUT, _TRIES = 1.5, 2


_SILENCE, _NO_NAME = "nothing", dns.RCODES[dns.NO_SUCH_NAME]
"""The words for a server that does not answer, and for one that does not have the name."""


@dataclass(frozen=True)
class Resolver:
    """A resolver configuration."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    ndots: int = 1
    """A name with fewer dots is looked up in the search domains first."""
    hosts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Addresses by name, from /etc/hosts."""
    netns: str = ""
    """Path of the network namespace to ask from; empty: our own."""
    source: str = ""
    """Where the configuration comes from, in words."""


@dataclass(frozen=True)
class Resolved:
    """The addresses of a name."""

    addresses: tuple[str, ...]
    name: str
    """The name that has them, including the search domain in which it was found."""
    server: str
    """The address of the DNS server that answered; empty for /etc/hosts."""
    seconds: float = 0.0


class NotResolved(Problem):
    """A name has no address of the families that were asked for. The message is the reason.

    `answers`: the servers that were asked, each with its answer in words. `others`: the name's addresses of the other
    family.
    """

    def __init__(self, message: str, answers: tuple[tuple[str, str], ...] = (), others: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.answers, self.others = answers, others

    @property
    def silent(self) -> tuple[str, ...]:
        """The servers that did not answer."""
        return tuple(server for server, words in self.answers if words == _SILENCE)


def parse_resolv_conf(text: str) -> Resolver:
    """Return the servers and the search list of a resolv.conf. Invalid lines are skipped."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    ndots = 1
    for line in text.splitlines():
        words = line.partition("#")[0].partition(";")[0].split()
        if words[:1] == ["nameserver"] and len(words) > 1:
            address = words[1].partition("%")[0]
            if is_address(address):
                servers.append(format_address(parse_address(address)))
        elif words[:1] in (["search"], ["domain"]):
            search = tuple(word.strip(".") for word in words[1:] if word.strip("."))[:_MOST_DOMAINS]
        elif words[:1] == ["options"]:
            values = [word.partition(":")[2] for word in words[1:] if word.startswith("ndots:")]
            ndots = min(15, int(values[-1])) if values and values[-1].isdecimal() else ndots
    return Resolver(tuple(servers[:_MOST_SERVERS]), search, ndots)


def servers_in(path: str) -> tuple[str, ...]:
    """Return the DNS servers that a resolv.conf of this host names; none if it can't be read."""
    return parse_resolv_conf(_text(path) or "").servers


def parse_hosts(text: str) -> dict[str, tuple[str, ...]]:
    """Return the addresses by name, in lower case, of a hosts file."""
    addresses: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if len(words) > 1 and is_address(words[0]):
            address = format_address(parse_address(words[0]))
            for name in words[1:]:
                addresses[name.lower()] = (*addresses.get(name.lower(), ()), address)
    return addresses


def candidates(name: str, search: Sequence[str], ndots: int) -> list[str]:
    """Return the names to ask for, in order (resolv.conf(5), `ndots`)."""
    if name.endswith("."):
        return [name.strip(".")]
    within = [f"{name}.{domain}" for domain in search]
    return [name, *within] if name.count(".") >= ndots else [*within, name]


def resolver_of(netns: str) -> Resolver:
    """Return the resolver of the pod whose namespace is at path `netns`; of this host if the pod's is not known.

    A pod's resolver is that of a process in its network namespace, else /etc/netns/NAME/resolv.conf. This host's is
    used from this host's namespace.
    """
    if netns:
        for process in _processes_in(netns):
            text = _text(_RESOLV_CONF, f"/proc/{process}/root")
            if text is not None:
                hosts = _text(_HOSTS, f"/proc/{process}/root")
                return _configured(text, hosts, netns, f"the {_RESOLV_CONF} of process {process} in the pod")
        own = f"/etc/netns/{os.path.basename(netns)}"
        text = _text(f"{own}/resolv.conf")
        if text is not None:
            return _configured(text, _text(f"{own}/hosts"), netns, f"{own}/resolv.conf")
    return _configured(_text(_RESOLV_CONF) or "", _text(_HOSTS), "", f"this host's {_RESOLV_CONF}")


def resolve(name: str, resolver: Resolver, families: Iterable[bool]) -> Resolved:
    """Return the addresses of a name. `families`: for each family to ask for, whether it is IPv6; the preferred first.

    Raises NotResolved with the answer of each server if there is none.
    """
    families = list(families)
    try:
        return _resolved(name, resolver, families)
    except NotResolved as failed:
        other = [ipv6 for ipv6 in (False, True) if ipv6 not in families]
        if not other or failed.silent:
            raise
        with contextlib.suppress(NotResolved):
            failed.others = _resolved(name, resolver, other).addresses
        raise


def _resolved(name: str, resolver: Resolver, families: Sequence[bool]) -> Resolved:
    in_file = [address for address in resolver.hosts.get(name.lower().strip("."), ()) if is_ipv6(address) in families]
    if in_file:
        return Resolved(tuple(sorted(in_file, key=lambda a: families.index(is_ipv6(a)))), name, "")
    if not resolver.servers:
        raise NotResolved(f"{resolver.source} names no DNS server")
    answers: dict[str, str] = {}
    unasked = set[str]()
    for server in resolver.servers:
        for full in candidates(name, resolver.search, resolver.ndots):
            try:
                answer = _ask(server, full, resolver.netns, families)
            except ValueError:
                raise NotResolved("this is not a valid DNS name") from None
            except OSError as error:
                answers[server] = (error.strerror or str(error)).lower()
                unasked.add(server)
                break
            if isinstance(answer, Resolved):
                return answer
            answers[server] = answer
            if answer == _SILENCE:
                break
        if answers.get(server) == _NO_NAME:
            break  # the next server has the same names
    listed = "; ".join(
        f"{server} does not answer"
        if what == _SILENCE
        else f"{server} can't be asked: {what}"
        if server in unasked
        else f"{server} answers {what}"
        for server, what in answers.items()
    )
    raise NotResolved(f"{listed} ({resolver.source})", tuple(answers.items()))


def _ask(server: str, name: str, netns: str, families: Sequence[bool]) -> Resolved | str:
    """Return the addresses of a name; if there are none, the server's answer in words. Raises OSError, ValueError."""
    words = _SILENCE
    addresses: list[str] = []
    seconds = 0.0
    for ipv6 in families:
        answers = (dns.ask(netns, server, name, dns.AAAA if ipv6 else dns.A, _TIMEOUT) for _ in range(_TRIES))
        answer = next((answer for answer in answers if answer is not None), None)
        if answer is None:
            break
        words, seconds = answer.words, seconds + answer.seconds
        addresses += answer.addresses
        if answer.rcode:
            break
    return Resolved(tuple(addresses), name, server, seconds) if addresses else words


def _configured(resolv_conf: str, hosts: str | None, netns: str, source: str) -> Resolver:
    read = parse_resolv_conf(resolv_conf)
    return Resolver(read.servers, read.search, read.ndots, parse_hosts(hosts or ""), netns, source)


def _processes_in(netns: str) -> Iterator[int]:
    """Yield the processes in a network namespace, the lowest process id first."""
    wanted = identity(netns)
    for process in sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        if wanted is not None and _namespace_of(process) == wanted:
            yield process


def _namespace_of(process: int) -> tuple[int, int] | None:
    try:
        return identity(f"/proc/{process}/ns/net")
    except OSError:
        return None  # it has just ended


def _text(path: str, root: str = "") -> str | None:
    """Return a file's text, as a process with another root folder sees it if one is given; None without the file."""
    try:
        data = other_root.contents_within(root, path, _LARGEST) if root else durable.contents(path, _LARGEST)
    except OSError:
        return None
    return data.decode("utf-8", "replace")
