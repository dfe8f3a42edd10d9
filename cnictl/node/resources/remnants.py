"""Find and remove, by its mark, what cnictl left on a host and no record names.

Rules that were saved and are restored at boot outlive a reset. If our files are lost, everything does. Then only the
marks count: chains CNICTL-*, comments that begin with `cnictl:`, our nftables tables, routing protocols 67 and 68, and
aliases of links.
"""

import re
import shlex
from collections.abc import Iterable
from itertools import pairwise
from socket import AF_INET, AF_INET6

from cnictl.core import isolation, macspoof
from cnictl.core.errors import Problem
from cnictl.core.iptables_listing import FAMILIES, listing
from cnictl.core.masquerade import rule_set
from cnictl.core.netlink import nftables, rtnetlink
from cnictl.core.netlink.rtnetlink import Netlink
from cnictl.core.process import run
from cnictl.core.unlinking import unlink
from cnictl.node.host import firewall, route_lookup
from cnictl.node.host.firewall import PROGRAMS
from cnictl.node.host.route_lookup import LEARNED_PROTOCOL, MAIN_TABLE, PROTOCOL, RouteResult
from cnictl.node.resources import hidden_chains
from cnictl.node.resources.bridge import OWNER_MARK
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.node.spine import Change, State

_CHAINS = "CNICTL-"
_NATIVE = "nft"
"""The key in a state for rules that only nft can name; the other keys are tables."""
_INCOMPATIBLE = re.compile(r"^# Table `([^']+)' is incompatible", re.MULTILINE)
"""How `iptables-save` names a table that it leaves out because it contains a native rule of nft."""

Line = tuple[str, str]
"""A table's name and a line: `-A CHAIN …` as `iptables-save` prints it, or `-N CHAIN`."""


class _Remnant:
    """The base of all remnants: no spec asks for them, and an undo does not restore them."""

    def desired(self, spec: NodeSpec) -> State | None:  # noqa: ARG002 - no node has any
        """Return None: no remnant is desired."""
        return None

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """Return the summary and the manual commands of the removal."""
        words, commands = self._removal(before or after or {})
        return f"remove {words}", "" if after else "\n".join(commands)

    def carry_out(self, change: Change) -> None:
        """Remove what was seen and still exists. Raises Problem, OSError."""
        if change.after is None and change.before:
            self._remove(change.before)

    def _removal(self, seen: State) -> tuple[str, list[str]]:
        """Return in words what is removed, and the manual commands."""
        raise NotImplementedError

    def _remove(self, seen: State) -> None:
        raise NotImplementedError


