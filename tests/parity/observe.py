"""Read a host's state at one moment with `ip` and `nft`, independently of both plugins."""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.parity.places import Json, Place, inside

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_STATE = "/var/lib"
_OF_THE_NETWORK = ("lock", "last_reserved_ip.")
"""Files of a store that belong to the network, not to an attachment."""


@dataclass(frozen=True)
class Snapshot:
    """The host's links with their addresses, its routes, rules and state files, and the pods' links and routes."""

    links: dict[str, Json]
    routes: list[Json]
    rules: list[str]
    files: dict[str, str]
    pods: dict[str, tuple[dict[str, Json], list[Json]]]

    def host_end(self, pod: str, ifname: str = "eth0") -> Json | None:
        """Return the link on the host that is the other end of a pod's interface."""
        link = self.pods[pod][0].get(ifname)
        if link is None:
            return None
        return next(
            (host_link for host_link in self.links.values() if host_link["ifindex"] == link.get("link_index")), None
        )

    def pod_link(self, pod: str, ifname: str = "eth0") -> Json | None:
        """Return a pod's interface."""
        return self.pods[pod][0].get(ifname)


def take(place: Place, pods: Iterable[str] = ("a", "b")) -> Snapshot:
    """Return a snapshot of the host and these pods."""
    with inside(place.netns):
        links, routes = _links_and_routes()
        rules = _read("nft", "-s", "list", "ruleset").splitlines()
    looked: dict[str, tuple[dict[str, Json], list[Json]]] = {}
    for pod in pods:
        if not os.path.exists(place.pod_netns(pod)):
            looked[pod] = ({}, [])  # its namespace was deleted
            continue
        with inside(place.pod_netns(pod)):
            looked[pod] = _links_and_routes()
    return Snapshot(links, routes, [" ".join(rule.split()) for rule in rules], _files(place), looked)


def sysctl(netns: str, name: str) -> str:
    """Return a namespace's kernel setting under /proc/sys/net; empty if it does not exist."""
    with inside(netns):
        try:
            with open(f"/proc/sys/net/{name}") as file:
                return file.read().strip()
        except OSError:
            return ""


def addresses(link: Json | None) -> list[str]:
    """Return a link's addresses, without those that the kernel assigns."""
    return [f"{address['local']}/{address['prefixlen']}" for address in _own(link)]


def tentative(link: Json | None) -> list[str]:
    """Return those of its addresses that are tentative or failed duplicate address detection."""
    return [address["local"] for address in _own(link) if address.get("tentative") or address.get("dadfailed")]


def link_local_ready(place: Place, pod: str, ifname: str = "eth0", bound: float = 0.5) -> bool:
    """Return whether a pod can send from its link-local address within `bound` seconds.

    Without duplicate address detection, the kernel makes the address ready a moment after the link is up. Detection
    takes a second or more.
    """
    end = time.monotonic() + bound
    while True:
        with inside(place.pod_netns(pod)):
            link = _links_and_routes()[0].get(ifname, {})
        if not any(address.get("tentative") for address in link.get("addr_info", []) if address["scope"] == "link"):
            return True
        if time.monotonic() > end:
            return False
        time.sleep(0.01)


def _own(link: Json | None) -> list[Json]:
    return [address for address in (link or {}).get("addr_info", []) if address["scope"] == "global"]


def route_text(route: Json) -> str:
    """Return a route in the words of `ip route`, without the parts that every route has."""
    destination = str(route["dst"])
    if destination == "default":
        destination = "::/0" if ":" in route.get("gateway", "") else "0.0.0.0/0"
    if "/" not in destination:
        destination += "/128" if ":" in destination else "/32"
    words = [destination]
    if route.get("gateway"):
        words.append(f"via {route['gateway']}")
    for metrics in route.get("metrics", []):
        words += [f"{key} {metrics[key]}" for key in ("mtu", "advmss") if key in metrics]
    metric = route.get("metric")
    if metric and not (":" in destination and metric == 1024):  # IPv6's default
        words.append(f"priority {metric}")
    if route.get("table", "main") != "main":
        words.append(f"table {route['table']}")
    if route.get("scope", "global") not in ("global", "universe"):
        words.append(f"scope {route['scope']}")
    return " ".join(words)


def own_routes(routes: list[Json]) -> list[str]:
    """Return the routes that a program made, without those that come with an address or a link."""
    return sorted(
        route_text(route)
        for route in routes
        if route.get("protocol") != "kernel" and route.get("table") != "local" and route["type"] == "unicast"
    )


