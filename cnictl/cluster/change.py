"""Change all hosts of a cluster: plan each host's change, make it, verify it, and keep or revert it.

The cluster file is copied to a temporary file on each host. `cnictl init-node --from` reads it there, and installs it
as /etc/cnictl/cluster.toml in the same run as its other changes. An undo of that run therefore restores the previous
file too.
"""

import secrets
import shlex
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Self

import cnictl
from cnictl.cluster import survey
from cnictl.cluster.hosts import Answer, Command, Hosts
from cnictl.cluster.survey import HostStatus, as_hint
from cnictl.core import untrusted_text
from cnictl.core.errors import Problem
from cnictl.core.paths import RUN_DIR
from cnictl.node.reach.cluster_file import Cluster, ClusterNode
from cnictl.node.runs import converge

OnAnswer = Callable[[Answer], None]

_COPY_SECONDS, _PLAN_SECONDS, _CHANGE_SECONDS, _SHORT_SECONDS = 60.0, 120.0, 600.0, 60.0
_COPY = 'set -eu; umask 022; mkdir -p "${1%/*}"; cat > "$1.$$"; mv -f -- "$1.$$" "$1"'
_DELETE = 'rm -f -- "$1" "$1".*'

_AT_ONCE = 32

UNREACHABLE, OTHER_VERSION = survey.UNREACHABLE, survey.OTHER_VERSION
UNCHANGED, WOULD_CHANGE, CHANGED, FAILED, LOST, REVERTED, UNCONFIRMED = (
    "unchanged", "would change", "changed", "failed", "lost", "reverted", "unconfirmed",
)  # fmt: skip
NOT_KNOWN = "not known"
_GOOD = (UNCHANGED, WOULD_CHANGE, CHANGED)


@dataclass(frozen=True)
class HostChange:
    """What a host would change, or the outcome of its change."""

    node: ClusterNode
    state: str
    why: str = ""
    hint: str = ""
    steps: tuple[Mapping[str, Any], ...] = ()
    """The steps that change something, as the host's own command prints them: `resource`, `summary`, `before`, …"""
    pods_cut_off: tuple[str, ...] = ()
    run: int = 0
    """The number of the run that waits to be confirmed; 0 if none does."""

    @property
    def is_good(self) -> bool:
        """Whether the host matches or will match the file."""
        return self.state in _GOOD

    def as_json(self) -> dict[str, Any]:
        """Return the row for programs."""
        return {
            "node": self.node.name,
            "state": self.state,
            "why": self.why,
            "steps": [dict(step) for step in self.steps],
            "pods_cut_off": list(self.pods_cut_off),
            "hint": as_hint(self.hint),
        }


