"""`cnictl pod`: list this node's pods, and show everything about one attachment."""

from typing import Annotated, Any

import typer

from cnictl.cli.ipam import NameOption, age, observe
from cnictl.cli.output import (
    Format,
    ListOption,
    OutputOption,
    print_items,
    print_json,
    print_list,
    print_table,
    say,
    working,
)
from cnictl.cli.renamed import FormerNetworkOption
from cnictl.cli.root import require_root
from cnictl.core.counted import counted
from cnictl.node.spec import node_file
from cnictl.views import attachment, pods


def list_pods(name: NameOption = "", output: ListOption = Format.TABLE) -> None:
    """List the pods of this node: for each its name, addresses, interface, state and age.

    The name is what `cnictl pod` takes: the pod's NAMESPACE/NAME if no other attachment has it, else the container's id
    or an address. The states are those of `cnictl ipam list`. -o wide adds the container, the host veth and the network
    namespace.

    \b
    cnictl pod list
    cnictl pod list -o wide
    cnictl pod list -o name | xargs -n1 cnictl pod
    """
    require_root("pod list", "reads the attachment records")
    listing = observe(name, "", "pod list")
    rows = pods.listed(listing)
    if output is Format.JSON:
        print_items(rows, {"network": listing.network})
        return
    if not rows:
        say(f"{listing.network} has no pods on this node")
        return
    columns = ("name", "address", "interface", "state", "age", "container", "host veth", "netns")
    print_list(output, columns, list(map(_cells, rows)), (row["name"] for row in rows), more=3)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    addresses = ", ".join(row["addresses"]) or "-"
    ends = (row["host_veth"] or "-", row["netns"] or "-")
    return row["name"], addresses, row["interface"], row["state"], age(row["since"] or 0), row["container"], *ends


def show(
    who: Annotated[str, typer.Argument(metavar="POD", help="A pod by its address, name or container id.")],
    to: Annotated[
        str, typer.Option("--to", metavar="ADDRESS", help="Where to: an address or a pod. Default: an outside host.")
    ] = "",
    name: NameOption = "",
    former: FormerNetworkOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Show everything about one attachment: lease, both ends of its veth pair, port, routes, counters, connections.

    Lines that begin with `earlier` are connections that the kernel still tracks, each with its protocol and port. Then
    comes the pod's way to an address: the routes inside the pod and on the host, whether the address answers a ping,
    and the firewall rules that the ping matches. A Service's address answers no ping, so its ports are tried instead.
    `cnictl pod POD` is short for `cnictl pod show POD`.

    \b
    cnictl pod show 10.244.0.12
    cnictl pod show default/web --to 10.244.1.7
    cnictl pod show 6f3c1e0b -o json | jq .way.rules
    """
    require_root("pod show", "looks into the pod's namespace")
    listing = observe(name or former, "", "pod show")
    with working("looking at the pod"):
        rows = attachment.choose(listing, who)
        shown = attachment.collect(listing, rows, attachment.target(listing, rows, to, node_file.load()))
    if output is Format.JSON:
        print_json(shown)
    else:
        _show(shown)


def _show(shown: dict[str, Any]) -> None:
    leases = shown["leases"]
    lines = [("address", f"{lease['address']} ({lease['state']}: {lease['reason']})") for lease in leases]
    first = leases[0]
    lines.append(("pod", first["pod"] or f"{first['container']} {first['interface']}"))
    host_end, inside, port = shown.get("host_end"), shown.get("inside"), shown.get("port")
    if host_end:
        lines.append(("host end", _link_words(host_end)))
    if port:
        switches = ("hairpin", "isolated", "learning", "flood")
        on = [f"{key} {'on' if port[key] else 'off'}" for key in switches if key in port]
        lines.append(("port", f"{port.get('master', 'on no bridge')}, {port.get('state', '')}, {', '.join(on)}"))
    if inside:
        lines.append(("inside", _link_words(inside)))
        lines += [("", f"{address['local']}/{address['prefixlen']}") for address in inside.get("addr_info", ())]
    lines += [("route", _route_words(route)) for route in shown.get("routes", ())]
    lines += [
        ("neighbour", f"{entry['dst']} is {entry.get('lladdr', 'unknown')}, {' '.join(entry.get('state', []))}")
        for entry in shown.get("neighbours", ())
    ]
    lines += [("earlier", _connection_words(connection)) for connection in shown.get("connections", ())]
    if shown.get("more_connections"):
        lines.append(("", f"and {counted(shown['more_connections'], 'more tracked connection')}"))
    way = shown.get("way")
    if way:
        lines.append((f"path to {way['to']}", _answer_words(way)))
        for where, key in (("inside", "inside"), ("on the host", "on_the_host")):
            if way[key] or not way.get("unasked"):
                lines.append(("", f"{where}: {_route_words(way[key]) if way[key] else 'no route'}"))
        lines += [("", f"rule {rule}") for rule in way["rules"]]
    print_table(("", ""), lines)


def _connection_words(connection: dict[str, Any]) -> str:
    """Return a tracked connection, and what came back, in words."""
    sent_on = (
        f", forwarded to {_place(connection['sent_on_to'], connection['sent_on_to_port'])}"
        if connection["sent_on_to"]
        else ""
    )
    if connection["works"]:
        came = "answered"
    elif connection["answered_by"]:
        came = "refused, or never opened"
    else:
        came = "no answer"
    target = _place(connection["to"], connection["port"])
    # the kernel does not keep who sent a ping, so an earlier check's looks like the pod's own
    perhaps = " (a ping, perhaps of an earlier cnictl check)" if connection["protocol"].startswith("icmp") else ""
    return f"{connection['protocol']} {connection['from']} to {target}{sent_on}: {came}{perhaps}"


def _place(address: str, port: int | None) -> str:
    host = f"[{address}]" if port and ":" in address else address
    return f"{host}:{port}" if port else host


def _answer_words(way: dict[str, Any]) -> str:
    """Return what answered, in words. If only the ping was not answered, also name the connections that work."""
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
    reached = ports or (f"its connections are answered by {behind}" if behind else "")
    return f"a Service address, which does not answer pings: {reached}"


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
