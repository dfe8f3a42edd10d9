"""`cnictl pod`: show everything about one attachment."""

from typing import Annotated, Any

import typer

from cnictl.cli.ipam import NameOption, observe
from cnictl.cli.output import Format, OutputOption, print_json, print_table, working
from cnictl.cli.renamed import FormerNetworkOption
from cnictl.cli.steps import require_root
from cnictl.node.spec import node_file
from cnictl.views import attachment


def pod(
    who: Annotated[str, typer.Argument(metavar="POD", help="A pod by its address, name or container id.")],
    to: Annotated[
        str, typer.Option("--to", metavar="ADDRESS", help="Where to: an address or a pod. Default: the outside.")
    ] = "",
    name: NameOption = "",
    former: FormerNetworkOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Show everything about one attachment: lease, both ends of its veth pair, port, routes, counters, connections.

    Lines that begin with `earlier` are connections that the kernel still tracks, each with its protocol and port. Then
    comes the pod's way to an address: the routes that the kernel takes inside the pod and on the host, whether the
    address answers a ping, and the firewall rules that the ping meets. A Service's address answers no ping: there, its
    ports are tried.

    \b
    cnictl pod 10.244.0.12
    cnictl pod default/web --to 10.244.1.7
    cnictl pod 6f3c1e0b -o json | jq .way.rules
    """
    require_root("pod", "looks into the pod's namespace")
    listing = observe(name or former, "", "pod")
    with working("looking at the pod"):
        rows = attachment.choose(listing, who)
        found = attachment.look(listing, rows, attachment.target(listing, rows, to, node_file.load()))
    if output is Format.JSON:
        print_json(found)
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    leases = found["leases"]
    lines = [("address", f"{lease['address']} ({lease['state']}: {lease['reason']})") for lease in leases]
    first = leases[0]
    lines.append(("pod", first["pod"] or f"{first['container']} {first['interface']}"))
    host_end, inside, port = found.get("host_end"), found.get("inside"), found.get("port")
    if host_end:
        lines.append(("host end", _link_words(host_end)))
    if port:
        switches = ("hairpin", "isolated", "learning", "flood")
        on = [f"{key} {'on' if port[key] else 'off'}" for key in switches if key in port]
        lines.append(("port", f"{port.get('master', 'on no bridge')}, {port.get('state', '')}, {', '.join(on)}"))
    if inside:
        lines.append(("inside", _link_words(inside)))
        lines += [("", f"{one['local']}/{one['prefixlen']}") for one in inside.get("addr_info", ())]
    lines += [("route", _route_words(one)) for one in found.get("routes", ())]
    lines += [
        ("neighbour", f"{one['dst']} is {one.get('lladdr', 'unknown')}, {' '.join(one.get('state', []))}")
        for one in found.get("neighbours", ())
    ]
    lines += [("earlier", _connection_words(one)) for one in found.get("connections", ())]
    if found.get("more_connections"):
        lines.append(("", f"and {found['more_connections']} more tracked connections"))
    way = found.get("way")
    if way:
        lines.append((f"way to {way['to']}", _answer_words(way)))
        for where, key in (("inside", "inside"), ("on the host", "on_the_host")):
            if way[key] or not way.get("unasked"):
                lines.append(("", f"{where}: {_route_words(way[key]) if way[key] else 'no route'}"))
        lines += [("", f"rule {rule}") for rule in way["rules"]]
    print_table(("", ""), lines)


def _connection_words(one: dict[str, Any]) -> str:
    """What was sent, as the kernel still tracks it, and what came back."""
    sent_on = f", sent on to {_place(one['sent_on_to'], one['sent_on_to_port'])}" if one["sent_on_to"] else ""
    if one["works"]:
        came = "answered"
    elif one["answered_by"]:
        came = "refused, or never opened"
    else:
        came = "no answer has come"
    return f"{one['protocol']} {one['from']} to {_place(one['to'], one['port'])}{sent_on}: {came}"


def _place(address: str, port: int | None) -> str:
    host = f"[{address}]" if port and ":" in address else address
    return f"{host}:{port}" if port else host


def _answer_words(way: dict[str, Any]) -> str:
    """What was asked now, and what answered; where only a ping is not answered, that connections work."""
    service = way.get("service")
    if way.get("unasked"):
        return f"not asked: {way['unasked']}"
    if service is None:
        if way["answered"]:
            return "answers ping"
        why = f" ({way['refused']})" if way.get("refused") else ""
        works = f"; connections to it work: {', '.join(way['connections'])}" if way["connections"] else ""
        return f"does not answer ping{why}{works}"
    ports = ", ".join(f"{port['port']}/{port['protocol']} {_PORT_WORDS[port['state']]}" for port in service["ports"])
    behind = ", ".join(service["endpoints"])
    said = ports or (f"its connections are answered by {behind}" if behind else "")
    return f"a Service address, which answers no ping: {said}"


_PORT_WORDS = {
    "answers": "answers",
    "refused": "refuses connections",
    "no answer": "doesn't answer",
    "no endpoints": "has no endpoints",
    "unknown": "was sent a packet that needs no answer",
}


def _link_words(link: dict[str, Any]) -> str:
    counted = link.get("stats64", {})
    packets = ", ".join(f"{side} {counted[side]['packets']}" for side in ("rx", "tx") if side in counted)
    return f"{link['ifname']} {link['address']}, MTU {link['mtu']}, {link['operstate']}, packets {packets}"


def _route_words(route: dict[str, Any]) -> str:
    via = f" via {route['gateway']}" if "gateway" in route else ""
    return f"{route.get('dst', '')}{via} dev {route.get('dev', '')}"
