"""Generate the rules that kube-proxy makes for Services, in its iptables and its nftables mode.

Debian does not package kube-proxy. The rules follow a node's `iptables-save` and `nft list ruleset` (Kubernetes 1.31,
cluster CIDR known, masqueradeAll off). kube-proxy names chains by hashes; here the names are words.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

PORT = 80
"""The port of every Service."""
TARGET_PORT = 7007
"""The port of every endpoint."""

_CLUSTER = "10.244.0.0/20"
_MARK = "0x4000"


@dataclass(frozen=True)
class Service:
    """A Service's addresses, and the pods behind it."""

    name: str
    cluster_ip: str
    endpoints: Sequence[str]
    node_port: int = 0
    local: bool = False
    """`externalTrafficPolicy: Local`: pods see the addresses of clients outside."""


def load_iptables(services: Sequence[Service]) -> list[tuple[list[str], str]]:
    """Return kube-proxy's commands in iptables mode, each with its stdin. They put the jumps at the chains' heads."""
    restore = (["iptables-restore", "--noflush"], "\n".join([*_filter(), *_nat(services), ""]))
    return [restore, *((["iptables", "-w", "-t", table, "-I", *words], "") for table, words in _JUMPS)]


_NEW = ("-m", "conntrack", "--ctstate", "NEW")
_JUMPS = (
    ("filter", ("INPUT", *_NEW, "-j", "KUBE-EXTERNAL-SERVICES")),
    ("filter", ("FORWARD", *_NEW, "-j", "KUBE-EXTERNAL-SERVICES")),
    ("filter", ("INPUT", "-j", "KUBE-NODEPORTS")),
    ("filter", ("FORWARD", *_NEW, "-j", "KUBE-SERVICES")),
    ("filter", ("OUTPUT", *_NEW, "-j", "KUBE-SERVICES")),
    ("filter", ("FORWARD", "-j", "KUBE-FORWARD")),
    *(("filter", (chain, *_NEW, "-j", "KUBE-PROXY-FIREWALL")) for chain in ("INPUT", "OUTPUT", "FORWARD")),
    ("nat", ("OUTPUT", "-j", "KUBE-SERVICES")),
    ("nat", ("PREROUTING", "-j", "KUBE-SERVICES")),
    ("nat", ("POSTROUTING", "-j", "KUBE-POSTROUTING")),
)


def _filter() -> Iterator[str]:
    chains = ("SERVICES", "EXTERNAL-SERVICES", "NODEPORTS", "FORWARD", "PROXY-FIREWALL")
    yield from ("*filter", *(f":KUBE-{chain} - [0:0]" for chain in chains))
    yield "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP"
    yield f"-A KUBE-FORWARD -m mark --mark {_MARK}/{_MARK} -j ACCEPT"
    yield "-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    yield "COMMIT"


def _nat(services: Sequence[Service]) -> Iterator[str]:
    rules = [rule for service in services for rule in _service(service)]
    chains = dict.fromkeys(rule.split()[1] for rule in rules)
    yield from ("*nat", *(f":{chain} - [0:0]" for chain in ("KUBE-POSTROUTING", "KUBE-MARK-MASQ", *chains)))
    yield f"-A KUBE-POSTROUTING -m mark ! --mark {_MARK}/{_MARK} -j RETURN"
    yield f"-A KUBE-POSTROUTING -j MARK --xor-mark {_MARK}"
    yield "-A KUBE-POSTROUTING -j MASQUERADE --random-fully"
    yield f"-A KUBE-MARK-MASQ -j MARK --or-mark {_MARK}"
    yield from rules
    yield "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"
    yield "COMMIT"


def _service(service: Service) -> Iterator[str]:
    svc, ext, local = (f"KUBE-{kind}-{service.name}" for kind in ("SVC", "EXT", "SVL"))
    yield f"-A KUBE-SERVICES -d {service.cluster_ip}/32 -p tcp -m tcp --dport {PORT} -j {svc}"
    yield f"-A {svc} ! -s {_CLUSTER} -d {service.cluster_ip}/32 -p tcp -m tcp --dport {PORT} -j KUBE-MARK-MASQ"
    yield from _spread(svc, service)
    for number, endpoint in enumerate(service.endpoints):
        yield f"-A KUBE-SEP-{service.name}{number} -s {endpoint}/32 -j KUBE-MARK-MASQ"
        yield f"-A KUBE-SEP-{service.name}{number} -p tcp -m tcp -j DNAT --to-destination {endpoint}:{TARGET_PORT}"
    if not service.node_port:
        return
    yield f"-A KUBE-NODEPORTS -p tcp -m tcp --dport {service.node_port} -j {ext}"
    if service.local:
        yield f"-A {ext} -s {_CLUSTER} -j {svc}"
        yield f"-A {ext} -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ"
        yield f"-A {ext} -m addrtype --src-type LOCAL -j {svc}"
        yield f"-A {ext} -j {local}"
        yield from _spread(local, service)
    else:
        yield f"-A {ext} -j KUBE-MARK-MASQ"
        yield f"-A {ext} -j {svc}"


