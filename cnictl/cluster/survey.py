"""Ask every host for its `cnictl status`, and find the faults between hosts that no single host can see."""

import re
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cnictl
from cnictl.cluster.hosts import Answer, Command, Hosts
from cnictl.core import untrusted_text
from cnictl.core.cidr import AddressError, format_address, parse_address, parse_cidr
from cnictl.core.counted import counted
from cnictl.node.plugin import versions
from cnictl.node.reach.cluster_file import Cluster, ClusterNode
from cnictl.node.runs import converge
from cnictl.node.spec.overlaps import overlapping

STATUS_SECONDS = 90.0
STATUS = Command(("cnictl", "status", "-o", "json"))
_LONGEST_WAIT = 86400.0
"""Seconds. A longer time until a revert is treated as invalid. `--confirm-within` takes at most an hour."""
_COMMAND = re.compile(r"cnictl [a-z][a-z -]*( [A-Za-z0-9./:@=,-]+)*\Z")
"""A hint that consists of a cnictl command without characters that are special to a shell."""
_NAMED = 5
"""The largest number of hosts that a message names; the others are only counted."""

OK, UNREACHABLE, OTHER_VERSION, NO_NODE, FAULTY = "ok", "unreachable", "other version", "not a node", "faulty"
"""States of a host."""


@dataclass(frozen=True)
class HostStatus:
    """One host's report of itself, or why there is none. All texts are safe for terminals."""

    node: ClusterNode
    """The node as the cluster file describes it."""
    state: str
    why: str = ""
    hint: str = ""
    version: str = ""
    """The version of cnictl on the host."""
    plugin: str = ""
    """The version of the plugin in use; empty without one."""
    subnets: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    mtu: int = 0
    """The MTU of its bridge; 0 without a bridge."""
    peers: tuple[Mapping[str, Any], ...] = ()
    own_trouble: str = ""
    """What is wrong on the host itself, without faults of its peers."""
    unconfirmed: str = ""
    """When the host reverts its last run by itself, in words; empty if no run waits to be confirmed."""

    @property
    def name(self) -> str:
        """The node's name."""
        return self.node.name

    @property
    def is_set_up(self) -> bool:
        """Whether the host answered and is a node."""
        return bool(self.subnets)

    @property
    def in_words(self) -> str:
        """The state, and why it is so if the state alone does not say it."""
        return f"{self.state}: {self.why}" if self.why and self.state != NO_NODE else self.state

    def as_json(self) -> dict[str, Any]:
        """Return the row for programs."""
        return {
            "node": self.name,
            "addresses": list(self.node.addresses),
            "pod_cidrs": list(self.subnets or self.node.pod_cidrs),
            "state": self.state,
            "why": self.why,
            "peers": len(self.peers),
            "peers_ok": sum(str(peer.get("state", "")).startswith("ok") for peer in self.peers),
            "mtu": self.mtu or None,
            "cnictl": self.version,
            "plugin": self.plugin,
            "hint": as_hint(self.hint),
        }


@dataclass(frozen=True)
class ClusterFinding:
    """A fault between hosts."""

    message: str
    """Names every host that it is about."""
    hosts: tuple[str, ...]
    hint: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the finding for programs."""
        return {"message": self.message, "hosts": list(self.hosts), "hint": as_hint(self.hint)}


def as_hint(text: str) -> dict[str, str] | None:
    """Return a hint as JSON values, in the form that all commands use; None for an empty hint."""
    return {"text": text, "command": "", "option": "", "on": ""} if text else None


def ask(nodes: Iterable[ClusterNode], hosts: Hosts, on_answer: Callable[[Answer], None]) -> list[HostStatus]:
    """Return the status of each node. `nodes` are the nodes of `hosts`."""
    versions = hosts.connect(lambda _: None)
    answers = hosts.run(dict.fromkeys(hosts.names, STATUS), STATUS_SECONDS, on_answer)
    return [read(node, versions[node.name], answers[node.name]) for node in nodes]


def version_of(answer: Answer) -> str:
    """Return the version that `cnictl --version` printed; empty if that cnictl is too old for the option."""
    name, _, version = answer.stdout.strip().partition(" ")
    return untrusted_text.word(version, 40) if answer.status == 0 and name == "cnictl" else ""


def other_version(answer: Answer) -> str:
    """Return how a host's cnictl differs from this one, in words; empty if it does not."""
    version = version_of(answer)
    if version == cnictl.__version__:
        return ""
    return f"has {f'cnictl {version}' if version else 'an older cnictl'}, but this machine has {cnictl.__version__}"