@dataclass
class ClusterChange:
    """A change of some hosts to one text of the cluster file. As a context manager, it removes the temporary files."""

    hosts: Hosts
    nodes: tuple[ClusterNode, ...]
    """The nodes as the text describes them; all are among `hosts`."""
    text: str
    versions: Mapping[str, Answer] = field(default_factory=dict)
    """Each host's answer to `cnictl --version`, set by `plan`."""
    so_far: dict[str, str] = field(default_factory=dict)
    """What is known about each host while `carry_out` runs: changed, unchanged, not known, or another outcome."""
    _path: str = field(default_factory=lambda: f"{RUN_DIR}/cluster-{secrets.token_hex(8)}.toml")
    _copied: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        command = Command(("sh", "-c", _DELETE, "sh", self._path))
        self.hosts.run(dict.fromkeys(self._copied, command), _SHORT_SECONDS, lambda _: None)

    def plan(self, on_answer: OnAnswer) -> list[HostChange]:
        """Copy the file to a temporary one on each host, and return what each would change. Nothing is changed."""
        self.versions = self.hosts.connect(lambda _: None)
        rows = {node.name: _barred(node, self.versions[node.name]) for node in self.nodes}
        usable = [name for name, row in rows.items() if row is None]
        copy = Command(("sh", "-c", _COPY, "sh", self._path), self.text)
        self._copied = usable  # set before the first copy, so that an interrupt leaves none behind
        copied = self.hosts.run(dict.fromkeys(usable, copy), _COPY_SECONDS, lambda _: None)
        has_file = [name for name in usable if copied[name].status == 0]
        previews = self.hosts.run(dict.fromkeys(has_file, self._command("--dry-run")), _PLAN_SECONDS, on_answer)
        planned = [rows[node.name] or _planned(node, previews.get(node.name, copied[node.name])) for node in self.nodes]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(self._unconfirmed, planned))

    def carry_out(
        self, planned: Sequence[HostChange], confirm_within: int | None, keep: bool, on_answer: OnAnswer
    ) -> list[HostChange]:
        """Change every host that would change, verify it on a new connection, and return the outcomes.

        With `keep`, a host's change is confirmed as soon as the host is verified. Without it, and with
        `confirm_within`, the caller must call `confirm` or `revert` afterwards.
        """

        def change(row: HostChange) -> HostChange:
            if row.state in (UNCHANGED, UNCONFIRMED):  # the run may have been confirmed or reverted meanwhile
                return self._so_far(self._unconfirmed(HostChange(row.node, UNCHANGED)))
            if row.state != WOULD_CHANGE:
                return self._so_far(row)
            self.so_far[row.node.name] = NOT_KNOWN
            row = self._so_far(self._change(row, confirm_within, on_answer))
            return self._so_far(self._confirm(row)) if confirm_within and keep else row

        self.so_far = {row.node.name: UNCHANGED for row in planned}

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(change, planned))

    def _so_far(self, row: HostChange) -> HostChange:
        """Note a host's outcome."""
        untouched = row.state in (UNREACHABLE, OTHER_VERSION, UNCHANGED, UNCONFIRMED)
        known = UNCHANGED if untouched else NOT_KNOWN if row.state == LOST else row.state
        waits = row.state == CHANGED and row.run
        self.so_far[row.node.name] = (
            f"{known}; it reverts the change by itself unless you confirm it" if waits else known
        )
        return row

    def _unconfirmed(self, row: HostChange) -> HostChange:
        """Return a host's row: `unconfirmed` if it is unchanged, but only until it reverts a run."""
        if row.state != UNCHANGED:
            return row
        document = self._ask(row, Command(("cnictl", "confirm", "--status", "-o", "json"))).document()
        why = survey.unconfirmed(document or {})
        hint = survey.on_host(row.node, "cnictl confirm")
        return replace(row, state=UNCONFIRMED, why=why, hint=hint) if why else row

    def confirm(self, rows: Sequence[HostChange]) -> list[HostChange]:
        """Keep the changes of the hosts that were changed and verified."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(lambda row: self._so_far(self._confirm(row)), rows))

    def revert(self, rows: Sequence[HostChange]) -> list[HostChange]:
        """Revert the changes of the hosts that were changed and verified."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(lambda row: self._so_far(self._revert(row)), rows))

    def _change(self, row: HostChange, confirm_within: int | None, on_answer: OnAnswer) -> HostChange:
        options = ("--confirm-within", str(confirm_within)) if confirm_within else ()
        row = _changed(row, self._ask(row, self._command(*options), on_answer), confirm_within)
        if row.state != CHANGED:
            return row
        self.hosts.reconnect([row.node.name])
        answer = self._ask(row, survey.STATUS)
        return _verified(row, survey.read(row.node, self.versions[row.node.name], answer), confirm_within)

    def _confirm(self, row: HostChange) -> HostChange:
        if row.state != CHANGED or not row.run:
            return row
        return _ended(row, self._ask(row, Command(("cnictl", "confirm", "-o", "json"))), CHANGED)

    def _revert(self, row: HostChange) -> HostChange:
        if row.state != CHANGED or not row.run:
            return row
        undo = Command(("cnictl", "undo", str(row.run), "--yes", "-o", "json"))
        return _ended(row, self._ask(row, undo), REVERTED)

    def _ask(self, row: HostChange, command: Command, on_answer: OnAnswer = lambda _: None) -> Answer:
        return self.hosts.run({row.node.name: command}, _CHANGE_SECONDS, on_answer)[row.node.name]

    def _command(self, *options: str) -> Command:
        return Command(("cnictl", "init-node", "--from", self._path, *options, "-o", "json"))


