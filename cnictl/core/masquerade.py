"""The masquerade rule set: one text for `nat enable` and for the plugin's ADD, loaded whole or not at all.

Two chains a network in the node's own table `inet cnictl` (nftables), or one chain of its own under
`nat POSTROUTING` (iptables). Each rule's comment carries a digest of the whole rule set, so that one look tells
whether it stands as it should.

Pod→pod traffic between nodes is bound to its own source address before another tool's masquerade in the same hook
can take it: an accept would not stop that one, a NAT binding once set is kept. This leaves out the node's own
subnet and packets that kube-proxy (0x4000) or portmap (0x2000) marked for masquerade, or their hairpin dies.
"""

from cnictl.core.cidr import Cidr
from cnictl.core.digest import short_digest
from cnictl.core.errors import FIREWALL_FAILED, UNSUPPORTED_FIELD, CniError, Problem

TABLE = "cnictl"
BACKENDS = ("nft", "iptables")
MASQUERADE_MARKS = "0x6000"

_IDENTITY_PRIORITY = 90  # srcnat is 100: ours come before any other tool's masquerade
_MASQUERADE_PRIORITY = 95
_RULES = {"nft": 2, "iptables": 7}


class Masquerade:
    """What a node masquerades: from `subnet`, to anywhere outside `network` (the cluster's pods)."""

    __slots__ = ("name", "network", "subnet")

    def __init__(self, name: str, subnet: Cidr, network: Cidr) -> None:
        self.name = name
        self.subnet = subnet
        self.network = network

    @property
    def digest(self) -> str:
        """Changes whenever the rules or their form do."""
        return short_digest("2", self.name, str(self.subnet), str(self.network))

    @property
    def comment(self) -> str:
        """The mark on each rule."""
        return f"{_owner(self.name)} {self.digest}"


def _owner(name: str) -> str:
    return f"cnictl:{_short(name)}"


def _short(name: str) -> str:
    """A network's name where nft allows 127 characters for a chain and 128 for a comment, prefixes included."""
    return name if len(name) <= 90 else f"{name[:80]}-{short_digest(name)}"


def chain(name: str) -> str:
    """The iptables chain of a network; a name there has at most 28 characters."""
    return f"CNICTL-{short_digest(name)}"


def text(masquerade: Masquerade, backend: str) -> str:
    """What `nft -f` (or `iptables-restore --noflush`) reads to bring the rule set about, whatever was there."""
    return _nft_text(masquerade) if backend == "nft" else _iptables_text(masquerade)


def stands(masquerade: Masquerade, backend: str) -> bool:
    """Whether the whole rule set is in the kernel as it should be. Costs one query (nft) or two processes."""
    if backend == "nft":
        return _nft_marks(f"{masquerade.comment}\0".encode()) == _RULES[backend]
    rules = _run(["iptables", "-w", "-t", "nat", "-S", chain(masquerade.name)], check=False)
    return rules.stdout.count(f'"{masquerade.comment}"') == _RULES[backend] and _jumps_first(masquerade)


def present(name: str, backend: str) -> bool:
    """Whether any of a network's rules are there, in this form or a former one."""
    if backend == "nft":
        return _nft_marks(f"{_owner(name)} ".encode()) > 0
    return _run(["iptables", "-w", "-t", "nat", "-S", chain(name)], check=False).status == 0


def load(masquerade: Masquerade, backend: str) -> None:
    """Bring the rule set about in one transaction. Raises CniError 106 with the tool's own words."""
    if backend == "nft":
        _run(["nft", "-f", "-"], _nft_text(masquerade))
        return
    former = [line for line in _postrouting() if line.endswith(f"-j {chain(masquerade.name)}")]
    _run(["iptables-restore", "--noflush", "-w"], _iptables_text(masquerade, former))


def remove(name: str, backend: str) -> None:
    """Take a network's rules away, and the table once nothing else is in it. Nothing there is no error."""
    if backend == "nft":
        _nft_remove(name)
    else:
        _iptables_remove(chain(name))


def remove_reference(network: str, container: str) -> None:
    """Take away what the reference bridge's `ipMasq` made for one container. Nothing there is no error.

    Its chain's name: containernetworking/plugins, pkg/utils/utils.go, FormatChainName.
    """
    from hashlib import sha512

    one = "CNI-" + sha512(f"{network}{container}".encode()).hexdigest()[:24]
    try:
        _iptables_remove(one)
    except CniError as error:
        if error.code != UNSUPPORTED_FIELD:  # no iptables, no chain of it
            raise


def _nft_text(m: Masquerade) -> str:
    s, w, mark = m.subnet, m.network, f'comment "{m.comment}"'
    identity, masquerade = (
        f"inet {TABLE} identity-{_short(m.name)}",
        f"inet {TABLE} masquerade-{_short(m.name)}",
    )
    return (
        f"add table inet {TABLE}\n"
        f"add chain {identity} {{ type nat hook postrouting priority {_IDENTITY_PRIORITY}; policy accept; }}\n"
        f"add chain {masquerade} {{ type nat hook postrouting priority {_MASQUERADE_PRIORITY}; policy accept; }}\n"
        f"flush chain {identity}\n"
        f"flush chain {masquerade}\n"
        f"add rule {identity} ip saddr {s} ip daddr {w} ip daddr != {s} meta mark & {MASQUERADE_MARKS} == 0 "
        f"counter snat ip prefix to ip saddr map {{ {s} : {s} }} {mark}\n"
        f"add rule {masquerade} ip saddr {s} ip daddr != {w} ip daddr != 224.0.0.0/4 fib daddr type != local "
        f"counter masquerade fully-random {mark}\n"
    )