def other_version_hint(name: str, version: str) -> str:
    """Return what to do about a host with another version of cnictl. `version` is the host's."""
    if versions.sort_key(version) > versions.sort_key(cnictl.__version__):
        return f"install cnictl {version} on this machine; or cnictl cluster upgrade --limit {name} puts this one there"
    return f"cnictl cluster upgrade --limit {name}"


def read(node: ClusterNode, version: Answer, answer: Answer) -> HostStatus:
    """Return a host's status from its answers to `--version` and `status`. Pure."""
    if answer.fault:
        return HostStatus(node, UNREACHABLE, answer.fault, answer.hint)
    document, number, other = answer.document(), version_of(version), other_version(version)
    status = _parsed(node, document, number) if document is not None else None
    if other:
        hint = other_version_hint(node.name, number)
        known = status or HostStatus(node, OTHER_VERSION, version=number)
        return replace(known, state=OTHER_VERSION, why=other, hint=hint)
    if status is not None:
        return status
    if converge.NO_NODE[0] in answer.stderr:
        hint = f"cnictl cluster apply --limit {node.name}"
        return HostStatus(node, NO_NODE, "is not set up as a node", hint, number)
    return HostStatus(node, FAULTY, answer.error, hint_of(node, answer), number)


def _parsed(node: ClusterNode, document: Mapping[str, Any], version: str) -> HostStatus | None:
    """Return the status in a JSON document; None if it is not one. A host may be hostile, so every value is checked."""
    own, bridge = _table(document.get("node")), _table(document.get("bridge"))
    subnets, networks = cidrs(own.get("subnets")), cidrs(own.get("networks"))
    if not subnets:
        return None
    peers = document.get("peers")
    rows = tuple(peer for peer in peers if isinstance(peer, dict)) if isinstance(peers, list) else ()
    mtu = bridge.get("mtu")
    troubles = [
        f"{counted(document[key], 'resource')} {words}"
        for key, words in (("drifted", "drifted"), ("unknown", "not known"))
        if type(document.get(key)) is int and document[key] > 0
    ]  # fmt: skip
    faults = [
        untrusted_text.line(peer["fault"]) for peer in rows if isinstance(peer.get("fault"), str) and peer["fault"]
    ]
    diversions = document.get("strays")
    if isinstance(diversions, list) and diversions:
        troubles.append(f"the host misroutes pods' packets ({len(diversions)})")
    waits = unconfirmed(_table(document.get("unconfirmed")))
    why = "; ".join([*troubles, *faults[:2], *filter(None, [waits])])
    hint = f"cnictl status on {node.name} shows it" if why else ""
    if waits and not (troubles or faults):
        hint = on_host(node, "cnictl confirm")
    state = FAULTY if why else OK
    own_mtu = mtu if type(mtu) is int else 0
    plugin = untrusted_text.word(str(_table(document.get("plugin")).get("version") or ""), 80)
    own_trouble = "; ".join(troubles)
    return HostStatus(
        node, state, why, hint, version, plugin, subnets, networks, own_mtu, rows, own_trouble, unconfirmed=waits
    )


def unconfirmed(waiting: Mapping[str, Any]) -> str:
    """Return in words when a host reverts its last run, by this machine's clock; empty if it does not."""
    seconds = waiting.get("seconds_left")
    if seconds is None:
        return ""
    if not isinstance(seconds, int | float) or not 0 <= seconds <= _LONGEST_WAIT:
        return "reverts its last run unless it is confirmed"
    when = time.strftime("%H:%M:%S", time.localtime(time.time() + seconds))
    return f"reverts its last run at {when}, in {seconds:.0f} s, unless it is confirmed"


def on_host(node: ClusterNode, command: str) -> str:
    """Return a shell line for the operator's machine that runs a command as root on a node's host."""
    login = node.ssh or node.addresses[0]
    return f"ssh {shlex.quote(login)} {'' if login.startswith('root@') else 'sudo '}{command}"


def hint_of(node: ClusterNode, answer: Answer) -> str:
    """Return the hint of a host's own command: as an ssh command if it is a command, else with the host's name."""
    text = answer.error_hint
    command, comment, note = text.partition("  # ")
    if _COMMAND.match(command):
        return f"{on_host(node, command)}{comment}{note}"
    return f"on {node.name}: {text}" if text else ""


