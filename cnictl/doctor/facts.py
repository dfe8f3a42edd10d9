"""Read the facts about the host that checks need. Each is read once, at its first use, until `forget`."""

import glob
import json
import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from cnictl.core import attachments, durable, programs
from cnictl.core.attachments import Record
from cnictl.core.errors import Problem
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Link, Netlink
from cnictl.core.process import run
from cnictl.doctor import echo
from cnictl.node.addresses import lease_list
from cnictl.node.addresses.lease_list import Listing
from cnictl.node.host import firewall, host_links, pod_routes, runtimes
from cnictl.node.host.host_links import Narrowest
from cnictl.node.host.pod_routes import RouteFindings
from cnictl.node.resources import peer_routes
from cnictl.node.resources.cni_conf import FILE_NAME
from cnictl.node.runs import converge
from cnictl.node.spec import node_file
from cnictl.node.spec.node_spec import NodeSpec, Peer
from cnictl.node.spine import Change, Plan, Step
from cnictl.probe import neighbours, owning


class Facts:
    """The facts about this host. A property raises the errors of reading it."""

    def forget(self) -> None:
        """Discard all facts after a fix, so that they are read again."""
        self.__dict__.clear()

    @cached_property
    def spec(self) -> NodeSpec | None:
        """The node's spec; None if this host is not set up as a node. Raises UsageProblem if its file can't be read."""
        return node_file.load()

    @cached_property
    def drift(self) -> list[Change]:
        """The node's differences from its spec, in the spine's order; empty if this host is not a node."""
        return list(self._plan.changes)

    @cached_property
    def unknown(self) -> list[Step]:
        """The node's resources that can't be read."""
        return list(self._plan.unknown)

    @cached_property
    def _plan(self) -> Plan:
        return converge.plan(self.spec).whole if self.spec is not None else Plan(())

    @cached_property
    def uplink(self) -> str:
        """The uplink, or empty."""
        return host_links.uplink(self.spec) if self.spec is not None else ""

    @cached_property
    def peer_links(self) -> dict[Peer, str]:
        """The link to each peer, even if it is down; empty if it is not known."""
        links = host_links.peer_links(self.spec) if self.spec is not None else {}
        return {peer: link or host_links.link_of_subnet(peer.via) for peer, link in links.items()}

    @cached_property
    def others(self) -> list[str]:
        """The links to other hosts: the uplink, and those to the peers."""
        bridge = self.spec.bridge if self.spec is not None else ""
        return [name for name in dict.fromkeys((self.uplink, *self.peer_links.values())) if name and name != bridge]

    @cached_property
    def narrowest(self) -> Narrowest | None:
        """The smallest MTU on the path to other hosts; None if no link to them is known."""
        narrowest = host_links.smallest_mtu(self.spec) if self.spec is not None else None
        return narrowest if narrowest is not None and narrowest.link else None

    @cached_property
    def route_findings(self) -> RouteFindings:
        """Where the kernel sends packets of pods."""
        return pod_routes.observe(self.spec) if self.spec is not None else RouteFindings()

    @cached_property
    def links(self) -> dict[str, Link]:
        """Every link of the host by name."""
        with Netlink() as netlink:
            return {link.name: link for link in rtnetlink.all_links(netlink)}

    @cached_property
    def answering(self) -> set[str]:
        """The peers' addresses that answer a small echo request."""
        links = {peer.via: link for peer, link in self.peer_links.items() if not peer.dev}
        on_link = neighbours.answering((address, link) for address, link in links.items() if link)
        peers = self.spec.known_peers if self.spec is not None else ()
        asked = {peer.via for peer in peers if on_link.get((peer.via, links.get(peer.via, ""))) is not False}
        return {address for address, answered in echo.at_once(echo.answers, asked) if answered}

    @cached_property
    def served(self) -> dict[Peer, str]:
        """Whether each peer with a working route has its pod CIDR, as `probe.owning` names it."""
        return owning.ask(peer_routes.reached_peers(self.spec, self.route_findings)) if self.spec is not None else {}

    @cached_property
    def ports(self) -> list[Link]:
        """The bridge's ports."""
        bridge = self.links.get(self.spec.bridge) if self.spec is not None else None
        return [link for link in self.links.values() if bridge is not None and link.master == bridge.index]

    @cached_property
    def records(self) -> list[Record]:
        """The attachments of every network."""
        return list(attachments.every_record())

    @cached_property
    def listings(self) -> list[Listing]:
        """The addresses of each network whose ranges are known."""
        return [listing for listing in lease_list.listings(self.spec) if listing.sets]

    def rules(self, table: str, family: str = "ip") -> list[list[str]]:
        """Return iptables' rules of a table, each split into words; none if the program is missing."""
        tables: dict[tuple[str, str], list[list[str]]] = self.__dict__.setdefault("_rules", {})
        if (table, family) not in tables:
            tables[table, family] = self._listed(table, family)
        return tables[table, family]

    def _listed(self, table: str, family: str) -> list[list[str]]:
        """Return the rules. Raises Problem if the program can't read the table, or all of nat's POSTROUTING."""
        program = firewall.PROGRAMS[family]
        if not firewall.has_command(program):
            return []
        rules = firewall.rules_of(program, table)
        if table == "nat" and not firewall.reads(table, "POSTROUTING", family):
            raise Problem(f"{program} can't read POSTROUTING of table nat: it contains a native nftables rule")
        return rules

    @cached_property
    def conf(self) -> dict[str, Any] | None:
        """The plugin's configuration in cnictl's conf on this host; None if no conf can be read."""
        for folder in runtimes.conf_dirs(runtimes.find()):
            try:
                return dict(json.loads(text_of(f"{folder}/{FILE_NAME}"))["plugins"][0])
            except (ValueError, LookupError, TypeError):
                continue
        return None

    @cached_property
    def processes(self) -> set[str]:
        """The names of the running processes."""
        return host_links.processes()


def counters(path: str, group: str) -> dict[str, int]:
    """Return a group of counters of /proc/net/netstat or /proc/net/snmp: `TcpExt`, `Ip`, `Udp`."""
    values: dict[str, int] = {}
    names: list[str] = []
    for line in text_of(path).splitlines():
        head, _, rest = line.partition(":")
        if head != group:
            continue
        if not names:
            names = rest.split()
        else:
            values = dict(zip(names, map(int, rest.split()), strict=False))
    return values


def per_cpu(path: str) -> dict[str, int]:
    """Return a table of /proc/net/stat, which has a line of hexadecimal numbers per CPU, summed over all CPUs."""
    lines = text_of(path).splitlines()
    if len(lines) < 2:
        return {}
    names = lines[0].split()
    rows = [[int(word, 16) for word in line.split()] for line in lines[1:]]
    return {name: sum(row[at] for row in rows if at < len(row)) for at, name in enumerate(names)}


def said_by(argv: list[str]) -> str:
    """Return what a program prints; empty if it is missing or fails."""
    if not programs.find(argv[0]):
        return ""
    done = run(argv, check=False)
    return done.stdout if done.status == 0 else ""


def text_of(path: str) -> str:
    """Return a file's content, stripped; empty if it can't be read."""
    try:
        return durable.contents(path).decode("utf-8", "replace").strip()
    except OSError:
        return ""


def in_order(folders: Sequence[str]) -> list[str]:
    """Return the `.conf` files of several folders by name. A file hides those of the same name in later folders."""
    files: dict[str, str] = {}
    for folder in folders:
        for path in glob.glob(f"{folder}/*.conf"):
            files.setdefault(os.path.basename(path), path)
    return [files[name] for name in sorted(files)]
