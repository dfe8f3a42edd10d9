"""The host as the checks see it: each thing is looked at once, when the first check asks, until `forget`."""

import glob
import json
import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from cnictl.core import attachments, durable, rtnetlink
from cnictl.core.attachments import Record
from cnictl.core.process import run
from cnictl.core.rtnetlink import Link, Netlink
from cnictl.doctor import echo
from cnictl.node import converge, firewall, host, ipam, node_file, ranges, runtimes, show
from cnictl.node.ipam import Listing
from cnictl.node.resources.cni_conf import FILE_NAME
from cnictl.node.spec import NodeSpec, Peer
from cnictl.node.spine import Change
from cnictl.probe import owning


class Facts:
    """Facts about this host. Every property raises what looking raised."""

    def forget(self) -> None:
        """Look anew from here on: something was mended."""
        self.__dict__.clear()

    @cached_property
    def spec(self) -> NodeSpec | None:
        """What this node should be; None on a host that is none. Raises UsageProblem if its file can't be read."""
        return node_file.load()

    @cached_property
    def drift(self) -> list[Change]:
        """Where the node differs from its spec, in the spine's order; nothing on a host that is no node."""
        return list(converge.plan(self.spec).whole.changes) if self.spec is not None else []

    @cached_property
    def uplink(self) -> str:
        """The link to the peers, or empty."""
        return host.uplink(self.spec) if self.spec is not None else ""

    @cached_property
    def links(self) -> dict[str, Link]:
        """Every link of the host by name."""
        with Netlink() as netlink:
            return {link.name: link for link in rtnetlink.all_links(netlink)}

    @cached_property
    def answering(self) -> set[str]:
        """The peers' addresses that answer a small echo request."""
        peers = self.spec.peers if self.spec is not None else ()
        return {address for address, answered in echo.at_once(echo.answers, {peer.via for peer in peers}) if answered}

    @cached_property
    def served(self) -> dict[Peer, str]:
        """What each peer that a route of ours leads to says of its pod CIDR, as in `probe.owning`."""
        if self.spec is None:
            return {}
        routes = zip(self.spec.peers, show.routes(self.spec), strict=False)
        on_link = [peer for peer, route in routes if route["state"].startswith("ok") and route["link"] == show.ON_LINK]
        return owning.ask(on_link)

    @cached_property
    def ports(self) -> list[Link]:
        """The bridge's ports."""
        bridge = self.links.get(self.spec.bridge) if self.spec is not None else None
        return [link for link in self.links.values() if bridge is not None and link.master == bridge.index]

    @cached_property
    def records(self) -> list[Record]:
        """The attachments of every network."""
        return [record for network in attachments.networks() for record in attachments.all_records(network)]

    @cached_property
    def listings(self) -> list[Listing]:
        """The addresses of each network that a conf or the node file is of."""
        names = ipam.networks() if self.spec is None else sorted({self.spec.name, *ipam.networks()})
        found = [(name, ranges.of_network(name, self.spec)) for name in names]
        return [ipam.observe(name, known.data_dir, known.sets) for name, known in found if known.sets]

    @cached_property
    def ruleset(self) -> list[dict[str, Any]]:
        """nftables' rules, by `nft -j list ruleset`."""
        return firewall.ruleset()

    def rules(self, table: str, family: str = "ip") -> list[list[str]]:
        """iptables' rules of a table, in words; nothing where there is no such program."""
        known: dict[tuple[str, str], list[list[str]]] = self.__dict__.setdefault("_rules", {})
        if (table, family) not in known:
            works = firewall.iptables_works(family)
            known[table, family] = firewall.iptables_rules(table, family) if works else []
        return known[table, family]

    @cached_property
    def conf(self) -> dict[str, Any] | None:
        """What our conf on this host has the plugin called with; None without one that can be read."""
        for folder in runtimes.conf_dirs(runtimes.find()):
            try:
                return dict(json.loads(text_of(f"{folder}/{FILE_NAME}"))["plugins"][0])
            except (ValueError, LookupError, TypeError):
                continue
        return None

    @cached_property
    def processes(self) -> set[str]:
        """Names of the processes that run."""
        return host.processes()


def sysctl(name: str) -> str:
    """The value of `net.ipv4.ip_forward`, or of `net/ipv4/conf/eth0.5/…` where a part holds a dot; empty without."""
    return text_of("/proc/sys/" + (name if "/" in name else name.replace(".", "/")))


def counters(path: str, group: str) -> dict[str, int]:
    """A group of /proc/net/netstat or /proc/net/snmp: `TcpExt`, `Ip`, `Udp`."""
    found: dict[str, int] = {}
    names: list[str] = []
    for line in text_of(path).splitlines():
        head, _, rest = line.partition(":")
        if head != group:
            continue
        if not names:
            names = rest.split()
        else:
            found = dict(zip(names, map(int, rest.split()), strict=False))
    return found


def per_cpu(path: str) -> dict[str, int]:
    """A table of /proc/net/stat, hexadecimal and a line a CPU, summed up."""
    lines = text_of(path).splitlines()
    if len(lines) < 2:
        return {}
    names = lines[0].split()
    rows = [[int(word, 16) for word in line.split()] for line in lines[1:]]
    return {name: sum(row[at] for row in rows if at < len(row)) for at, name in enumerate(names)}


def said_by(argv: list[str]) -> str:
    """What a program printed; empty where it isn't there or fails."""
    from shutil import which

    if which(argv[0]) is None:
        return ""
    done = run(argv, check=False)
    return done.stdout if done.status == 0 else ""


def text_of(path: str) -> str:
    """A file's content without the ends' white space; empty if it can't be read."""
    try:
        return durable.contents(path).decode("utf-8", "replace").strip()
    except OSError:
        return ""


def in_order(folders: Sequence[str]) -> list[str]:
    """The `.conf` files of several folders by name, as systemd reads them: one hides its namesakes in later folders."""
    files: dict[str, str] = {}
    for folder in folders:
        for path in glob.glob(f"{folder}/*.conf"):
            files.setdefault(os.path.basename(path), path)
    return [files[name] for name in sorted(files)]


def _words(path: str) -> list[str]:
    return text_of(path).split()


def exists(path: str) -> bool:
    """Whether there is such a file."""
    return os.path.exists(path)