def findings(statuses: Sequence[HostStatus], cluster: Cluster) -> list[ClusterFinding]:
    """Return the faults between hosts. Each names the hosts that it is about. `cluster` has all nodes. Pure."""
    set_up = [status for status in statuses if status.is_set_up]
    return [
        *_not_set_up(statuses, set_up),
        *_shared_cidrs(set_up),
        *_other_cidrs(set_up, cluster),
        *_differences(set_up, "network", lambda status: ", ".join(status.networks)),
        *_differences(set_up, "bridge MTU", lambda status: str(status.mtu) if status.mtu else ""),
        *_differences(
            [status for status in statuses if status.version], "cnictl version", lambda status: status.version
        ),
        *_differences(set_up, "plugin version", lambda status: status.plugin.partition("+")[0]),
        *_peers(set_up, cluster),
    ]


def _not_set_up(statuses: Sequence[HostStatus], set_up: Sequence[HostStatus]) -> Iterator[ClusterFinding]:
    """Yield hosts that are not nodes although others route pods' packets to them."""
    for status in statuses:
        if status.state != NO_NODE:
            continue
        expected = set(status.node.pod_cidrs)
        routing = [other.name for other in set_up if expected & _peers_by_cidr(other).keys()]
        if routing:
            yield ClusterFinding(
                f"{status.name} is not set up as a node (it was reset, or never set up), but {_names(routing)} still "
                f"{'routes' if len(routing) == 1 else 'route'} {', '.join(sorted(expected))} to it",
                (status.name, *routing),
                f"cnictl cluster apply --limit {status.name}; or cnictl cluster remove {status.name}",
            )


def _shared_cidrs(set_up: Sequence[HostStatus]) -> Iterator[ClusterFinding]:
    owned = [(status.name, parse_cidr(text)) for status in set_up for text in status.subnets]
    for first, second in overlapping([cidr for _, cidr in owned]):
        (name, cidr), (other_name, other_cidr) = owned[first], owned[second]
        words = (
            f"{name} and {other_name} both have the pod CIDR {cidr}"
            if cidr == other_cidr
            else f"{name} has the pod CIDR {cidr} and {other_name} has {other_cidr}, which overlap"
        )
        hint = "cnictl cluster apply gives each node its pod CIDR from the file"
        yield ClusterFinding(words, (name, other_name), hint)


def _other_cidrs(set_up: Sequence[HostStatus], cluster: Cluster) -> Iterator[ClusterFinding]:
    """Yield hosts whose pod CIDR differs from the file, with the node that the file gives that pod CIDR to."""
    owners = {text: node.name for node in cluster.nodes for text in node.pod_cidrs}
    for status in set_up:
        for text in status.subnets:
            if not status.node.pod_cidrs or text in status.node.pod_cidrs:
                continue
            owner = owners.get(text)
            whose = f", which is {owner}'s in the cluster file" if owner else ""
            yield ClusterFinding(
                f"{status.name} has the pod CIDR {text}{whose}; the file gives it {', '.join(status.node.pod_cidrs)}",
                (status.name, *([owner] if owner else [])),
                f"move its pods elsewhere, then: cnictl cluster apply --limit {status.name}",
            )


def _differences(
    statuses: Sequence[HostStatus], what: str, value_of: Callable[[HostStatus], str]
) -> Iterator[ClusterFinding]:
    """Yield hosts whose value differs from that of most hosts."""
    values = {status.name: value_of(status) for status in statuses if value_of(status)}
    counted = Counter(values.values())
    if len(counted) < 2:
        return
    usual = counted.most_common(1)[0][0]
    like = next(name for name, value in values.items() if value == usual)
    for value in counted:
        if value != usual:
            differing = [name for name, own in values.items() if own == value]
            verb = "has" if len(differing) == 1 else "have"
            yield ClusterFinding(
                f"{_names(differing)} {verb} {what} {value}, but {like} has {usual}", (*differing, like)
            )


def _peers(set_up: Sequence[HostStatus], cluster: Cluster) -> Iterator[ClusterFinding]:
    """Yield peers that are missing, one-sided, reached at a wrong address, silent, or that belong to no node."""
    known = {status.name: _peers_by_cidr(status) for status in set_up}
    by_name = {status.name: status for status in set_up}
    reachable = set(by_name)
    owned = [(node, text, parse_cidr(text).bits) for node in cluster.nodes for text in _has(by_name, node)]
    everyone = {text for _, text, _ in owned} | {text for node in cluster.nodes for text in node.pod_cidrs}
    for status in set_up:
        lacking: list[str] = []
        families = {parse_cidr(text).bits for text in status.subnets}
        for node, text, bits in owned:
            if node.name == status.name or bits not in families:
                continue
            peer = known[status.name].get(text)
            if peer is None and text not in node.pod_cidrs and known[status.name].keys() & set(node.pod_cidrs):
                continue  # this host follows the file and the node does not: another finding says so about the node
            if peer is None:
                lacking.append(node.name)
            else:
                yield from _of_peer(status.name, node, text, peer, reachable)
        yield from _lacking(status, list(dict.fromkeys(lacking)), by_name, known)
        unknown = [text for text in known[status.name] if text not in everyone]
        for text in unknown[:_NAMED]:
            via = untrusted_text.word(str(known[status.name][text].get("via", "")), 60)
            yield ClusterFinding(
                f"{status.name} has a peer {text} through {via}, but no node of the cluster has that pod CIDR",
                (status.name,),
                f"cnictl route del-peer {text} on {status.name}, if its node.toml names the peer",
            )


