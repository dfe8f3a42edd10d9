"""Whatever is on stdin and in the environment: an answer by the specification, and nothing left behind."""

import json
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .plugin_client import VALID, WALK_THROUGH, Answer, Host, Pod, new_host

Json = dict[str, Any]

OWN_FOLDERS = (
    "var/lib/cni/networks",
    "var/lib/cnictl",
    "run/cnictl",
    "var/log/cnictl",
    "run/netns",
    "run/xtables.lock",
)
INTERNAL = 199
bounded = settings(
    max_examples=100,
    deadline=timedelta(seconds=20),
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def ground() -> Iterator[tuple[Host, Pod]]:
    """One host and pod for all examples: each leaves both as they were. The bridge stands already."""
    with new_host() as host:
        pod = host.pod()
        host.add(pod)
        host.delete(pod)
        yield host, pod


def left(host: Host) -> list[str]:
    """What stands on the host that belongs to an attachment, or where the plugin has no business."""
    links = host.path(f"/proc/{host.pid}/net/dev").read_text()
    found = [line.split(":")[0].strip() for line in links.splitlines() if ":" in line]
    found = [name for name in found if name not in ("lo", "cni0")]
    for top in ("run", "var/lib", "var/log", "opt"):
        for file in host.path(f"/{top}").rglob("*"):
            inside = str(file.relative_to(host.path("/")))
            if file.is_dir() or file.name in ("lock", "last_reserved_ip.0"):
                continue
            if not inside.startswith(OWN_FOLDERS) or "/attachments/" in inside or file.name[0].isdigit():
                found.append(inside)
    return found


def judge(host: Host, verb: str, environment: dict[str, str], stdin: bytes) -> Answer:
    """Make the call; if it attached the pod, detach it; then look at what is there."""
    answer = host.call(environment, stdin)
    if answer.status == 0:
        assert answer.stderr == b""
        if verb == "ADD":
            again = host.call({**environment, "CNI_COMMAND": "DEL"}, stdin)
            assert again.status == 0, again
    else:
        assert answer.code != INTERNAL, answer
        assert answer.code in {1, 2, 3, 4, 5, 6, 7, 11, 50, 51, 103, 104} or 100 <= answer.code < INTERNAL
    assert left(host) == []
    return answer


verbs = st.sampled_from(["ADD", "ADD", "ADD", "DEL", "DEL", "CHECK", "CHECK", "GC", "STATUS", "VERSION"])
# a key that names a path is the operator's word for where root writes: it isn't tried out on this machine
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/"), max_size=20)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | text
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=6
)
KEYS = (
    "cniVersion", "name", "type", "network", "subnet", "bridge", "mtu", "hairpinMode", "ipMasqBackend", "isGateway",
    "isDefaultGateway", "dns", "ipam", "logFile", "logLevel", "prevResult", "runtimeConfig", "args", "vlan", VALID,
)  # fmt: skip
addresses = st.sampled_from(
    ["10.244.0.0/24", "10.244.0.0/30", "0.0.0.0/0", "255.255.255.255/32", "224.0.0.0/4", "::/0", "10.244.0.0/24/24",
     "10.244.0.0/-1", "10.244.0.0/1e1", " 10.244.0.0/24", "10.244.0.0/24\n", "\u0661\u0660.244.0.0/24", "127.0.0.0/8"]
)  # fmt: skip
ipams = st.dictionaries(
    st.sampled_from(["type", "subnet", "ranges", "routes", "rangeStart", "rangeEnd", "gateway"]), values | addresses
)
entries = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("eth0") | text | values,
        "mac": st.just("02:00:00:00:00:01") | values,
        "sandbox": st.just("/run/netns/pod") | values,
        "address": st.just("10.244.0.2/24") | addresses | values,
        "interface": st.integers(-1, 2) | values,
        "dst": st.just("0.0.0.0/0") | addresses | values,
        "gw": st.just("10.244.0.1") | values,
    },
)
previous = st.dictionaries(
    st.sampled_from(["interfaces", "ips", "routes", "dns", "cniVersion"]),
    st.lists(entries | values, max_size=3) | values,
)
confs = st.dictionaries(st.sampled_from(KEYS), values | addresses, min_size=1, max_size=3)
environment_text = st.binary(max_size=24).map(lambda raw: os.fsdecode(raw.replace(b"\0", b"")))
HOSTILE = (
    "..", ".", "/", "../../../../tmp/x", "a/../../b", "/etc/passwd", "a@b", "a b", "a\nb", "-rf", "", "eth%d", "%s%n",
    "x" * 15, "x" * 16, "x" * 255, "x" * 4000, "pod", "eth0", "ethé", "\x7f", "\x1b[31m", "$(id)", "`id`", ";id", "0",
)  # fmt: skip
names = st.sampled_from(HOSTILE) | environment_text


@bounded
@given(verb=verbs, stdin=st.binary(max_size=200))
def test_any_bytes_on_stdin(ground: tuple[Host, Pod], verb: str, stdin: bytes) -> None:
    host, pod = ground
    judge(host, verb, host.environment(verb, pod), stdin)


@bounded
@given(verb=verbs, cut=st.integers(0, 140), filler=st.binary(max_size=4))
def test_conf_that_is_cut_or_spoiled_anywhere(ground: tuple[Host, Pod], verb: str, cut: int, filler: bytes) -> None:
    host, pod = ground
    whole = json.dumps(WALK_THROUGH).encode()
    judge(host, verb, host.environment(verb, pod), whole[:cut] + filler + whole[cut + len(filler) :])
    judge(host, verb, host.environment(verb, pod), whole[:cut])


@bounded
@given(verb=verbs, changes=confs)
def test_any_value_under_every_key(ground: tuple[Host, Pod], verb: str, changes: Json) -> None:
    host, pod = ground
    conf = {**WALK_THROUGH, "cniVersion": "1.1.0", "bridge": "cni0", VALID: [], **changes}
    if conf["bridge"] != "cni0":
        conf["subnet"] = "no subnet"  # refused before another bridge is made, that would stay
    judge(host, verb, host.environment(verb, pod), json.dumps(conf).encode())


@bounded
@given(verb=verbs, ipam=st.just({}) | ipams, prev=previous)
def test_any_ipam_object_and_prev_result(ground: tuple[Host, Pod], verb: str, ipam: Json, prev: Json) -> None:
    host, pod = ground
    conf = {**WALK_THROUGH, "cniVersion": "1.1.0", VALID: [], "ipam": ipam, "prevResult": prev}
    judge(host, verb, host.environment(verb, pod), json.dumps(conf).encode())


@bounded
@given(verb=verbs, container=names, ifname=names, netns=st.just("") | names, args=names, real=st.booleans())
def test_any_environment(
    ground: tuple[Host, Pod], verb: str, container: str, ifname: str, netns: str, args: str, real: bool
) -> None:
    host, pod = ground
    conf = {**WALK_THROUGH, "cniVersion": "1.1.0", VALID: []}
    strange = Pod(container, pod.netns if real else netns, ifname)
    judge(host, verb, host.environment(verb, strange, CNI_ARGS=args), json.dumps(conf).encode())


@bounded
@given(verb=st.sampled_from(["ADD", "DEL"]), key=st.sampled_from(["IP", "MAC", "K8S_POD_NAME", "Other"]), value=names)
def test_any_value_in_cni_args(ground: tuple[Host, Pod], verb: str, key: str, value: str) -> None:
    host, pod = ground
    environment = host.environment(verb, pod, CNI_ARGS=f"IgnoreUnknown=1;{key}={value}")
    judge(host, verb, environment, json.dumps(WALK_THROUGH).encode())
