"""Install or upgrade cnictl on the hosts of a cluster file, one after the other, and roll back a host that fails.

A host gets the bundle, then the plugin of its version, and is verified by doctor and a probe pod before the next host
is touched. If a host fails, its previous plugin and command are restored, and the hosts after it are not changed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cnictl.cluster import host_install
from cnictl.cluster.bundle import Bundle
from cnictl.cluster.host_install import CHECK_SECONDS, INSTALL_SECONDS, SHORT_SECONDS, Installed
from cnictl.cluster.hosts import Answer, Command, Hosts
from cnictl.cluster.survey import as_hint
from cnictl.core.counted import counted
from cnictl.node.reach.cluster_file import ClusterNode

UNREACHABLE, REFUSED, UNCHANGED, WOULD_CHANGE = "unreachable", "refused", "unchanged", "would change"
CHANGED, REVERTED, FAILED, LOST, NOT_STARTED = "changed", "reverted", "failed", "lost", "not started"
_GOOD = (UNCHANGED, WOULD_CHANGE, CHANGED)

_PLUGIN_RUN = "plugin install"
_DEVELOPMENT = ".dev"
_NO_PYTHON_HINT = "install the distribution's python3 there (Debian 12 or newer: apt install python3)"


@dataclass(frozen=True)
class HostInstall:
    """The planned or the actual outcome for a host."""

    node: ClusterNode
    state: str
    why: str = ""
    hint: str = ""
    before: Installed = field(default_factory=Installed)
    after: Installed | None = None
    """What is installed afterwards; None if that is not known, or nothing was done."""

    @property
    def is_good(self) -> bool:
        """Whether the host has or would get the bundle's version."""
        return self.state in _GOOD

    @property
    def now(self) -> Installed:
        """What is installed now, as far as it is known."""
        return self.after or self.before

    def as_json(self) -> dict[str, Any]:
        """Return the row for programs."""
        after = self.after
        return {
            "node": self.node.name,
            "state": self.state,
            "why": self.why,
            "cnictl": {"before": self.before.cnictl, "after": after.cnictl if after else None},
            "plugin": {"before": self.before.plugin, "after": after.plugin if after else None},
            "hint": as_hint(self.hint),
        }


