"""Use another IPAM plugin's result: fill in gateways and routes as the reference bridge does."""

import time

from cnictl.core.attachments import Record
from cnictl.core.cidr import Cidr, parse_address, parse_interface
from cnictl.core.conf.netconf import NetConf
from cnictl.core.conf.routes import METRICS, Route, complete
from cnictl.core.netlink import rtnetlink
from cnictl.core.netlink.rtnetlink import Netlink

from .answer import Given
from .attach import ACTIVATION_WAIT, await_up, ignore_routers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def bring_up(host: Netlink, pod: Netlink, conf: NetConf, record: Record) -> None:
    """Bring the pod's end up before it has an address, because dhcp sends its requests through it, only every 3 s.

    Called in the pod's namespace.
    """
    ignore_routers(record.ifname, conf)
    end = rtnetlink.get_link(pod, record.ifname)
    if end is not None:
        pod.call(rtnetlink.set_up(end.index))
    deadline = time.monotonic() + ACTIVATION_WAIT
    for netlink, name in ((host, record.host_veth), (pod, record.ifname)):
        await_up(netlink, name, deadline)


def given_by(result: "dict[str, Any]", conf: NetConf) -> Given:
    """Return what an attachment gets from the IPAM plugin's result, as read by `ipam_result`.

    If the bridge is to be the gateway, an address without one gets the first address of its subnet as gateway.
    """
    ips = [_ip(entry, conf.is_gateway) for entry in result["ips"]]
    gateways = [gateway for _, gateway in ips if gateway]
    given = Given(ips, complete(map(_route, result["routes"]), gateways, conf.default_route))
    given.dns = result["dns"]
    return given


def _ip(entry: "dict[str, Any]", is_gateway: bool) -> "tuple[Cidr, bytes]":
    address = parse_interface(entry["address"])
    if entry.get("gateway"):
        return address, parse_address(entry["gateway"])
    return address, address.nth(1) if is_gateway else b""


def _route(entry: "dict[str, Any]") -> Route:
    metrics = {key: entry[key] for key in METRICS if key in entry}
    return Route(parse_interface(entry["dst"]), parse_address(entry["gw"]) if entry.get("gw") else b"", **metrics)