def _spread(chain: str, service: Service) -> Iterator[str]:
    left = len(service.endpoints)
    for number in range(left):
        share = f"-m statistic --mode random --probability {1 / (left - number):.10f} " if left - number > 1 else ""
        yield f"-A {chain} {share}-j KUBE-SEP-{service.name}{number}"


def load_nftables(services: Sequence[Service]) -> list[tuple[list[str], str]]:
    """Return kube-proxy's command in nftables mode with its stdin, one transaction."""
    rules = "".join(_nft_service(service) for service in services)
    return [(["nft", "-f", "-"], f"table ip kube-proxy {{\n{_NFT}{rules}}}\n")]


def flush() -> str:
    """Return a shell line that removes all its rules in either mode, as `kube-proxy --cleanup` does."""
    lines = [f"iptables -w -t {table} -D {' '.join(words)}" for table, words in _JUMPS]
    keep = "grep -v -e ^-A.KUBE- -e ^:KUBE-"
    return f"nft delete table ip kube-proxy || {{ {'; '.join(lines)}; iptables-save | {keep} | iptables-restore; }}"


_VIPS, _PORTS = "ipv4_addr . inet_proto . inet_service : verdict", "inet_proto . inet_service : verdict"
_NFT = f"""
map no-endpoint-services {{ type {_VIPS}; }}
map no-endpoint-nodeports {{ type {_PORTS}; }}
map firewall-ips {{ type {_VIPS}; }}
map service-ips {{ type {_VIPS}; }}
map service-nodeports {{ type {_PORTS}; }}
chain reject-chain {{ reject; }}
chain endpoints-check {{
    ip daddr . meta l4proto . th dport vmap @no-endpoint-services
    fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @no-endpoint-nodeports
}}
chain firewall-check {{ ip daddr . meta l4proto . th dport vmap @firewall-ips; }}
chain services {{
    ip daddr . meta l4proto . th dport vmap @service-ips
    fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @service-nodeports
}}
chain mark-for-masquerade {{ meta mark set mark or {_MARK}; }}
chain masquerading {{
    meta mark and {_MARK} == 0 return
    meta mark set mark xor {_MARK}
    masquerade fully-random
}}
chain filter-prerouting {{ type filter hook prerouting priority -110; ct state new jump firewall-check; }}
chain filter-input {{ type filter hook input priority -110; ct state new jump endpoints-check; }}
chain filter-forward {{ type filter hook forward priority -110; ct state new jump endpoints-check; }}
chain filter-output {{ type filter hook output priority -110; ct state new jump firewall-check; }}
chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
chain nat-output {{ type nat hook output priority -100; jump services; }}
chain nat-postrouting {{ type nat hook postrouting priority srcnat; jump masquerading; }}
"""


def _nft_service(service: Service) -> str:
    cluster, local, external = (f"{kind}-{service.name}/tcp" for kind in ("service", "local", "external"))
    ways = [f"{number} : goto endpoint-{service.name}/tcp/{number}" for number in range(len(service.endpoints))]
    spread = f"numgen random mod {len(ways)} vmap {{ {', '.join(ways)} }}"
    chains: dict[str, tuple[str, ...]] = {
        f"endpoint-{service.name}/tcp/{number}": (
            f"ip saddr {endpoint} jump mark-for-masquerade",
            f"meta l4proto tcp dnat to {endpoint}:{TARGET_PORT}",
        )
        for number, endpoint in enumerate(service.endpoints)
    }
    away = f"ip daddr {service.cluster_ip} tcp dport {PORT} ip saddr != {_CLUSTER} jump mark-for-masquerade"
    chains[cluster] = (away, spread)
    maps = (
        f"map service-ips {{ type {_VIPS}; elements = {{ {service.cluster_ip} . tcp . {PORT} : goto {cluster} }}; }}\n"
    )
    if service.node_port:
        goto = f"{{ tcp . {service.node_port} : goto {external} }}"
        maps += f"map service-nodeports {{ type {_PORTS}; elements = {goto}; }}\n"
        chains[external] = ("jump mark-for-masquerade", f"goto {cluster}")
        if service.local:
            chains[local] = (spread,)
            chains[external] = (
                f"ip saddr {_CLUSTER} goto {cluster}",
                "fib saddr type local jump mark-for-masquerade",
                f"fib saddr type local goto {cluster}",
                f"goto {local}",
            )
    lines = [f"chain {name} {{\n    " + "\n    ".join(rules) + "\n}\n" for name, rules in chains.items()]
    return "".join([*lines, maps])
