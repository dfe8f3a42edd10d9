"""The bridge's ports, and other programs that take links for theirs."""

import glob
import os
from collections.abc import Iterable, Iterator

from cnictl.core import attachments, durable, liveness
from cnictl.core.attachments import Record
from cnictl.core.cidr import format_address, parse_cidr
from cnictl.core.leases import Store
from cnictl.core.netlink import Netlink
from cnictl.core.other_end import OtherEnds, veth_ports
from cnictl.core.rtnetlink import Link
from cnictl.core.unlinking import unlink
from cnictl.doctor.check import Action, Check, Finding, Remedy, Seen, typed
from cnictl.doctor.facts import Facts, said_by, text_of
from cnictl.node.resources.bridge import OWNER_MARK, gateways

NETWORK_MANAGER_CONF = "/etc/NetworkManager/conf.d/99-cnictl.conf"
NETWORKD_CONF = "/etc/systemd/networkd.conf.d/99-cnictl.conf"
_NETWORKD_FILES = ("/etc/systemd/networkd.conf", "/etc/systemd/networkd.conf.d/*.conf")
_SYSFS = "/sys/class/net"


def _managed(facts: Facts) -> Iterable[Seen]:
    if facts.spec is None or "NetworkManager" not in facts.processes:
        return
    ours = {facts.spec.bridge, *(link.name for link in facts.ports)}
    for line in said_by(["nmcli", "-t", "-f", "DEVICE,STATE", "device"]).splitlines():
        name, _, state = line.partition(":")
        if name in ours and state != "unmanaged":
            yield Seen(
                name,
                f"NetworkManager manages it ({state}): it may take its address or set it down",
                f"put [keyfile] unmanaged-devices+=interface-name:{facts.spec.bridge};interface-name:veth* into "
                f"{NETWORK_MANAGER_CONF}; nmcli general reload",
            )


def _leave_alone(facts: Facts, finding: Finding) -> Remedy:
    bridge = facts.spec.bridge if facts.spec is not None else finding.subject
    text = f"[keyfile]\nunmanaged-devices+=interface-name:{bridge};interface-name:veth*\n"
    return Remedy(actions=(_written(NETWORK_MANAGER_CONF, text), typed("nmcli", "general", "reload")))


def _written(path: str, text: str) -> Action:
    def write() -> None:
        durable.make_folder(os.path.dirname(path))
        durable.replace(path, text.encode(), 0o644)

    return Action(f"printf {text!r} > {path}", write)


def _networkd(facts: Facts) -> Iterable[Seen]:
    if facts.spec is None or "systemd-network" not in facts.processes or not facts.spec.peers:
        return
    said = [text_of(path) for pattern in _NETWORKD_FILES for path in sorted(glob.glob(pattern))]
    settings = [line.partition("=")[2].strip().lower() for text in said for line in text.splitlines()
                if line.strip().startswith("ManageForeignRoutes")]  # fmt: skip
    if not settings or settings[-1] not in ("no", "false", "0", "off"):
        yield Seen(
            "systemd-networkd",
            "removes routes that it did not make when it is restarted: those to the peers",
            f"put [Network] ManageForeignRoutes=no into {NETWORKD_CONF}; systemctl restart systemd-networkd",
        )


def _keep_routes(facts: Facts, finding: Finding) -> Remedy:  # noqa: ARG001
    return Remedy(actions=(_written(NETWORKD_CONF, "[Network]\nManageForeignRoutes=no\n"),))


def _bridge(facts: Facts) -> Link | None:
    return facts.links.get(facts.spec.bridge) if facts.spec is not None else None


def _unrecorded(facts: Facts) -> Iterator[tuple[Link, bytes, set[bytes]]]:
    """Veths on the bridge that no record names, their namespace's id here, and the other end's addresses.

    The ports are looked at first: an ADD in flight writes its record before it makes its port.
    """
    bridge = _bridge(facts)
    if bridge is None or facts.spec is None:
        return
    asking = OtherEnds()
    with Netlink() as netlink, asking:
        ports = veth_ports(netlink, bridge).values()
        known = _recorded_ports()
        for port, namespace in ports:
            if port.name not in known:
                yield port, namespace, asking.addresses(port, namespace) if namespace else set()


def _recorded_ports() -> set[str]:
    """As the records are now."""
    return {record.host_veth for network in attachments.networks() for record in attachments.all_records(network)}


def _orphans(facts: Facts) -> Iterable[Seen]:
    for port, _, addresses in _unrecorded(facts):
        if port.alias.startswith(OWNER_MARK) and not _in_subnets(facts, addresses):
            yield Seen(port.name, "a pod's port that no attachment names", f"ip link delete {port.name}")


def _delete_port(facts: Facts, finding: Finding) -> Remedy:  # noqa: ARG001
    def delete() -> None:
        if finding.subject not in _recorded_ports():  # its pod may have been started anew since
            with Netlink() as netlink:
                unlink(netlink, finding.subject)

    return Remedy(actions=(Action(f"ip link delete {finding.subject}", delete),))


