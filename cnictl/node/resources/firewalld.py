"""Make firewalld accept pods' packets: with our own zone and policy, and the zone `trusted` until these are loaded.

firewalld knows a new zone only after a reload, and a reload would drop other changes made at run time. So cnictl does
not force one: bridge and pod networks join `trusted` at run time, and the next reload moves them to our zone. A name
in another zone's file stays there, because the operator chose it. If firewalld is installed but does not run, only the
files are written; it reads them when it starts.
"""

import glob
import json
import os
import shlex
from xml.etree import ElementTree

from cnictl.core.process import run
from cnictl.node import manual_commands
from cnictl.node.host import firewall, host_links
from cnictl.node.host.verdicts.pods import peers_addresses
from cnictl.node.plugin import files
from cnictl.node.spec.node_spec import NodeSpec, by_family, is_ipv6
from cnictl.node.spine import Change, State
from cnictl.node.state import folders, original_state

CONF_DIR = "/etc/firewalld"
ZONE, POLICY = f"{CONF_DIR}/zones/cnictl.xml", f"{CONF_DIR}/policies/cnictl-pods.xml"
"""The two names must differ: if a zone and a policy have the same one, firewalld falls back to its stock rules."""
POLICY_CHAIN = "filter_FWD_policy_cnictl-pods"
"""This chain is in firewalld's table only while our policy is loaded."""
TABLE_NAME = ("inet", "firewalld")
"""The family and name of firewalld's table."""
_TRUSTED = "trusted"
_ASK = [
    "busctl", "--json=short", "call", "org.fedoraproject.FirewallD1", "/org/fedoraproject/FirewallD1",
    "org.fedoraproject.FirewallD1.zone", "getActiveZones",
]  # fmt: skip
"""Equivalent to `firewall-cmd --get-active-zones`, in 15 ms instead of 400; every plan needs it."""
_ACCEPTING = (_TRUSTED, "cnictl")
_OURS = "Written by cnictl, removed by cnictl reset-node."
_ZONES = (f"{CONF_DIR}/zones", "/usr/lib/firewalld/zones")


class Firewalld:
    """Our two files, if firewalld is installed; while it runs, also the zone of each of our names."""

    id = "firewalld/cnictl"
    has_parts = True

    def __init__(self, spec: NodeSpec, earlier: tuple[NodeSpec, ...] = ()) -> None:
        self._known = [name for known in (*earlier, spec) for name in _names(known)]

    def observe(self) -> State | None:
        """Return the files' text by path, and zones by name; `trusted` also means our zone. None without either."""
        texts, zones = _files(), self._zones()
        return {"files": texts, "zones": zones} if texts or zones else None

    def desired(self, spec: NodeSpec) -> State | None:
        """Return files and zones for `spec`; None without firewalld, or if `forward` is false."""
        if not spec.forward or not _is_installed():
            return None
        claimed = _claimed()
        free = [name for name in _names(spec) if name not in claimed]
        texts = _files() if self.unwritable_paths(spec) else self._texts(spec)
        return {"files": texts, "zones": dict.fromkeys(free, _TRUSTED) if runs() else {}}

    def unwritable_paths(self, spec: NodeSpec) -> list[str]:
        """Return the files that should change but can't be written; a restarted firewalld then forgets the pods."""
        if not spec.forward or not _is_installed():
            return []
        now = _files()
        changed = [path for path, text in self._texts(spec).items() if now.get(path) != text]
        return changed if not all(map(files.can_write, changed)) else []

    def _texts(self, spec: NodeSpec) -> dict[str, str]:
        claimed = _claimed()
        return {ZONE: _zone([name for name in _names(spec) if name not in claimed]), POLICY: _policy(spec)}

    def remember(self) -> None:
        """Record foreign files in place of ours, and the zones of our names at run time."""
        texts = {path: text for path, text in _files().items() if _OURS not in text}
        original_state.remember(self.id, {"files": texts, "zones": self._zones()})

    def state_after_reset(self) -> State | None:
        """Return the original files; each name is in its original zone, or in the zone that somebody chose since."""
        foreign = {path: text for path, text in _files().items() if _OURS not in text}
        before = original_state.recall(self.id) or {"files": foreign, "zones": {}}
        zones = {name: before["zones"].get(name) if zone == _TRUSTED else zone for name, zone in self._zones().items()}
        names = {os.path.basename(path) for folder in _ZONES for path in glob.glob(f"{folder}/*.xml")}
        kept = {name: zone for name, zone in zones.items() if zone and f"{zone}.xml" in names}
        return {"files": before["files"], "zones": kept} if before["files"] or kept else None

    def _zones(self) -> dict[str, str]:
        """Return the zone of each of our names, except names that the operator bound to a zone."""
        bound = _bound()
        claimed = _claimed() if bound else set()
        return {
            name: _TRUSTED if zone in _ACCEPTING else zone
            for name, zone in sorted(bound.items())
            if name in self._known and name not in claimed
        }

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """Return the summary and the manual commands."""
        old, new = before or _NOTHING, after or _NOTHING
        commands = [
            manual_commands.write(path, text, old["files"].get(path))
            for path, text in new["files"].items()
            if old["files"].get(path) != text
        ]
        commands += [manual_commands.remove(path) for path in old["files"] if path not in new["files"]]
        commands += [shlex.join(argv) for argv in _bindings(old, new)] if runs() else []
        return "have firewalld trust pods" if after else "stop firewalld from trusting pods", "\n".join(commands)

    def carry_out(self, change: Change) -> None:
        """Write or remove the files, and tell a running firewalld. Raises Problem."""
        old, new = change.before or _NOTHING, change.after or _NOTHING
        for path in old["files"]:
            if path not in new["files"]:
                for name in (path, f"{path}.old"):  # firewalld makes a backup of a file that it changes
                    files.remove(name)
                folders.unmake(os.path.dirname(path))
        for path, text in new["files"].items():
            folders.make(os.path.dirname(path))
            files.write(path, text, 0o644)
        if runs():
            for argv in _bindings(old, new):
                run(argv)


