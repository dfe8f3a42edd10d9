"""Check the bridge's ports."""

from collections.abc import Iterable, Iterator

from cnictl.core import attachments
from cnictl.core.attachments import Record
from cnictl.core.cidr import format_address, parse_cidr
from cnictl.core.leases.lease_store import Store
from cnictl.core.netlink.messages import Netlink
from cnictl.core.netlink.rtnetlink import Link
from cnictl.core.netlink.veth_peer import OtherEnds, veth_ports
from cnictl.core.unlinking import unlink
from cnictl.doctor.check import Action, Check, Finding, HostFault, Remedy
from cnictl.doctor.facts import Facts, text_of
from cnictl.node import hint
from cnictl.node.resources.bridge import OWNER_MARK, gateways

_SYSFS = "/sys/class/net"


def _bridge(facts: Facts) -> Link | None:
    return facts.links.get(facts.spec.bridge) if facts.spec is not None else None


def _unrecorded(facts: Facts) -> Iterator[tuple[Link, bytes, set[bytes]]]:
    """Yield each veth on the bridge without a record, its pod's namespace id, and the other end's addresses.

    Ports are read before records, because ADD writes the record before it makes the port.
    """
    bridge = _bridge(facts)
    if bridge is None or facts.spec is None:
        return
    asking = OtherEnds()
    with Netlink() as netlink, asking:
        ports = veth_ports(netlink, bridge).values()
        recorded = attachments.host_veths()
        for port, namespace in ports:
            if port.name not in recorded:
                yield port, namespace, asking.addresses(port, namespace) if namespace else set()


def _remnant_veths(facts: Facts) -> Iterable[HostFault]:
    for port, _, addresses in _unrecorded(facts):
        if port.alias.startswith(OWNER_MARK) and not _in_subnets(facts, addresses):
            yield HostFault(
                port.name, "a pod's port without an attachment record", hint.command(f"ip link delete {port.name}")
            )


def _delete_port(facts: Facts, finding: Finding) -> Remedy:  # noqa: ARG001
    def delete() -> None:
        if finding.subject not in attachments.host_veths():  # its pod may have restarted since then
            with Netlink() as netlink:
                unlink(netlink, finding.subject)

    return Remedy(actions=(Action(f"ip link delete {finding.subject}", delete),))


def _in_subnets(facts: Facts, addresses: set[bytes]) -> set[str]:
    subnets = [parse_cidr(subnet) for subnet in facts.spec.subnets] if facts.spec is not None else []
    return {format_address(packed) for packed in addresses if any(subnet.holds(packed) for subnet in subnets)}


def _unleased(facts: Facts) -> Iterable[HostFault]:
    if facts.spec is None:
        return
    held = {lease.address for lease in Store(facts.spec.name).all()}
    own = {format_address(gateway.packed) for gateway in gateways(facts.spec)}
    for port, _, addresses in _unrecorded(facts):
        for address in sorted(_in_subnets(facts, addresses) - held - own):
            yield HostFault(
                address,
                f"is in use behind {port.name} without a lease: the next pod may get it too",
                hint.advice(
                    f"stop that pod; if that fails: ip link delete {port.name}",
                    because="what runs behind that port loses its network",
                ),
                False,
            )


def _hairpin(facts: Facts) -> Iterable[HostFault]:
    conf = facts.conf
    if conf is None or not conf.get("hairpinMode"):
        return
    for record in _live(facts):
        if text_of(f"{_SYSFS}/{record.host_veth}/brport/hairpin_mode") == "0":
            yield HostFault(
                record.host_veth,
                f"pod {record.pod or record.container[:12]} can't reach itself through a Service or host port",
                hint.command(f"bridge link set dev {record.host_veth} hairpin on"),
            )


def _hairpin_on(facts: Facts, finding: Finding) -> Remedy:  # noqa: ARG001
    return Remedy(actions=(_hairpin_action(finding.subject),))


def _hairpin_action(port: str) -> Action:
    def switch() -> None:
        with open(f"{_SYSFS}/{port}/brport/hairpin_mode", "w", encoding="ascii") as file:
            file.write("1")

    return Action(f"bridge link set dev {port} hairpin on", switch)


def _live(facts: Facts) -> list[Record]:
    ports = {link.name for link in facts.ports}
    return [record for record in facts.records if record.host_veth in ports]


CHECKS = (
    Check(
        "orphan-veth", 23, "warning",
        "IFLA_MASTER and IFLA_IFALIAS of each veth, against the attachment records",
        "The port of a pod that is gone keeps a name and a bridge port that other pods need.",
        "ip -d link show master cni0\\nip link delete veth1a2b3c4d5e6",
        _remnant_veths, _delete_port,
    ),
    Check(
        "unleased-address", 25, "error",
        "addresses of each port's other end (RTM_GETADDR with IFA_TARGET_NETNSID), against the leases",
        "An address that is in use without a lease will be given to a second pod.",
        "ip -n POD address; ls /var/lib/cni/networks/mynet\\nip link delete veth1a2b3c4d5e6",
        _unleased,
    ),
    Check(
        "hairpin-off", 24, "error",
        "/sys/class/net/PORT/brport/hairpin_mode, if the conf sets hairpinMode",
        "A bridge never sends a packet back to its port, so a pod that is its own Service's endpoint gets no reply.",
        "bridge -d link show | grep -A1 veth\\nbridge link set dev veth1a2b3c4d5e6 hairpin on",
        _hairpin, _hairpin_on,
    ),
)  # fmt: skip
