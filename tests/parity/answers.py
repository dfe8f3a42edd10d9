"""Turn a plugin's answer into comparable facts, with random names replaced, and compare a result with the kernel."""

import json
from typing import Any

from tests.kernel.plugin.client import Answer
from tests.parity import observe
from tests.parity.observe import Snapshot
from tests.parity.places import Json

Facts = dict[str, Any]

OK, REFUSED, BROKEN = "ok", "refused", "breaks the protocol"


def outcome(answer: Answer, silent: bool = False) -> Facts:
    """Return whether a call succeeded, was refused with an error (spec section 5), or broke the protocol."""
    facts: Facts = {"outcome": BROKEN, "code": 0, "message": ""}
    try:
        document = json.loads(answer.stdout) if answer.stdout.strip() else None
    except ValueError:
        document = None
    if answer.status == 0:
        if silent or isinstance(document, dict):
            facts["outcome"] = OK
    elif isinstance(document, dict) and isinstance(document.get("code"), int) and document.get("msg"):
        facts |= {"outcome": REFUSED, "code": document["code"], "message": str(document["msg"])}
    if facts["outcome"] == BROKEN:
        facts["message"] = (answer.stdout + answer.stderr).decode(errors="replace")[:200]
    return facts


def result_of(answer: Answer) -> Json | None:
    """Return the result of an ADD; None if it did not succeed."""
    if answer.status != 0:
        return None
    try:
        document = json.loads(answer.stdout)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def result_facts(result: Json, snapshot: Snapshot, pod: str) -> Facts:
    """Return the result's facts. Random names are replaced by the link's role, and unordered lists are sorted."""
    facts: Facts = {"result.cniVersion": result.get("cniVersion")}
    host_end = snapshot.host_end(pod)
    names = []
    for interface in result.get("interfaces", []):
        name = "the host veth" if host_end and interface.get("name") == host_end["ifname"] else interface.get("name")
        names.append(f"{name} in {interface['sandbox']}" if interface.get("sandbox") else str(name))
    if "interfaces" in result:
        facts["result.interfaces"] = names
    for key in ("ip4", "ip6"):
        if key in result:
            facts[f"result.{key}"] = {
                **result[key],
                "routes": sorted(json.dumps(route, sort_keys=True) for route in result[key].get("routes") or []),
            }
    if "interfaces" in result or "ips" in result:
        facts["result.ips"] = [
            {**ip, "interface": names[ip["interface"]] if ip.get("interface") is not None else None}
            for ip in result.get("ips") or []
        ]
        facts["result.routes"] = sorted(json.dumps(route, sort_keys=True) for route in result.get("routes") or [])
    facts["result.dns"] = {key: value for key, value in (result.get("dns") or {}).items() if value}
    return facts


def lies(result: Json, snapshot: Snapshot, pod: str) -> list[str]:
    """Return the parts of the result that the kernel's state contradicts."""
    untrue = []
    for interface in result.get("interfaces") or []:
        links = snapshot.pods[pod][0] if interface.get("sandbox") else snapshot.links
        link = links.get(interface.get("name", ""))
        role = (
            interface.get("name")
            if interface.get("sandbox") or interface.get("name", "").startswith(("cni", "br"))
            else "host veth"
        )
        if link is None:
            untrue.append(f"{role} is missing")
            continue
        untrue += [
            f"{key} of {role}"
            for key, is_ in (("mac", "address"), ("mtu", "mtu"))
            if interface.get(key, link[is_]) != link[is_]
        ]
    present = observe.addresses(snapshot.pod_link(pod))
    untrue += [f"address {ip['address']}" for ip in result.get("ips") or [] if ip["address"] not in present]
    routes = " ; ".join(observe.own_routes(snapshot.pods[pod][1]))
    untrue += [f"route {route['dst']}" for route in result.get("routes") or [] if route["dst"] not in routes]
    return untrue
