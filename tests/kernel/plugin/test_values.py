"""Unusual but valid values: the plugin accepts those that the reference accepts, and names the key of those it refuses.

Both get the same bytes and environment, each on its own host. `OTHERWISE` lists the few values on which this plugin
differs on purpose.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kernel.plugin.client import Answer, Host, Pod, new_host, plugin_executable

Json = dict[str, Any]
_REFERENCE = "/usr/lib/cni/bridge"
_SUBNET = "10.22.0.0/24"
_CONF = '"cniVersion":"1.0.0","name":"net","bridge":"cni0"'
_MAC = "02:00:00:00:00:01"


def ipam(more: str = "", subnet: str = f'"subnet":"{_SUBNET}"') -> str:
    parts = ",".join(filter(None, ('"type":"host-local"', subnet, more)))
    return f'{_CONF},"ipam":{{{parts}}}'


def top(more: str) -> str:
    return f"{ipam()},{more}"


def _versions() -> Iterator[tuple[str, str]]:
    rest = ipam().removeprefix('"cniVersion":"1.0.0",')
    for name, text in (("empty", '"cniVersion":"",'), ("null", '"cniVersion":null,'), ("none", "")):
        yield f"cniVersion {name}", text + rest
    for key in ("CNIVersion", "cniversion"):
        yield f"cniVersion as {key}", f'"{key}":"0.4.0",{rest}'
    for value in ("v1.0.0", "1.0", "1.0.0 ", "9.9.9"):
        yield f"cniVersion {value!r}", f'"cniVersion":"{value}",{rest}'


def _documents() -> Iterator[tuple[str, str]]:
    yield from _versions()
    yield from _types()
    yield from _spellings()


def _types() -> Iterator[tuple[str, str]]:
    for value in ("1400", "1500.0", "1.5e3", '"1400"', '""', "false", "[]", "{}", "null", "0", "01400", "1e99"):
        yield f"mtu {value}", top(f'"mtu":{value}')
    for key in ("IPMASQ", "ipmasq", "isgateway", "HairpinMode"):
        yield f"{key} true", top(f'"{key}":true')
    for key in ("ipMasq", "forceAddress"):
        for value in ("null", '""', "0", "1", '"true"', "[]"):
            yield f"{key} {value}", top(f'"{key}":{value}')
    for key in ("dns", "args", "runtimeConfig", "prevResult", "capabilities"):
        for value in ("null", "{}", '""', "0", "[]"):
            yield f"{key} {value}", top(f'"{key}":{value}')
    yield "capabilities.mac as text", top('"capabilities":{"mac":"yes"}')
    for key in ("ips", "mac", "ipRanges"):
        for value in ("null", '""', "0", "[]"):
            yield f"runtimeConfig.{key} {value}", top(f'"runtimeConfig":{{"{key}":{value}}}')
    for key in ("ranges", "routes", "dataDir", "resolvConf", "rangeStart", "gateway"):
        for value in ("null", '""', "0", "[]"):
            yield f"ipam.{key} {value}", ipam(f'"{key}":{value}')


def _spellings() -> Iterator[tuple[str, str]]:
    yield "runtimeConfig.IPs", top('"runtimeConfig":{"IPs":["10.22.0.9"]}')
    yield "runtimeConfig.MAC", top(f'"runtimeConfig":{{"MAC":"{_MAC}"}}')
    yield "RuntimeConfig.IPRanges", top('"RuntimeConfig":{"IPRanges":[[{"Subnet":"10.33.0.0/24"}]]}')
    yield "args.CNI.IPS", top('"Args":{"CNI":{"IPS":["10.22.0.9"]}}')
    yield "dns.NameServers", top('"DNS":{"NameServers":["192.0.2.53"]}')
    yield "IPAM.Type and Subnet", f'{_CONF},"IPAM":{{"Type":"host-local","SUBNET":"{_SUBNET}"}}'
    for first, second in (("mtu", "MTU"), ("MTU", "mtu"), ("mtu", "mtu")):
        yield f"{first} 1300 and {second} 1400", top(f'"{first}":1300,"{second}":1400')
    yield "an unknown key", top('"foo":{"bar":[1,2]}')
    for name, address in (("mapped", "::ffff:10.22.0.9"), ("with zeros", "010.22.0.9"), ("a CIDR", "10.22.0.9/24")):
        for key in ("rangeStart", "rangeEnd", "gateway"):
            yield f"ipam.{key} {name}", ipam(f'"{key}":"{address}"')
        yield f"routes.gw {name}", ipam(f'"routes":[{{"dst":"10.99.0.0/16","gw":"{address}"}}]')
        yield f"runtimeConfig.ips {name}", top(f'"runtimeConfig":{{"ips":["{address}"]}}')
    for subnet in ("10.22.0.5/24", "010.22.0.0/24", "10.22.0.0/+24", " 10.22.0.0/24", "10.22.0.0", "fd00::1/64"):
        yield f"ipam.subnet {subnet}", ipam(subnet=f'"subnet":"{subnet}"')
    for subnet in ("FD00::/64", "fd00:0:0::0/64"):
        yield f"ipam.subnet {subnet}", ipam(subnet=f'"subnet":"{subnet}"')


_MACS = (
    *("02-00-00-00-00-01", "0200.0000.0001", "02:00:00:00:00:AB", "2:0:0:0:0:1", "020000000001", " 02:00:00:00:00:01"),
    *("02-00-00:00-00-01", "02:00:00:00:00:00:00:01", "0200.0000.0000.0001", "01:00:00:00:00:01", "00:00:00:00:00:00"),
    "00:00:00:00:fe:80:00:00:00:00:00:00:02:00:5e:10:00:00:00:01",
)
_ARGS = (
    *("IgnoreUnknown=1;A=b", "IgnoreUnknown=true;A=b", "IgnoreUnknown=True;A=b", "IgnoreUnknown=TRUE;A=b"),
    *("IgnoreUnknown=yes;A=b", "IgnoreUnknown", "IgnoreUnknown=1;A", "IgnoreUnknown=1;A=", "IgnoreUnknown=1;=b"),
    *("IgnoreUnknown=1;IP=", "IgnoreUnknown=1;IP=010.22.0.9", "IgnoreUnknown=1;IP=::ffff:10.22.0.9"),
    *("IgnoreUnknown=1;ip=10.22.0.9", "IgnoreUnknown=1;IP=10.22.0.9;IP=10.22.0.10", "IgnoreUnknown=1;A=b=c", "A=b"),
    *("IgnoreUnknown=1;", ";IgnoreUnknown=1", "IgnoreUnknown=false;A=b"),
)
_IFNAMES = ("e th0", "eth/0", "eth:0", ".", "..", "a" * 15, "a" * 16, "eth0.1", "ETH0", "-a")
_NETNS = ("/run/netns/../netns/pod", "/run//netns/pod", "/run/netns/nope", "pod", "/etc/passwd", "/run/netns/pod/")

Case = tuple[bytes, dict[str, str]]


def _cases() -> dict[str, Case]:
    cases: dict[str, Case] = {name: (text.encode(), {}) for name, text in _documents()}
    for name, keys in (("unknown key's value", '"foo":"XX"'), ("dns.domain", '"dns":{"domain":"aXXb"}')):
        cases[f"bytes that are no UTF-8 in {name}"] = (top(keys).encode().replace(b"XX", b"\xff"), {})
    cases["bytes that are no UTF-8 in a key"] = (top('"fXX":1').encode().replace(b"XX", b"\xff"), {})
    cases["bytes that are no UTF-8 in name"] = (ipam().encode().replace(b'"net"', b'"n\xff"'), {})
    cases["half a surrogate pair"] = (top(r'"foo":"\ud800"').encode(), {})
    for mac in _MACS:
        cases[f"CNI_ARGS MAC={mac}"] = (ipam().encode(), {"CNI_ARGS": f"IgnoreUnknown=1;MAC={mac}"})
        cases[f"runtimeConfig.mac {mac}"] = (top(f'"runtimeConfig":{{"mac":"{mac}"}}').encode(), {})
    cases |= {f"CNI_ARGS {arguments}": (ipam().encode(), {"CNI_ARGS": arguments}) for arguments in _ARGS}
    cases |= {f"CNI_IFNAME {ifname!r}": (ipam().encode(), {"CNI_IFNAME": ifname}) for ifname in _IFNAMES}
    cases |= {f"CNI_NETNS {netns!r}": (ipam().encode(), {"CNI_NETNS": netns}) for netns in _NETNS}
    return cases


CASES = _cases()

OTHERWISE = {
    # unknown arguments are for other plugins: docs/runtimes.md
    **dict.fromkeys(("CNI_ARGS A=b", "CNI_ARGS IgnoreUnknown=false;A=b", "CNI_ARGS IgnoreUnknown=1;A=b=c"), "accepted"),
    **dict.fromkeys(("CNI_ARGS IgnoreUnknown=1;", "CNI_ARGS ;IgnoreUnknown=1"), "accepted"),
}
"""What this plugin does with a value if it differs from release 1.1.1 of the reference."""


@pytest.fixture(scope="module")
def sides() -> Iterator[tuple[tuple[Host, Pod], tuple[Host, Pod]]]:
    """A host for the reference and one for the plugin, each with a pod; every test removes what it created."""
    with new_host() as first, new_host() as second:
        yield (first, first.pod()), (second, second.pod())


def outcome(host: Host, pod: Pod, case: Case, ours: bool) -> tuple[Json, Answer]:
    """Return the pod's addresses, MTU and MAC after ADD ({} if refused) and the answer; then delete everything."""
    text, environment = case
    kind, executable = ("cnictl-bridge", plugin_executable()) if ours else ("bridge", _REFERENCE)
    stdin = b'{"type":"%s",%s}' % (kind.encode(), text)
    variables = {**host.environment("ADD", pod), **environment}
    answer = host.call(variables, stdin, executable)
    seen: Json = {}
    if answer.status == 0:
        shown = Pod(pod.container, pod.netns, variables["CNI_IFNAME"])
        link = host.pod_link(shown) or {}
        asked = "mac" in text.decode("utf-8", "replace").lower() or "MAC=" in variables.get("CNI_ARGS", "")
        seen = {
            "cniVersion": answer.document["cniVersion"],
            "dns": answer.document.get("dns"),
            "mtu": link.get("mtu"),
            "addresses": sorted(
                address["local"] for address in link.get("addr_info", []) if not address["local"].startswith("fe80")
            ),
            "mac": link.get("address") if asked and str(link.get("address")).startswith("02:00") else "",
        }
        deleted = host.call({**variables, "CNI_COMMAND": "DEL"}, stdin, executable)
        assert deleted.status == 0, deleted
        assert host.pod_link(shown) is None
    host.run("sh", "-c", "ip link delete cni0; ip -n pod link delete eth0; rm -r /var/lib/cni/networks/*", check=False)
    return seen, answer


