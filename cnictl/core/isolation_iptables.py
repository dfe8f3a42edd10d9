"""`portIsolation` for hosts that filter with iptables: one chain for each bridge in mangle, before all filter rules.

Packets that are routed from the bridge to an isolated pod behind the same bridge are dropped, unless their destination
was translated: published ports and Services stay reachable. Bridged frames are left to the kernel's port flag; with
br_netfilter iptables sees them too, and recognizes them by the port that they leave through.
"""

from cnictl.core.bridge import has_bridge_netfilter
from cnictl.core.cidr import parse_address
from cnictl.core.digest import short_digest
from cnictl.core.errors import Problem
from cnictl.core.iptables_listing import listing
from cnictl.core.process import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from cnictl.core.process import Finished

CHAINS = "CNICTL-ISO-"
"""Prefix of the chains' names."""
_PROGRAMS = {4: "iptables", 16: "ip6tables"}
"""The iptables program of a family, by the bytes in an address."""


def chain(interface: str) -> str:
    """Return the name of the chain for packets that enter and leave by this interface."""
    return CHAINS + short_digest(interface)


def ensure(interface: str, pod: "tuple[str, list[str]]", others: "Sequence[tuple[str, list[str]]]") -> None:
    """Isolate a pod, and the `others` if their chain was flushed. Raises CniError 2 without the program, 106."""
    name = chain(interface)
    for family in sorted({len(parse_address(address)) for address in pod[1]}):
        program = _PROGRAMS[family]
        new = _run(program, "-N", name, check=False).status == 0
        wanted = [(veth, address) for veth, addresses in (pod, *(others if new else ())) for address in addresses]
        for host_veth, address in wanted:
            rule = _rule(host_veth, address)
            if len(parse_address(address)) == family and _run(program, "-C", name, *rule, check=False).status:
                _run(program, "-A", name, *rule)
        jump = _jump(interface)
        if _run(program, "-C", "FORWARD", *jump, check=False).status:
            _run(program, "-I", "FORWARD", "1", *jump)


def is_loaded(interface: str, pod: "tuple[str, list[str]]") -> bool:
    """Return whether a pod is isolated as `ensure` does it."""
    host_veth, addresses = pod
    for address in addresses:
        program = _PROGRAMS[len(parse_address(address))]
        try:
            if _run(program, "-C", chain(interface), *_rule(host_veth, address), check=False).status:
                return False
            listed = _run(program, "-S", "FORWARD", check=False).stdout
        except Problem:
            return False
        if not any(line.endswith(f"-j {chain(interface)}") for line in listed.splitlines()):
            return False
    return True


def remove(host_veth: str) -> None:
    """Remove a pod's isolation. Also removes the chain after the last pod. A missing chain is not an error.

    Raises CniError 106.
    """
    _remove(lambda owner: owner == host_veth)


def remove_others(links: "Container[str]") -> None:
    """Remove the isolation of pods whose host veth is not among the host's `links`. Raises CniError 106."""
    _remove(lambda owner: owner not in links)


def _remove(wanted: "Callable[[str], bool]") -> None:
    for program in _PROGRAMS.values():
        try:
            listed, _ = listing(program, "mangle")
        except Problem:
            continue  # the program or the table is missing
        for line in [line for line in listed if line.startswith(f"-A {CHAINS}") and wanted(_owner(line))]:
            _run(program, "-D", *line.replace('"', "").split()[1:], check=False)
        for line in [line for line in listed if line.startswith(f"-N {CHAINS}")]:
            _drop_if_empty(program, line.split()[1])


def _drop_if_empty(program: str, name: str) -> None:
    if "-A " in _run(program, "-S", name, check=False).stdout:
        return
    listed = _run(program, "-S", "FORWARD", check=False).stdout.splitlines()
    jumps = [line.split()[1:] for line in listed if line.endswith(f"-j {name}")]
    for jump in jumps:
        _run(program, "-D", *jump, check=False)
    if _run(program, "-X", name, check=False).status:  # another ADD has added a rule meanwhile
        for jump in jumps:
            _run(program, "-I", jump[0], "1", *jump[1:], check=False)


def _jump(interface: str) -> list[str]:
    # physdev would load br_netfilter, which makes bridged frames pass iptables from then on
    bridged = ["-m", "physdev", "!", "--physdev-is-bridged"] if has_bridge_netfilter() else []
    translated = ["-m", "conntrack", "!", "--ctstate", "DNAT"]
    return ["-i", interface, "-o", interface, *bridged, *translated, "-j", chain(interface)]


def _rule(host_veth: str, address: str) -> list[str]:
    bits = 8 * len(parse_address(address))
    return ["-d", f"{address}/{bits}", "-m", "comment", "--comment", f"cnictl:{host_veth}", "-j", "DROP"]


def _owner(line: str) -> str:
    """Return the host veth that a rule's comment names; else the rule itself, which is not the name of a link."""
    return line.partition("cnictl:")[2].partition(" ")[0].rstrip('"') or line


def _run(program: str, *words: str, check: bool = True) -> "Finished":
    return run([program, "-w", "-t", "mangle", *words], check=check, purpose="portIsolation")