@dataclass
class Rollout:
    """Installs one bundle on some hosts."""

    hosts: Hosts
    nodes: tuple[ClusterNode, ...]
    bundle: Bundle
    is_upgrade: bool
    """Whether hosts with another version are upgraded. Otherwise hosts without cnictl get it."""
    on_step: Callable[[str], None] = lambda _: None

    def plan(self) -> list[HostInstall]:
        """Ask all hosts at the same time what is installed, and return the planned outcome for each."""
        names = [node.name for node in self.nodes]
        self.on_step(f"asking {counted(len(names), 'host')}")
        observed = self._observe(names)
        return [self._planned(node, *observed[node.name]) for node in self.nodes]

    def carry_out(self, planned: Sequence[HostInstall]) -> list[HostInstall]:
        """Change the hosts that would change, in order, until one fails."""
        rows, stopped = [], ""
        for row in planned:
            if row.state == WOULD_CHANGE:
                why = f"{stopped} failed before it"
                row = replace(row, state=NOT_STARTED, why=why) if stopped else self._change(row)
                stopped = stopped or ("" if row.is_good else row.node.name)
            rows.append(row)
        return rows

    def _planned(self, node: ClusterNode, answer: Answer, before: Installed) -> HostInstall:
        if answer.fault:
            return HostInstall(node, UNREACHABLE, answer.fault, answer.hint)
        if answer.status != 0:
            return HostInstall(node, REFUSED, answer.error, answer.error_hint)
        if self._is_done(before):
            return HostInstall(node, UNCHANGED, before=before, after=before)
        why, hint = self._refusal(node, before)
        return HostInstall(node, REFUSED if why else WOULD_CHANGE, why, hint, before)

    def _is_done(self, before: Installed) -> bool:
        """Return whether a host has the bundle's version.

        Two builds of a version count as equal, unless it is a `.dev` version.
        """
        if before.cnictl != self.bundle.version or not self.is_upgrade:
            return before.cnictl == self.bundle.version
        is_same = before.bundle == self.bundle.name or _DEVELOPMENT not in self.bundle.version
        has_plugin = not before.is_node or before.plugin.partition("+")[0] == self.bundle.version
        return is_same and has_plugin

    def _refusal(self, node: ClusterNode, before: Installed) -> tuple[str, str]:
        """Return why a host is left as it is, and the hint; both empty if it can be changed. Pure."""
        if before.packaged:
            hint = "upgrade the package (apt), or remove it first: pods keep running"
            return f"{before.packaged} there belongs to a package", hint
        if not before.has_python:
            return "has no Python 3.11 or newer", _NO_PYTHON_HINT
        if before.cnictl and not self.is_upgrade:
            return f"has cnictl {before.cnictl}", f"cnictl cluster upgrade --limit {node.name}"
        if not before.cnictl and self.is_upgrade:
            return "has no cnictl", f"cnictl cluster install --limit {node.name}"
        if before.is_from_kubernetes and not self.bundle.has_kubernetes:
            hint = "`make bundle EXTRA=kubernetes` in a checkout makes a bundle with it; pass that with --bundle"
            return "learns its peers from Kubernetes, but the bundle lacks the extra for that", hint
        return "", ""

    def _change(self, row: HostInstall) -> HostInstall:
        """Change one host and verify it; roll back if that fails."""
        name = row.node.name
        healthy = self._ask(name, host_install.DOCTOR, CHECK_SECONDS) if row.before.is_node else Answer(name)
        self.on_step(f"{name}: installing cnictl {self.bundle.version}")
        answer = self._ask(name, host_install.install(self.bundle), INSTALL_SECONDS)
        fault, hint = _fault_of(answer)
        if not fault and row.before.is_node:
            self.on_step(f"{name}: installing the plugin")
            fault, hint = _fault_of(self._ask(name, host_install.PLUGIN_INSTALL, CHECK_SECONDS))
            fault = f"plugin: {fault}" if fault else ""
            fault = fault or self._verified(name, healthy)
        after = self._installed_on(name)
        if not fault and after is not None and self._is_done(after):
            return replace(row, state=CHANGED, after=after)
        fault = fault or "the new version is not in use afterwards"
        return self._revert(replace(row, why=fault, hint=hint, after=after))

    def _verified(self, name: str, healthy: Answer) -> str:
        """Return what is wrong on a host after its upgrade; empty if nothing."""
        self.on_step(f"{name}: verifying")
        fault, _ = _fault_of(self._ask(name, host_install.RESTART_WATCH, SHORT_SECONDS))
        if fault:
            return f"cnictl-watch: {fault}"
        probed = self._ask(name, host_install.PROBE, CHECK_SECONDS)
        diagnosed = self._ask(name, host_install.DOCTOR, CHECK_SECONDS)
        return host_install.probe_fault(probed) or host_install.doctor_fault(healthy, diagnosed)

    def _revert(self, row: HostInstall) -> HostInstall:
        """Restore the previous plugin and command, and return the host's outcome."""
        name, before = row.node.name, row.before
        self.on_step(f"{name}: failed, restoring the previous version")
        self.hosts.reconnect([name])
        now = row.after or self._installed_on(name)
        if now is None:
            return replace(row, state=LOST, why=f"{row.why}; its present version is not known")
        faults = []
        if now.plugin != before.plugin:
            run = host_install.run_of(self._ask(name, host_install.HISTORY, SHORT_SECONDS), _PLUGIN_RUN)
            if run:  # the run also replaced the copy of cnictl that the units start
                self._ask(name, host_install.undo(run), CHECK_SECONDS)
        if now.bundle != before.bundle and now.bundle:
            faults.append(
                _fault_of(self._ask(name, host_install.restore_command(now.bundle, before), SHORT_SECONDS))[0]
            )
        now = self._installed_on(name) or now
        if now.plugin != before.plugin and before.plugin:
            faults.append(_fault_of(self._ask(name, host_install.use_plugin(before.plugin), CHECK_SECONDS))[0])
            now = self._installed_on(name) or now
        if before.is_node:
            self._ask(name, host_install.RESTART_WATCH, SHORT_SECONDS)
        is_back = (now.cnictl, now.bundle, now.plugin) == (before.cnictl, before.bundle, before.plugin)
        if is_back:
            return replace(row, state=REVERTED, after=now)
        why = "; ".join([row.why, "and the previous version could not be restored", *filter(None, faults)])
        return replace(row, state=FAILED, why=why, after=now)

    def _installed_on(self, name: str) -> Installed | None:
        answer, installed = self._observe([name])[name]
        return None if answer.fault or answer.status != 0 else installed

    def _observe(self, names: Iterable[str]) -> dict[str, tuple[Answer, Installed]]:
        """Return each host's answer, and what is installed there."""
        answers = self.hosts.run(dict.fromkeys(names, host_install.OBSERVE), SHORT_SECONDS, _ignore)
        having = [name for name, answer in answers.items() if host_install.read(answer).cnictl]
        statuses: Mapping[str, Answer] = self.hosts.run(
            dict.fromkeys(having, host_install.STATUS), CHECK_SECONDS, _ignore
        )
        return {name: (answer, host_install.read(answer, statuses.get(name))) for name, answer in answers.items()}

    def _ask(self, name: str, command: Command, seconds: float) -> Answer:
        return self.hosts.run({name: command}, seconds, _ignore)[name]


def _fault_of(answer: Answer) -> tuple[str, str]:
    """Return why a command failed, and the hint; both empty if it did not."""
    if answer.fault:
        return answer.fault, answer.hint
    return (answer.error, answer.error_hint) if answer.status != 0 else ("", "")


def _ignore(_: Answer) -> None:
    pass