@pytest.mark.parametrize("name", CASES)
def test_a_value_is_accepted_as_by_the_reference_or_refused_by_name(
    name: str, sides: tuple[tuple[Host, Pod], tuple[Host, Pod]]
) -> None:
    (theirs, their_pod), (ours, our_pod) = sides
    actual, answer = outcome(ours, our_pod, CASES[name], ours=True)
    expected, said = outcome(theirs, their_pod, CASES[name], ours=False)
    assert bool(actual) == (OTHERWISE[name] == "accepted" if name in OTHERWISE else bool(expected)), (answer, said)
    if actual and expected:
        assert actual == expected
    if not actual:
        key = "name" if "UTF-8" in name else name.split()[0].split(".")[-1]
        assert key.lower() in json.dumps(answer.error).lower() or "not JSON" in answer.error["msg"]


def test_every_verb_of_0_1_0_accepts_a_conf_without_a_version() -> None:
    with new_host() as host:
        pod = host.pod()
        conf = {
            "cniVersion": "",
            "name": "net",
            "type": "cnictl-bridge",
            "ipam": {"type": "host-local", "subnet": _SUBNET},
        }
        result = host.add(pod, conf)
        assert (result["cniVersion"], result["ip4"]["ip"]) == ("0.1.0", "10.22.0.2/24")
        assert host.plugin("CHECK", pod, conf, result).code == 1
        assert host.plugin("VERSION", conf={"cniVersion": ""}).result["cniVersion"] == "0.1.0"
        host.delete(pod, conf)
        assert host.leases("net") == {}