class TaggedIptables(_Remnant):
    """Our chains and the tagged rules anywhere in iptables, of one family and one of its two kinds.

    `program` is `iptables`, `ip6tables-legacy`, …; `covered` are chains (table, name) that another resource removes.
    """

    def __init__(self, program: str, covered: frozenset[tuple[str, str]] = frozenset()) -> None:
        self._program = program
        self._covered = covered
        self.id = f"remnants/{program}"

    def observe(self) -> State | None:
        """Return by table the lines of iptables-save that add our rules, and `-N CHAIN` for each chain of ours.

        Raises Problem if the program is missing and a chain of ours exists that it would show.
        """
        if not firewall.has_command(f"{self._program}-save"):
            self._refuse_unseen()
            return None
        lines: dict[str, list[str]] = {}
        if native := self._native():
            lines[_NATIVE] = native
        for table, line in self._marked():
            words = shlex.split(line)
            leads_to = (table, words[-1]) if words[-2] == "-j" else None
            if (table, words[1]) not in self._covered and leads_to not in self._covered:
                lines.setdefault(table, []).append(line)
        return lines or None

    def _refuse_unseen(self) -> None:
        family = FAMILIES[self._program]
        places = [(table, chain) for table in nftables.tables(family) for chain in nftables.chains(family, table)]
        unseen = [(table, chain) for table, chain in places if chain.startswith(_CHAINS)]
        names = [f"{chain} in table {table}" for table, chain in unseen if (table, chain) not in self._covered]
        if names:
            raise hidden_chains.missing(self._program, f"{', '.join(names)} exist{'s' if len(names) == 1 else ''}")

    def _removal(self, seen: State) -> tuple[str, list[str]]:
        words = [f"rule {rule}" for rule in seen.get(_NATIVE, [])]
        commands = [f"nft delete rule {rule}" for rule in seen.get(_NATIVE, [])]
        for table, rules in seen.items():
            if table != _NATIVE:
                words += [f"{rule[3:]} ({table})" for rule in rules]
                commands += [f"{self._program} -w -t {table} {line}" for line in _removal(rules)]
        return f"cnictl's tagged rules in {self._program}: {'; '.join(words)}", commands

    def _remove(self, seen: State) -> None:
        native = [rule for rule in self._native() if rule in seen.get(_NATIVE, [])]
        if native:
            run(["nft", "-f", "-"], "".join(f"delete rule {rule}\n" for rule in native))
        now = self._marked()
        for table, lines in seen.items():
            standing = [line for at, line in now if at == table and line in lines]
            if standing:
                text = "\n".join([f"*{table}", *_removal(standing), "COMMIT", ""])
                run([f"{self._program}-restore", "--noflush", "-w"], text)
        for table, chain in (("filter", "FORWARD"), ("nat", "POSTROUTING")):
            firewall.drop_remnant(table, chain, self._family)

    @property
    def _family(self) -> str:
        return next(family for family, name in reversed(PROGRAMS.items()) if self._program.startswith(name))

    def _saved(self) -> tuple[list[Line], list[tuple[str, str]]]:
        """Return all chains and rules with their table, and the chains with their table that the program can't read."""
        text = run([f"{self._program}-save"]).stdout
        saved, unread = _read_saved(text), []
        for table in _INCOMPATIBLE.findall(text):
            lines, names = listing(self._program, table)
            saved += [(table, line) for line in lines if line[:3] in ("-N ", "-A ")]
            unread += [(table, name) for name in names]
        return saved, unread

    def _native(self) -> list[str]:
        """Return our rules in chains that the program can't read, in nft's form: `ip filter INPUT handle 7`.

        Raises Problem if nft is missing.
        """
        _, unread = self._saved()
        if not unread:
            return []
        if not firewall.has_command("nft"):
            names = ", ".join(f"{chain} of table {table}" for table, chain in unread)
            raise Problem(
                f"{self._program} can't read {names}, because it contains native nft rules", "install nftables"
            )
        rules = [entry["rule"] for entry in firewall.ruleset() if "rule" in entry]
        covered = {chain for _, chain in self._covered}
        return [
            f"{rule['family']} {rule['table']} {rule['chain']} handle {rule['handle']}"
            for rule in rules
            if rule["family"] == self._family
            and (rule["table"], rule["chain"]) in unread
            and hidden_chains.target(rule) not in covered
            and (hidden_chains.target(rule).startswith(_CHAINS) or str(rule.get("comment", "")).startswith(OWNER_MARK))
        ]

    def _marked(self) -> list[Line]:
        """Return our jumps and tagged rules first, then our chains."""
        saved, _ = self._saved()
        ours = [(table, line) for table, line in saved if line.startswith(f"-N {_CHAINS}")]
        others = [(table, line) for table, line in saved if line[:3] == "-A " and line[3:].find(_CHAINS) != 0]
        return [(table, line) for table, line in others if _is_tagged(shlex.split(line))] + ours


def _read_saved(text: str) -> list[Line]:
    """Return the chains and the rules in `iptables-save`'s text, each with its table: `-N CHAIN`, `-A CHAIN …`."""
    saved: list[Line] = []
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith(":"):
            saved.append((table, f"-N {line[1:].split()[0]}"))
        elif line.startswith("-A "):
            saved.append((table, line))
    return saved


def _is_tagged(words: list[str]) -> bool:
    pairs = list(pairwise(words))
    leads = any(option in ("-j", "-g") and target.startswith(_CHAINS) for option, target in pairs)
    return leads or any(option == "--comment" and text.startswith(OWNER_MARK) for option, text in pairs)


def _removal(lines: Iterable[str]) -> list[str]:
    """Return the lines of iptables-restore that remove rules and then chains."""
    rules = [f"-D {line[3:]}" for line in lines if line.startswith("-A ")]
    chains_there = [line[3:] for line in lines if line.startswith("-N ")]
    return [*rules, *(f"-F {chain}" for chain in chains_there), *(f"-X {chain}" for chain in chains_there)]


def iptables_programs() -> list[str]:
    """Return the programs whose rules may be ours: the two usual ones, and those of the other kind if installed."""
    programs = []
    for base in PROGRAMS.values():
        kinds: dict[bool, str] = {}
        for program in (base, f"{base}-nft", f"{base}-legacy"):
            if firewall.has_command(f"{program}-save"):
                version = run([f"{program}-save", "--version"], check=False).stdout
                kinds.setdefault("nf_tables" in version, program)
        programs += list(kinds.values())
    return programs