def status_of_leaving(hosts: Hosts, node: ClusterNode, cluster: Cluster) -> HostStatus:
    """Return the status of a host that is to leave. Raises Problem if ssh leads to another node of the cluster."""
    answer = hosts.run({node.name: survey.STATUS}, survey.STATUS_SECONDS, lambda _: None)[node.name]
    status = survey.read(node, Answer(node.name, 0, f"cnictl {cnictl.__version__}\n"), answer)
    owners = {pod_cidr: other.name for other in cluster.nodes for pod_cidr in other.pod_cidrs}
    for subnet in status.subnets:
        if owners.get(subnet, node.name) != node.name:
            raise Problem(*_other_node(node, status.subnets, owners[subnet]))
    return status


def pods_on(hosts: Hosts, name: str) -> list[str]:
    """Return the pods that live on a host. Raises Problem if it can't list them."""
    answer = hosts.run({name: Command(("cnictl", "ipam", "list", "-o", "json"))}, _SHORT_SECONDS, lambda _: None)[name]
    if answer.fault:
        raise Problem(f"{name} can't list its pods: {answer.fault}", answer.hint)
    document = answer.document()
    if document is None:
        if converge.NO_NODE[0] in answer.stderr or "no network has leases here" in answer.stderr:
            return []
        raise Problem(f"{name} can't list its pods: {answer.error}", f"cnictl ipam list on {name}")
    leases = document.get("items", document.get("leases"))
    if not isinstance(leases, list):
        raise Problem(f"{name} can't list its pods", f"cnictl ipam list on {name}")
    rows = [lease for lease in leases if isinstance(lease, dict) and lease.get("state") not in ("stale", "torn")]
    named = [str(row.get("pod") or row.get("container") or row.get("address")) for row in rows]
    return list(dict.fromkeys(untrusted_text.word(pod, 100) for pod in named))


def reset(hosts: Hosts, node: ClusterNode) -> HostChange:
    """Reset a host that leaves the cluster. A host that is no longer a node is unchanged."""
    command = Command(("cnictl", "reset-node", "--yes", "-o", "json"))
    answer = hosts.run({node.name: command}, _CHANGE_SECONDS, lambda _: None)[node.name]
    if answer.fault:
        return HostChange(node, UNREACHABLE, answer.fault, answer.hint)
    if answer.status != 0:
        return HostChange(node, FAILED, answer.error, survey.hint_of(node, answer))
    return HostChange(node, CHANGED, "reset")


def _barred(node: ClusterNode, version: Answer) -> HostChange | None:
    """Return why a host can't be changed; None if it can."""
    if version.fault:
        return HostChange(node, UNREACHABLE, version.fault, version.hint)
    other = survey.other_version(version)
    if other:
        return HostChange(node, OTHER_VERSION, other, survey.other_version_hint(node.name, survey.version_of(version)))
    return None


def _planned(node: ClusterNode, answer: Answer) -> HostChange:
    if answer.fault:
        return HostChange(node, UNREACHABLE, answer.fault, answer.hint)
    document = answer.document()
    if document is None or answer.status != 0:
        return HostChange(node, FAILED, answer.error, _hint_of_set_up(node, answer))
    own = document.get("node")
    subnet = own.get("subnet") if isinstance(own, dict) else None
    subnets = survey.cidrs(subnet if isinstance(subnet, list) else [subnet])
    if subnets and set(subnets) != set(node.pod_cidrs):
        return HostChange(node, FAILED, *_other_node(node, subnets))
    steps, pods = _steps(document, WOULD_CHANGE), document.get("pods_cut_off")
    cut_off = tuple(untrusted_text.word(str(pod), 100) for pod in pods) if isinstance(pods, list) else ()
    return HostChange(node, WOULD_CHANGE if steps else UNCHANGED, steps=steps, pods_cut_off=cut_off)