def _of_peer(
    name: str, node: ClusterNode, pod_cidr: str, peer: Mapping[str, Any], reachable: set[str]
) -> Iterator[ClusterFinding]:
    """Yield what is wrong with the peer that `name` has for `node`."""
    via, state = untrusted_text.word(str(peer.get("via", "")), 60), untrusted_text.line(str(peer.get("state", "")), 200)
    if _canonical(via) not in node.addresses:
        yield ClusterFinding(
            f"{name} sends the pods' packets for {node.name} ({pod_cidr}) to {via}, but the address of {node.name} "
            f"is {', '.join(node.addresses)}",
            (name, node.name),
            f"cnictl cluster apply --limit {name}",
        )
    elif not state.startswith("ok"):
        yield ClusterFinding(
            f"the route on {name} to the pods of {node.name} ({pod_cidr}) is wrong: {state or 'not reported'}",
            (name, node.name),
            f"cnictl cluster apply --limit {name}",
        )
    elif peer.get("answers") is False and node.name in reachable:
        yield ClusterFinding(
            f"{name} gets no answer from {node.name} at {via}, though both are reachable from here",
            (name, node.name),
            "check the link between them: addresses, VLANs, cables",
        )


def _lacking(
    status: HostStatus,
    lacking: Sequence[str],
    by_name: Mapping[str, HostStatus],
    known: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> Iterator[ClusterFinding]:
    """Yield the peers that a host lacks. The messages differ by whether the other node has this one as a peer."""
    one_sided = [name for name in lacking if name in known and known[name].keys() & set(status.subnets)]
    for name in one_sided[:_NAMED]:
        other = by_name[name]
        yield ClusterFinding(
            f"{status.name} has no peer for {name} ({', '.join(other.subnets)}), but {name} has one for {status.name}: "
            "packets arrive and replies are lost",
            (status.name, name),
            f"cnictl cluster apply --limit {status.name}",
        )
    rest = [name for name in lacking if name not in one_sided[:_NAMED]]
    if len(rest) > _NAMED:
        message = f"{status.name} has no peer for {counted(len(rest), 'node')}: {_names(rest)}"
        yield ClusterFinding(message, (status.name, *rest), f"cnictl cluster apply --limit {status.name}")
        return
    for name in rest:
        if name in known and not known[name].keys() & set(status.subnets):
            if status.name < name:  # report it once for both
                yield ClusterFinding(
                    f"{status.name} and {name} do not have each other as peers",
                    (status.name, name),
                    f"cnictl cluster apply --limit {status.name},{name}",
                )
            continue
        yield ClusterFinding(
            f"{status.name} has no peer for {name}", (status.name, name), f"cnictl cluster apply --limit {status.name}"
        )


def _has(by_name: Mapping[str, HostStatus], node: ClusterNode) -> tuple[str, ...]:
    """Return the pod CIDRs that a node reports; those of the file if it reports none."""
    return by_name[node.name].subnets if node.name in by_name else node.pod_cidrs


def _peers_by_cidr(status: HostStatus) -> dict[str, Mapping[str, Any]]:
    """Return a host's peers by pod CIDR, without routes that no peer claims."""
    peers = {}
    for peer in status.peers:
        known = cidrs([peer.get("pod_cidr")])
        if known and peer.get("state") != "stale":
            peers[known[0]] = peer
    return peers


def _names(names: Sequence[str]) -> str:
    """Return names as a part of a sentence: `a`, `a and b`, `a, b, c, d, e and 7 more`."""
    shown = [*names[:_NAMED], *([f"{len(names) - _NAMED} more"] if len(names) > _NAMED else [])]
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def cidrs(value: Any) -> tuple[str, ...]:
    """Return the valid CIDRs in a host's value, in canonical form."""
    canonical = []
    for text in value if isinstance(value, list) else ():
        try:
            canonical.append(str(parse_cidr(text)))
        except (AddressError, TypeError, AttributeError):
            continue
    return tuple(canonical)


def _canonical(text: str) -> str:
    try:
        return format_address(parse_address(text))
    except AddressError:
        return ""