class OwnTables(_Remnant):
    """Chains in the tables `inet cnictl` and `bridge cnictl`, and isolated ports, that no other resource removes.

    `names` are networks whose chains another resource removes; `ports` are host veths that are removed with their
    attachments.
    """

    id = "remnants/nft"

    def __init__(self, names: frozenset[str] = frozenset(), ports: frozenset[str] = frozenset()) -> None:
        self._known = tuple(chain for name in names for chain in rule_set.chains_of(name))
        self._ports = ports

    def observe(self) -> State | None:
        """Return the chains by family, and the ports that a lost attachment with `portIsolation` left isolated."""
        isolated = [port for port in isolation.isolated() if port not in self._ports]
        guards = [port for port in macspoof.guarded() if port not in self._ports]
        every = nftables.chains(nftables.FAMILY_INET, rule_set.TABLE)
        chains = [chain for chain in every if not {chain, chain.partition("/")[0]}.intersection(self._known)]
        names_by_kind = {"inet": chains, "bridge": guards, "isolated": isolated}
        return {family: names for family, names in names_by_kind.items() if names} or None

    def _removal(self, seen: State) -> tuple[str, list[str]]:
        families = {family: names for family, names in seen.items() if family != "isolated"}
        places = [f"{family} {rule_set.TABLE} {name}" for family, names in families.items() for name in names]
        commands = [f"nft delete chain {place}" for place in places]
        words = [f"the nftables chains {', '.join(places)}"] if places else []
        if ports := seen.get("isolated", []):
            words.append(f"the isolation rules for {', '.join(ports)}")
            commands.append(f"nft list ruleset bridge | grep {isolation.TABLES}  # then nft delete table bridge NAME")
        return " and ".join(words), commands

    def _remove(self, seen: State) -> None:
        nftables.remove_chains(nftables.FAMILY_INET, rule_set.TABLE, seen.get("inet", []).__contains__)
        nftables.remove_table_if_empty(nftables.FAMILY_INET, rule_set.TABLE)
        for port in seen.get("bridge", []):
            macspoof.remove((port,))
        for port in seen.get("isolated", []):
            isolation.remove(port, recorded=False)


class TaggedRoutes(_Remnant):
    """Routes with our protocol numbers that lead to no peer: learned routes, and any outside the main table."""

    id = "remnants/routes"

    def observe(self) -> State | None:
        """Return them as arguments of `ip route`."""
        routes = sorted(_in_words(route) for route in _tagged_routes())
        return {"routes": routes} if routes else None

    def _removal(self, seen: State) -> tuple[str, list[str]]:
        return f"the routes {', '.join(seen['routes'])}", [f"ip route del {route}" for route in seen["routes"]]

    def _remove(self, seen: State) -> None:
        from pyroute2 import IPRoute
        from pyroute2.netlink.exceptions import NetlinkError

        with IPRoute() as iproute:
            for route in (route for route in _tagged_routes() if _in_words(route) in seen["routes"]):
                family = AF_INET6 if ":" in route.destination else AF_INET
                keys = {"dst": route.destination, "proto": route.protocol, "table": route.table, "type": route.kind}
                try:
                    iproute.route("del", family=family, priority=route.priority, **keys)
                except NetlinkError as error:
                    raise OSError(error.code, f"{_in_words(route)}: {error.args[-1]}") from None


def _tagged_routes() -> list[RouteResult]:
    return [
        route
        for _, route in route_lookup.routes()
        if route.protocol == LEARNED_PROTOCOL or (route.protocol == PROTOCOL and route.table != MAIN_TABLE)
    ]


def _in_words(route: RouteResult) -> str:
    via = f" via {route.gateway}" if route.gateway else ""
    table = "" if route.table == MAIN_TABLE else f" table {route.table}"
    metric = f" metric {route.priority}" if route.priority else ""
    return f"{route.destination}{via}{table}{metric} proto {route.protocol}"


class TaggedLinks(_Remnant):
    """Links with our alias that are neither a bridge nor a pod's, such as a VLAN's gateway."""

    id = "remnants/links"

    def observe(self) -> State | None:
        """Return their names."""
        with Netlink() as netlink:
            links = rtnetlink.all_links(netlink)
        names = [
            link.name
            for link in links
            if link.alias.startswith(OWNER_MARK) and "/" not in link.alias and link.kind != "bridge"
        ]
        return {"links": sorted(names)} if names else None

    def _removal(self, seen: State) -> tuple[str, list[str]]:
        return f"the links {', '.join(seen['links'])}", [f"ip link delete {name}" for name in seen["links"]]

    def _remove(self, seen: State) -> None:
        with Netlink() as netlink:
            for name in seen["links"]:
                unlink(netlink, name)
