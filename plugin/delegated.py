"""What another IPAM plugin gave, as ADD makes use of it: gateways and routes filled in as the reference bridge does."""

import time

from cnictl.core.attachments import Record
from cnictl.core.cidr import Cidr, parse_address, parse_interface
from cnictl.core.conf.netconf import NetConf
from cnictl.core.conf.routes import METRICS, Route, complete
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Netlink

from .answer import Given
from .attach import ACTIVATION_WAIT, await_up, quiet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def wake(host: Netlink, pod: Netlink, conf: NetConf, record: Record) -> None:
    """Bring the pod's end up before it has an address: dhcp asks for one through it, and again only after 3 s.

    Called in the pod's namespace.
    """
    quiet(record.ifname, conf)
    end = rtnetlink.get_link(pod, record.ifname)
    if end is not None:
        pod.call(rtnetlink.set_up(end.index))
    deadline = time.monotonic() + ACTIVATION_WAIT
    for netlink, name in ((host, record.host_veth), (pod, record.ifname)):
        await_up(netlink, name, deadline)


def given_by(found: "dict[str, Any]", conf: NetConf) -> Given:
    """`found` is the plugin's result, read by `ipam_result`.

    An address without a gateway has, where the bridge is to be one, its subnet's first address for it.
    """
    ips = [_ip(one, conf.is_gateway) for one in found["ips"]]
    gateways = [gateway for _, gateway in ips if gateway]
    given = Given(ips, complete(map(_route, found["routes"]), gateways, conf.default_route))
    given.dns = found["dns"]
    return given


def _ip(one: "dict[str, Any]", is_gateway: bool) -> "tuple[Cidr, bytes]":
    address = parse_interface(one["address"])
    if one.get("gateway"):
        return address, parse_address(one["gateway"])
    return address, address.nth(1) if is_gateway else b""


def _route(one: "dict[str, Any]") -> Route:
    metrics = {key: one[key] for key in METRICS if key in one}
    return Route(parse_interface(one["dst"]), parse_address(one["gw"]) if one.get("gw") else b"", **metrics)