def _hint_of_set_up(node: ClusterNode, answer: Answer) -> str:
    """Return the hint of a host's `init-node`. This command lacks the option that it names, so show how to give it.

    The copy of the file on the host is removed when this command ends, so the hint copies it again.
    """
    text = survey.hint_of(node, answer)
    if "--force" not in text:
        return text
    again = "cnictl init-node --from /tmp/cluster.toml --force"
    login = shlex.quote(node.ssh or node.addresses[0])
    return f"{text}: scp cluster.toml {login}:/tmp/ && {survey.on_host(node, again)}"


def _other_node(node: ClusterNode, subnets: Sequence[str], name: str = "") -> tuple[str, str]:
    """Return the message that ssh reaches another node than the file says, and the hint. `subnets` are that node's."""
    whose = f"{name}, with" if name else "another node, with"
    return (
        f"ssh leads to {whose} the pod CIDR {', '.join(subnets)}; the file has {', '.join(node.pod_cidrs)} "
        f"for {node.name}",
        f"correct 'ssh' or 'address' of {node.name} in the cluster file",
    )


def _steps(document: Mapping[str, Any], outcome: str) -> tuple[Mapping[str, Any], ...]:
    """Return the steps of a run's JSON that have this outcome. Values of a wrong type are replaced."""
    steps = document.get("steps")
    return tuple(
        {
            "resource": str(step.get("resource", "")),
            "summary": str(step.get("summary", "")),
            "before": step["before"] if isinstance(step.get("before"), dict) else None,
            "after": step["after"] if isinstance(step.get("after"), dict) else None,
            "command": str(step.get("command", "")),
        }
        for step in (steps if isinstance(steps, list) else ())
        if isinstance(step, dict) and step.get("outcome") == outcome
    )


def _reverts(confirm_within: int | None) -> str:
    return f"; it reverts the change by itself within {confirm_within} s" if confirm_within else ""


def _changed(row: HostChange, answer: Answer, confirm_within: int | None) -> HostChange:
    back = _reverts(confirm_within)
    if answer.fault:
        return replace(row, state=LOST, why=f"{answer.fault}{back}", hint=answer.hint)
    document = answer.document()
    if document is None or answer.status != 0:
        return replace(row, state=FAILED, why=answer.error, hint=_hint_of_set_up(row.node, answer))
    run = document.get("run")
    steps = _steps(document, CHANGED)
    return replace(row, state=CHANGED if steps else UNCHANGED, steps=steps, run=run if type(run) is int else 0)


def _verified(row: HostChange, status: HostStatus, confirm_within: int | None) -> HostChange:
    """Return the row of a host that was changed, given its status on a new connection."""
    back = _reverts(confirm_within)
    if not status.is_set_up:
        state = LOST if status.state == UNREACHABLE else FAILED
        return replace(row, state=state, why=f"{status.why}{back}", hint=status.hint)
    if status.own_trouble:
        return replace(row, state=FAILED, why=f"changed, but {status.own_trouble}{back}", hint=status.hint)
    return row


def _ended(row: HostChange, answer: Answer, state: str) -> HostChange:
    """Return the row of a host after it was asked to keep or to revert its change."""
    if answer.fault:
        return replace(row, state=LOST, why=f"{answer.fault}; it reverts its change by itself", hint=answer.hint)
    if answer.status != 0:
        return replace(row, state=FAILED, why=answer.error, hint=survey.hint_of(row.node, answer))
    return replace(row, state=state, run=0)