def _in_subnets(facts: Facts, addresses: set[bytes]) -> set[str]:
    subnets = [parse_cidr(subnet) for subnet in facts.spec.subnets] if facts.spec is not None else []
    return {format_address(packed) for packed in addresses if any(subnet.holds(packed) for subnet in subnets)}


def _unleased(facts: Facts) -> Iterable[Seen]:
    if facts.spec is None:
        return
    held = {lease.address for lease in Store(facts.spec.name).all()}
    own = {format_address(one.packed) for one in gateways(facts.spec)}
    for port, _, addresses in _unrecorded(facts):
        for address in sorted(_in_subnets(facts, addresses) - held - own):
            yield Seen(
                address,
                f"is in use behind {port.name} and leased to nobody: the next pod may be given it too",
                f"end that pod, or: ip link delete {port.name}",
                False,
            )


def _hairpin(facts: Facts) -> Iterable[Seen]:
    conf = facts.conf
    if conf is None or not conf.get("hairpinMode"):
        return
    for record in _live(facts):
        if text_of(f"{_SYSFS}/{record.host_veth}/brport/hairpin_mode") == "0":
            yield Seen(
                record.host_veth,
                f"pod {record.pod or record.container[:12]} can't reach itself by a Service or host port",
                f"bridge link set dev {record.host_veth} hairpin on",
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


def _ports_down(facts: Facts) -> Iterable[Seen]:
    with Netlink() as netlink:
        for record in facts.records:
            link = facts.links.get(record.host_veth)
            bridge = _bridge(facts)
            if link is None or bridge is None or record.bridge != bridge.name:
                continue
            if liveness.judge(record, netlink).state != liveness.LIVE:
                continue
            who = record.pod or record.container[:12]
            if link.master != bridge.index:
                yield Seen(link.name, f"pod {who}: its port is not on {bridge.name}",
                           f"ip link set {link.name} master {bridge.name}")  # fmt: skip
            elif not link.up:
                yield Seen(link.name, f"pod {who}: its port is down", f"ip link set {link.name} up")


def _port_back(facts: Facts, finding: Finding) -> Remedy:
    bridge = facts.spec.bridge if facts.spec is not None else ""
    back = typed("ip", "link", "set", finding.subject, "master", bridge, "up")
    # what a port was told is forgotten when it leaves its bridge
    hairpin = bool((facts.conf or {}).get("hairpinMode"))
    return Remedy(actions=(back, _hairpin_action(finding.subject)) if hairpin else (back,))


CHECKS = (
    Check(
        "port-off", 23, "error",
        "IFLA_MASTER and IFF_UP of each attachment's host veth",
        "A pod whose port is down or off the bridge reaches nobody, and nothing says so inside it.",
        "ip -br link show type veth; bridge link\\nip link set veth1a2b3c4d master cni0 up",
        _ports_down, _port_back, ("bridge",),
    ),
    Check(
        "orphan-veth", 23, "warning",
        "IFLA_MASTER and IFLA_IFALIAS of each veth, against the attachment records",
        "What a pod left on the bridge keeps a name and a port that the next one needs.",
        "ip -d link show master cni0\\nip link delete veth1a2b3c4d",
        _orphans, _delete_port,
    ),
    Check(
        "unleased-address", 25, "error",
        "addresses of each port's other end (RTM_GETADDR with IFA_TARGET_NETNSID), against the leases",
        "An address in use that the store calls free will be given out a second time.",
        "ip -n POD address; ls /var/lib/cni/networks/mynet\\nip link delete veth1a2b3c4d",
        _unleased,
    ),
    Check(
        "hairpin-off", 24, "error",
        "/sys/class/net/PORT/brport/hairpin_mode, where the conf asks for hairpinMode",
        "A bridge doesn't send a packet back to the port it came from: a pod that is its own Service's endpoint waits.",
        "bridge -d link show | grep -A1 veth\\nbridge link set dev veth1a2b3c4d hairpin on",
        _hairpin, _hairpin_on,
    ),
    Check(
        "network-manager", 20, "warning",
        "nmcli -t -f DEVICE,STATE device: the bridge and its ports are unmanaged",
        "NetworkManager sets up any link that it takes for its own, over what stands there.",
        "nmcli device\\nnmcli device set cni0 managed no",
        _managed, _leave_alone,
    ),
    Check(
        "networkd-routes", 21, "warning",
        "systemd-networkd's process; ManageForeignRoutes in networkd.conf and its drop-ins",
        "systemd-networkd drops every route it didn't make itself when it starts.",
        "networkctl; ip route show proto 67\\nsystemctl restart systemd-networkd",
        _networkd, _keep_routes,
    ),
)  # fmt: skip