def left(before: Snapshot, after: Snapshot, network_stays: bool, marks: Iterable[str] = ()) -> list[str]:
    """Return what is new on the host, in words that do not depend on random names and numbers.

    With `network_stays`, these belong to the network and are left out: the bridge, its addresses, a VLAN's gateway (a
    veth pair with an end named like cni0.100), and rules that name no attachment (`marks`).
    """
    remains = []
    gateways = [link["ifindex"] for name, link in after.links.items() if re.search(r"\.\d+$", name)]
    for name, link in after.links.items():
        known = before.links.get(name)
        kind = link.get("linkinfo", {}).get("info_kind", "")
        if network_stays and (kind == "bridge" or {link["ifindex"], link.get("link_index")} & set(gateways)):
            continue
        if known is None:
            remains.append(
                "a host veth" if re.fullmatch(r"veth[0-9a-f]{8,11}", name) else f"the {kind or 'link'} {name}"
            )
        else:
            remains += [f"{address} on {name}" for address in sorted(set(addresses(link)) - set(addresses(known)))]
    for pod, (links, _) in after.pods.items():
        remains += [f"{name} in the pod" for name in sorted(set(links) - set(before.pods.get(pod, ({}, []))[0]))]
    remains += sorted(set(own_routes(after.routes)) - set(own_routes(before.routes)))
    rules = attachment_rules(set(after.rules) - set(before.rules), marks)
    if not network_stays:
        rules = [rule for rule in set(after.rules) - set(before.rules) if _counts(rule)]
    if rules:
        remains.append("firewall rules")
    # a lease that existed before gets a record at take-over, which does not belong to the attachment
    claimed = tuple(f"{text.partition(chr(13))[0]}@" for name, text in before.files.items() if name.startswith("cni/"))
    new = {name for name in set(after.files) - set(before.files) if not os.path.basename(name).startswith(claimed)}
    remains += sorted({_file_kind(name) for name in new})
    return remains


def attachment_rules(rules: Iterable[str], marks: Iterable[str]) -> list[str]:
    """Return the rules that name one attachment by a pod's address, its container ID, its host veth, or its chain."""
    wanted = [re.escape(mark) for mark in marks if mark]
    pattern = re.compile(r"(?<![\w.:])(" + "|".join([*wanted, r"CNI-[0-9a-f]{24}"]) + r")(?![\w.:])")
    return sorted(rule for rule in rules if pattern.search(rule))


def masquerade_backends(snapshot: Snapshot) -> list[str]:
    """Return the backends that masquerade: iptables if the rule is in an iptables table, otherwise nftables."""
    backends, table = set(), ""
    for rule in snapshot.rules:
        if rule.startswith("table "):
            table = rule.split("{")[0].strip()
        if re.search(r"\bmasquerade\b|MASQUERADE", rule):
            backends.add("iptables" if table in ("table ip nat", "table ip6 nat") else "nftables")
    return sorted(backends)


def _counts(rule: str) -> bool:
    """Return whether a line of a rule set is a rule, not the frame of a table or chain."""
    return not (rule == "}" or not rule or rule.startswith(("table ", "chain ", "type ", "#")))


def _file_kind(name: str) -> str:
    kinds = (("cni/", "a lease"), ("cnictl/attachments/", "an attachment record"))
    return next((kind for start, kind in kinds if name.startswith(start)), f"the file {name}")


def _links_and_routes() -> tuple[dict[str, Json], list[Json]]:
    said = _read("ip", "-j", "-d", "-batch", "-", stdin="address show\nroute show table all\n").splitlines()
    documents: list[list[Json]] = [json.loads(line) for line in said if line.strip()]
    documents += [[]] * (2 - len(documents))
    return {link["ifname"]: link for link in documents[0] if link}, [route for route in documents[1] if route]


def _read(*argv: str, stdin: str = "") -> str:
    done = subprocess.run(
        argv, input=stdin, capture_output=True, text=True, timeout=60, env={"PATH": _PATH, "LANG": "C"}, check=True
    )
    return done.stdout


def _files(place: Place) -> dict[str, str]:
    root = str(place.host.path(_STATE))
    contents: dict[str, str] = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            if not name.startswith(_OF_THE_NETWORK) and not name.startswith("."):
                with open(path, errors="replace", newline="") as file:
                    contents[os.path.relpath(path, root)] = file.read()
    return contents


def leases(snapshot: Snapshot, folder: str = "cni/networks/parity") -> dict[str, Any]:
    """Return the content of each address's lease file."""
    return {os.path.basename(name): text for name, text in snapshot.files.items() if os.path.dirname(name) == folder}


def read_json(*argv: str) -> Any:
    """Return the JSON document that a command prints."""
    return json.loads(_read(*argv) or "[]")