_NOTHING: State = {"files": {}, "zones": {}}


def is_about_to_bind(spec: NodeSpec) -> bool:
    """Return whether firewalld runs and some of our names are not in a trusted zone yet. Its rules change then."""
    resource = Firewalld(spec)
    wanted = resource.desired(spec) if runs() else None
    return wanted is not None and wanted["zones"] != (resource.observe() or _NOTHING)["zones"]


def _files() -> dict[str, str]:
    return {path: files.read(path) for path in (ZONE, POLICY) if os.path.exists(path)}


def runs() -> bool:
    """Return whether firewalld runs."""
    return os.path.isdir(CONF_DIR) and "firewalld" in host_links.processes()


def _is_installed() -> bool:
    return os.path.isdir(CONF_DIR) and firewall.has_command("firewall-cmd")


def _names(spec: NodeSpec) -> list[str]:
    """Return our names in a zone: the bridge as interface, and the pod network of each family as source."""
    return [spec.bridge, *spec.networks]


def _bound() -> dict[str, str]:
    """Return the present zone of each bound interface and source; empty if firewalld does not run or answer."""
    if not runs():
        return {}
    asked = run(_ASK if firewall.has_command(_ASK[0]) else ["firewall-cmd", "--get-active-zones"], check=False)
    if asked.status != 0:
        return {}
    if firewall.has_command(_ASK[0]):
        zones = json.loads(asked.stdout)["data"][0]
        return {name: zone for zone, by_kind in zones.items() for names in by_kind.values() for name in names}
    zone_by_name, zone = {}, ""
    for line in asked.stdout.splitlines():
        if line[:1].strip():
            zone = line.split()[0]
        else:
            zone_by_name.update(dict.fromkeys(line.partition(":")[2].split(), zone))
    return zone_by_name


def _claimed() -> set[str]:
    """Return the interfaces and sources that other zones' files name."""
    names = set()
    for path in glob.glob(f"{CONF_DIR}/zones/**/*.xml", recursive=True):
        if path == ZONE:
            continue
        try:
            zone = ElementTree.parse(path)
        except (OSError, ElementTree.ParseError):
            continue  # firewalld can't read it either
        names |= {element.get("name", "") for element in zone.iter("interface")}
        names |= {element.get("address", "") for element in zone.iter("source")}
    return names


def _bindings(old: State, new: State) -> list[list[str]]:
    """Return the commands that change the zones of `old` to those of `new`."""
    present, wanted = old["zones"], new["zones"]
    return [
        ["firewall-cmd", f"--zone={zone}", f"--change-{_kind(name)}={name}"]
        for name, zone in wanted.items()
        if present.get(name) != zone
    ] + [["firewall-cmd", f"--remove-{_kind(name)}={name}"] for name in present if name not in wanted]


def _kind(name: str) -> str:
    return "source" if "/" in name else "interface"


def _zone(names: list[str]) -> str:
    lines = "".join(f'  <{_kind(name)} {"address" if "/" in name else "name"}="{name}"/>\n' for name in names)
    return f"""\
<?xml version="1.0" encoding="utf-8"?>
<zone target="ACCEPT">
  <short>cnictl</short>
  <description>Pods. {_OURS}</description>
{lines}  <forward/>
</zone>
"""


def _policy(spec: NodeSpec) -> str:
    """Return the policy's text. It accepts packets from pods, and packets to pods from pods and from peers' addresses.

    firewalld itself accepts established connections and those with a DNAT binding. Its zones decide about the rest.
    """
    rules = "".join(_rules(node) for node in by_family(spec))
    return f"""\
<?xml version="1.0" encoding="utf-8"?>
<policy priority="-100" target="CONTINUE">
  <short>cnictl</short>
  <description>Packets from and to pods. {_OURS}</description>
  <ingress-zone name="ANY"/>
  <egress-zone name="ANY"/>
{rules}</policy>
"""


def _rules(node: NodeSpec) -> str:
    """Return the rules of one address family."""
    to_pods = f'    <destination address="{node.subnet}"/>\n'
    ends = [f'    <source address="{node.subnet}"/>\n']
    ends += [
        f'    <source address="{sender}"/>\n{to_pods}' for sender in (node.network, *peers_addresses(node, node.subnet))
    ]
    family = "ipv6" if is_ipv6(node.subnet) else "ipv4"
    return "".join(f'  <rule family="{family}">\n{end}    <accept/>\n  </rule>\n' for end in ends)