def _nft_marks(mark: bytes) -> int:
    """How many rules of our table carry `mark` in their comment (linux/netfilter/nf_tables.h, NFT_MSG_GETRULE 7)."""
    from cnictl.core.rtnetlink import NETLINK_NETFILTER, Netlink, NetlinkError, attributes, text_attr

    request = b"\1\0\0\0" + text_attr(1, TABLE)  # nfgenmsg: family inet; NFTA_RULE_TABLE
    try:
        with Netlink(NETLINK_NETFILTER) as netlink:
            rules = netlink.dump(10 << 8 | 7, request)
    except NetlinkError:
        return 0  # no such table, or a kernel that has no nftables at all
    return sum(mark in attributes(rule, 4).get(7, b"") for rule in rules)  # NFTA_RULE_USERDATA


def _nft_remove(name: str) -> None:
    """nft 1.0.6 has no `destroy`: what is added first can be deleted whether or not it was there."""
    lines = [f"add table inet {TABLE}"]
    for kind, priority in (("identity", _IDENTITY_PRIORITY), ("masquerade", _MASQUERADE_PRIORITY)):
        one = f"inet {TABLE} {kind}-{_short(name)}"
        lines.append(f"add chain {one} {{ type nat hook postrouting priority {priority}; policy accept; }}")
        lines += [f"flush chain {one}", f"delete chain {one}"]
    _run(["nft", "-f", "-"], "\n".join(lines) + "\n")
    listed = _run(["nft", "list", "table", "inet", TABLE], check=False)
    if listed.status == 0 and "chain" not in listed.stdout:
        _run(["nft", "delete", "table", "inet", TABLE], check=False)


def _jump(m: Masquerade) -> list[str]:
    return ["-s", str(m.subnet), "-m", "comment", "--comment", _owner(m.name), "-j", chain(m.name)]


def _iptables_chain(m: Masquerade) -> str:
    one, mark = chain(m.name), f'-m comment --comment "{m.comment}"'
    return (
        "*nat\n"
        f":{one} - [0:0]\n"
        f"-A {one} -d {m.subnet} {mark} -j RETURN\n"
        f"-A {one} -d {m.network} -m mark ! --mark 0/{MASQUERADE_MARKS} {mark} -j RETURN\n"
        f"-A {one} -d {m.network} {mark} -j NETMAP --to {m.subnet}\n"
        f"-A {one} -d {m.network} {mark} -j RETURN\n"
        f"-A {one} -d 224.0.0.0/4 {mark} -j RETURN\n"
        f"-A {one} -m addrtype --dst-type LOCAL {mark} -j RETURN\n"
        f"-A {one} {mark} -j MASQUERADE --random-fully\n"
        "COMMIT\n"
    )


def _iptables_text(m: Masquerade, former: "Sequence[str]" = ()) -> str:
    """`former`: the jumps there are now, as `iptables -S` lists them; the new one comes first of all rules."""
    words = " ".join(f'"{word}"' if ":" in word else word for word in _jump(m))
    jumps = [line.replace("-A ", "-D ", 1) for line in former] + [f"-I POSTROUTING 1 {words}"]
    return _iptables_chain(m).replace("COMMIT\n", "\n".join([*jumps, "COMMIT", ""]))


def _jumps_first(m: Masquerade) -> bool:
    """Whether our jump comes before any other tool's rule: what another masquerades first stays masqueraded."""
    for line in _postrouting():
        if line.endswith(f"-j {chain(m.name)}"):
            return f"-s {m.subnet} " in line
        if " -j CNICTL-" not in line:
            return False
    return False


def _postrouting() -> list[str]:
    listed = _run(["iptables", "-w", "-t", "nat", "-S", "POSTROUTING"], check=False)
    return [line for line in listed.stdout.splitlines() if line.startswith("-A ")]


def _iptables_remove(one: str) -> None:
    if _run(["iptables", "-w", "-t", "nat", "-S", one], check=False).status:
        return
    jumps = [line.replace("-A ", "-D ", 1) for line in _postrouting() if line.endswith(f"-j {one}")]
    _run(
        ["iptables-restore", "--noflush", "-w"],
        "\n".join(["*nat", *jumps, f"-F {one}", f"-X {one}", "COMMIT", ""]),
    )


def _run(argv: "list[str]", stdin: str = "", check: bool = True) -> "Finished":
    from cnictl.core.process import run

    try:
        return run(argv, stdin, check=check)
    except Problem as problem:
        code = UNSUPPORTED_FIELD if "not found" in problem.message else FIREWALL_FAILED
        raise CniError(code, f"masquerade: {problem.message}", problem.mend) from None


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cnictl.core.process import Finished
