"""`cnictl ipam` shows leases in every state, frees only what is proven stale, and keeps the rest."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel import commands
from tests.kernel.plugin.client import LEASES, RECORDS, Host, Pod, finish
from tests.waiting import wait_for

pytestmark = pytest.mark.once

Json = dict[str, Any]

LONG_AGO = "2001-01-01"
HOST_LOCAL: Json = {"type": "host-local", "subnet": "10.244.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}
SAME_STORE: Json = {"cniVersion": "0.4.0", "name": "mynet", "type": "bridge", "ipam": HOST_LOCAL}
OTHER_STORE: Json = {
    "cniVersion": "0.4.0",
    "name": "other",
    "type": "bridge",
    "bridge": "br9",
    "ipam": {"type": "host-local", "subnet": "10.9.0.0/24"},
}


def cnictl(host: Host, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run a cnictl command on the host."""
    return subprocess.run(
        [*host.enter, sys.executable, "-m", "cnictl", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "COLUMNS": "200"},
    )


def as_json(host: Host, *words: str, status: int = 0) -> Any:
    done = cnictl(host, "ipam", *words, "-o", "json")
    assert done.returncode == status, (done.stdout, done.stderr)
    return json.loads(done.stdout)


def states(host: Host, network: str = "mynet") -> dict[str, str]:
    """Return each container's state in `ipam list`. A torn lease is listed under its address."""
    listed = as_json(host, "list", "--name", network)
    return {row["container"] or row["address"]: row["state"] for row in listed["items"]}


def everything(host: Host) -> str:
    """Return all files of leases and records with their sizes and times, which read-only commands must not change."""
    files = host.run("find", "/var/lib", "/run", "-printf", "%p %y %T@ %C@ %s %m\\n")
    return "\n".join(sorted(line for line in files.splitlines() if "/run/netns" not in line))


def cut_off(host: Host, pod: Pod) -> None:
    """Kill an ADD after it has made the veth pair and before the pod has its address."""
    killer = ["strace", "-qq", "-o", "/dev/null", "-e", "inject=setns:signal=KILL"]
    assert finish(host.start("ADD", pod, through=killer)).status != 0
    assert f"{pod.container}@eth0" in host.records()


@contextmanager
def held(host: Host, pod: Pod) -> Iterator[None]:
    """Lock the pod's record while the context lasts, as an ADD or DEL that works on it does."""
    with open(host.path(f"{RECORDS}/mynet/{pod.container}@{pod.ifname}"), "rb") as record:
        fcntl.flock(record, fcntl.LOCK_EX)
        yield


@dataclass
class Mixed:
    """A host with one pod in each state."""

    host: Host
    live: Pod
    stale: Pod
    cut: Pod
    busy: Pod
    foreign: Pod
    old: Pod
    torn: str


@pytest.fixture
def mixed(host: Host) -> Iterator[Mixed]:
    confs = host.path("/etc/cni/net.d")
    confs.mkdir(parents=True)
    (confs / "10-mynet.conf").write_text(json.dumps(host.conf))
    live, stale, cut, busy, foreign, old = host.pods(6, "p")
    host.add(live, CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0")
    veth = host.add(stale)["interfaces"][1]["name"]
    host.add(busy)
    cut_off(host, cut)
    host.kill(stale)
    wait_for(lambda: veth not in host.links(), "the dead pod's veth is removed with its namespace")
    for pod in (foreign, old):  # last, because the plugin's next ADD would write records for their leases
        assert host.reference("host-local", "ADD", pod, SAME_STORE).status == 0
    leased = {content.split("\r\n")[0]: address for address, content in host.leases().items()}
    host.run("touch", "-d", LONG_AGO, f"{LEASES}/mynet/{leased[old.container]}")
    torn = "10.244.0.99"
    host.path(f"{LEASES}/mynet/{torn}").write_bytes(b"")
    with held(host, busy):
        yield Mixed(host, live, stale, cut, busy, foreign, old, torn)


def test_list_shows_every_state_with_its_proof_and_changes_nothing(mixed: Mixed) -> None:
    host = mixed.host
    before = everything(host)
    listed = as_json(host, "list")
    rows = {row["container"] or row["address"]: row for row in listed["items"]}
    said = {name: (row["state"], row["reason"]) for name, row in rows.items()}
    veth = host.links().keys()
    assert said[mixed.live.container][0] == "live"
    assert said[mixed.live.container][1].split(" ")[0] in veth
    assert said[mixed.stale.container] == ("stale", f"its namespace {mixed.stale.netns} is gone")
    assert said[mixed.cut.container] == ("stale", "its ADD was cut off")
    assert said[mixed.busy.container] == ("in flight", "an ADD or DEL is working on it")
    assert said[mixed.old.container] == ("stale", "its lease is from before the last boot")
    assert said[mixed.foreign.container][0] == "unknown"
    assert said[mixed.torn] == ("torn", "its lease names no owner")
    assert len(rows) == 7 == listed["used"]
    assert (rows[mixed.live.container]["pod"], rows[mixed.live.container]["interface"]) == ("default/web-0", "eth0")
    assert (listed["total"], listed["free"], listed["stray_veths"]) == (253, 246, [])
    cnictl(host, "ipam", "list")
    cnictl(host, "ipam", "show", "10.244.0.2")
    cnictl(host, "ipam", "gc", "--dry-run")
    cnictl(host, "ipam", "release", mixed.stale.container, "--dry-run")
    assert everything(host) == before


def test_only_stale_leases_are_listed_in_the_requested_order(mixed: Mixed) -> None:
    every = json.loads(cnictl(mixed.host, "ipam", "list", "--sort", "age", "-o", "json").stdout)
    since = [row["since"] for row in every["items"] if row["since"]]
    assert since == sorted(since) and len(every["items"]) == 7
    document = json.loads(cnictl(mixed.host, "ipam", "list", "--stale", "-o", "json").stdout)
    stale = [row["address"] for row in every["items"] if row["state"] == "stale"]
    assert {row["state"] for row in document["items"]} == {"stale"} and document["used"] == 7
    named = cnictl(mixed.host, "ipam", "list", "--stale", "--sort", "age", "-o", "name").stdout
    assert named.split() == list(dict.fromkeys(stale))
    wide = cnictl(mixed.host, "ipam", "list", "-o", "wide").stdout
    assert mixed.busy.container in wide and "HOST VETH" in wide.splitlines()[0]


def test_the_table_ends_with_the_utilisation(mixed: Mixed) -> None:
    done = cnictl(mixed.host, "ipam", "list")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["ADDRESS", "CONTAINER", "INTERFACE", "POD", "AGE", "STATE"]
    assert lines[-1] == f"mynet 10.244.0.0/24  █{'░' * 19} 7 used, 246 free of 253"
    live = next(line for line in lines if "default/web-0" in line)
    assert live.split()[-1] == "live"
    assert any(line.endswith("stale: its ADD was cut off") for line in lines)
    assert done.stderr == ""


def test_show_names_the_veth_its_bridge_and_whether_the_namespace_is_the_same(mixed: Mixed) -> None:
    host = mixed.host
    (live,) = as_json(host, "show", "10.244.0.2")["items"]
    veth = live["host_veth"]["name"]
    assert live["host_veth"] == {
        "name": veth, "present": True, "up": True, "mac": host.links()[veth]["address"], "mtu": 1500,
        "bridge": "cni0", "bridge_intended": "cni0",
    }  # fmt: skip
    assert live["netns"]["now"] == "the same"
    assert live["lease"] == f"{LEASES}/mynet/10.244.0.2"
    assert live["record"] == f"{RECORDS}/mynet/{mixed.live.container}@eth0"
    inside = host.pod_link(mixed.live)
    assert inside is not None and live["mac"] == inside["address"]
    (gone,) = as_json(host, "show", "10.244.0.3")["items"]
    assert (gone["host_veth"]["present"], gone["netns"]["now"]) == (False, "gone")
    host.run("ip", "netns", "add", os.path.basename(mixed.stale.netns))
    assert as_json(host, "show", "10.244.0.3")["items"][0]["netns"]["now"] == "another namespace now"
    table = cnictl(host, "ipam", "show", "10.244.0.2").stdout
    assert "host veth: bridge" in table and "cni0" in table


def test_gc_frees_what_is_provably_stale_and_leaves_the_rest(mixed: Mixed) -> None:
    host = mixed.host
    stale = {mixed.stale.container, mixed.cut.container, mixed.old.container, mixed.torn}
    planned = as_json(host, "gc", "--dry-run")["items"][0]["outcomes"]
    assert {
        outcome["container"] or outcome["address"] for outcome in planned if outcome["action"] == "would free"
    } == stale
    done = as_json(host, "gc")["items"][0]["outcomes"]
    assert {outcome["container"] or outcome["address"] for outcome in done if outcome["action"] == "freed"} == stale
    left = {outcome["container"]: outcome["reason"] for outcome in done if outcome["action"] == "left"}
    assert left.keys() == {mixed.live.container, mixed.busy.container, mixed.foreign.container}
    assert left[mixed.busy.container] == "an ADD or DEL is working on it"
    holders = {content.split("\r\n")[0] for content in host.leases().values()}
    assert holders == {mixed.live.container, mixed.busy.container, mixed.foreign.container}
    assert host.records() == {f"{mixed.live.container}@eth0", f"{mixed.busy.container}@eth0"}
    assert len(host.ports()) == 2
    assert host.pings(mixed.live, "10.244.0.1")
    assert {outcome["action"] for outcome in as_json(host, "gc")["items"][0]["outcomes"]} == {"left"}


def test_gc_counts_at_the_end_and_shows_the_manual_commands_first(mixed: Mixed) -> None:
    done = cnictl(mixed.host, "ipam", "gc", "--dry-run")
    assert f"rm {LEASES}/mynet/{mixed.torn}" in done.stdout.splitlines()
    assert done.stderr.splitlines()[-1] == "mynet: 4 would free, 3 left"
    assert cnictl(mixed.host, "ipam", "gc").stderr.splitlines()[-1] == "mynet: 4 freed, 3 left"


def test_a_live_lease_is_released_only_with_force_and_then_completely(mixed: Mixed) -> None:
    host = mixed.host
    before = everything(host)
    refused = cnictl(host, "ipam", "release", "10.244.0.2")
    assert refused.returncode == 1 and refused.stdout == ""
    assert refused.stderr.startswith("cnictl: 10.244.0.2 is live: pod default/web-0")
    assert everything(host) == before
    ports = host.ports()
    done = cnictl(host, "ipam", "release", mixed.live.container, "--force")
    assert done.returncode == 0, done.stderr
    assert "10.244.0.2" not in host.leases()
    assert f"{mixed.live.container}@eth0" not in host.records()
    assert len(ports - host.ports()) == 1
    assert host.pod_link(mixed.live) is None


def test_a_lease_in_flight_is_not_released_even_with_force(mixed: Mixed) -> None:
    refused = cnictl(mixed.host, "ipam", "release", mixed.busy.container, "--force")
    assert refused.returncode == 1
    assert "an ADD or DEL is working on it" in refused.stderr
    assert f"{mixed.busy.container}@eth0" in mixed.host.records()


def test_stale_torn_and_unproven_leases_are_released_one_by_one(mixed: Mixed) -> None:
    host = mixed.host
    assert cnictl(host, "ipam", "release", mixed.stale.container).returncode == 0
    assert cnictl(host, "ipam", "release", mixed.torn).returncode == 0
    refused = cnictl(host, "ipam", "release", mixed.foreign.container)
    assert refused.returncode == 1 and "is not proven stale" in refused.stderr
    assert cnictl(host, "ipam", "release", mixed.foreign.container, "--force").returncode == 0
    assert states(host).keys() == {mixed.live.container, mixed.cut.container, mixed.busy.container, mixed.old.container}
    again = cnictl(host, "ipam", "release", mixed.torn)
    assert (again.returncode, again.stderr.splitlines()[0]) == (1, f"cnictl: {mixed.torn} is not leased")


def test_a_running_add_is_in_flight_and_gc_leaves_it_alone(host: Host) -> None:
    pod = host.pod()
    slow = host.start("ADD", pod, through=["strace", "-qq", "-o", "/dev/null", "-e", "inject=setns:delay_exit=3000000"])
    wait_for(lambda: host.ports(), "the ADD makes its pair")
    assert states(host) == {"pod": "in flight"}
    assert [outcome["action"] for outcome in as_json(host, "gc")["items"][0]["outcomes"]] == ["left"]
    answer = finish(slow)
    assert answer.address == "10.244.0.2"
    assert states(host) == {"pod": "live"}


def test_a_network_of_the_reference_is_listed_without_being_claimed(host: Host) -> None:
    first, second, third = host.pods(3, "r")
    for pod in (first, second, third):
        assert host.reference("bridge", "ADD", pod, OTHER_STORE).status == 0
    for address in ("10.9.0.2", "10.9.0.3"):
        host.run("touch", "-d", LONG_AGO, f"{LEASES}/other/{address}")
    host.kill(second)
    assert (
        host.reference("host-local", "ADD", Pod("r3", "/run/netns/r3"), {**OTHER_STORE, "type": "host-local"}).status
        == 0
    )
    before = everything(host)
    assert states(host, "other") == {"r0": "live", "r1": "stale", "r2": "live", "r3": "unknown"}
    assert as_json(host, "list")["network"] == "other"
    assert everything(host) == before
    (freed,) = as_json(host, "gc", "--all")["items"]
    assert [outcome["action"] for outcome in freed["outcomes"]] == ["left", "freed", "left", "left"]
    assert cnictl(host, "ipam", "release", "r2").returncode == 1
    assert host.pings(third, "10.9.0.2") and host.pings(first, "10.9.0.4")
    assert cnictl(host, "ipam", "release", "r2", "--force").returncode == 0
    assert cnictl(host, "ipam", "release", "r3", "--force").returncode == 0
    assert host.leases("other").keys() == {"10.9.0.2"}
    # so that no address in use is leased again
    assert host.pod_link(third) is None and host.pod_link(first) is not None
    assert host.records("other") == set()
    assert os.listdir(host.path("/var/lib/cnictl")) == ["journal"]  # it records what was freed, with the proof
    assert host.reference("bridge", "DEL", first, OTHER_STORE).status == 0
    assert host.leases("other") == {}


def test_a_store_elsewhere_is_found_by_data_dir(host: Host) -> None:
    pod = host.pod()
    elsewhere = {**OTHER_STORE, "ipam": {**OTHER_STORE["ipam"], "dataDir": "/run/leases"}}
    assert host.reference("host-local", "ADD", pod, elsewhere).status == 0
    listed = as_json(host, "list", "--data-dir", "/run/leases/")
    assert (listed["network"], [row["container"] for row in listed["items"]]) == ("other", ["pod"])
    missing = cnictl(host, "ipam", "list", "--name", "nonet", "--data-dir", "/run/leases")
    assert missing.returncode == 1
    assert missing.stderr.splitlines() == [
        "cnictl: network 'nonet' has no leases here",
        "  hint: networks here: other",
    ]


def test_with_several_networks_one_has_to_be_named(host: Host) -> None:
    ours, theirs = host.pods(2)
    host.add(ours)
    assert host.reference("host-local", "ADD", theirs, OTHER_STORE).status == 0
    unsaid = cnictl(host, "ipam", "list")
    assert unsaid.returncode == 1
    assert "name one with --name" in unsaid.stderr and "mynet, other" in unsaid.stderr
    assert {item["network"] for item in as_json(host, "gc", "--all", "--dry-run")["items"]} == {"mynet", "other"}
    for words in (("gc", "--all", "--name", "mynet"), ("list", "--name", "../x"), ("show", "10.244.0.300")):
        assert cnictl(host, "ipam", *words).returncode == 2


def test_former_option_for_the_networks_name_works_with_one_line_of_warning(host: Host) -> None:
    (pod,) = host.pods(1)
    host.add(pod)
    for words in (("list",), ("check", "--no-wire"), ("gc", "--dry-run"), ("show", "10.244.0.2")):
        done = cnictl(host, "ipam", *words, "--network", "mynet", "-o", "json")
        plain = cnictl(host, "ipam", *words, "--name", "mynet", "-o", "json")
        assert (done.returncode, done.stdout) == (plain.returncode, plain.stdout)
        warning = "cnictl: --network is now --name, and the next release removes --network: use --name mynet\n"
        assert done.stderr == warning + plain.stderr
    refused = cnictl(host, "ipam", "list", "--network", "10.244.0.0/20")
    assert (refused.returncode, refused.stderr.splitlines()[0]) == (
        2, "cnictl: 10.244.0.0/20 is a CIDR; --name takes a CNI network's name, such as mynet",
    )  # fmt: skip


def test_host_local_and_our_store_agree(host: Host) -> None:
    """Each side sees, skips and releases the leases that the other wrote."""
    ours, theirs, next_ours, next_theirs = host.pods(4)
    assert host.add(ours)["ips"][0]["address"] == "10.244.0.2/24"
    assert host.reference("host-local", "ADD", theirs, SAME_STORE).document["ips"][0]["address"] == "10.244.0.3/24"
    assert host.add(next_ours)["ips"][0]["address"] == "10.244.0.4/24"
    second = host.reference("host-local", "ADD", next_theirs, SAME_STORE).document
    assert second["ips"][0]["address"] == "10.244.0.5/24"
    assert [row["address"] for row in as_json(host, "list")["items"]] == [f"10.244.0.{last}" for last in (2, 3, 4, 5)]
    assert host.reference("host-local", "DEL", ours, SAME_STORE).status == 0
    host.delete(theirs)
    assert host.leases().keys() == {"10.244.0.4", "10.244.0.5"}
    listed = {row["container"]: row for row in as_json(host, "list")["items"]}
    assert (listed[ours.container]["state"], listed[ours.container]["leased"]) == ("live", False)
    assert listed[ours.container]["reason"].endswith("it has no lease")
    for pod in (ours, next_ours, next_theirs):
        host.delete(pod)
    assert (host.leases(), host.records(), host.ports()) == ({}, set(), set())
    assert host.reference("host-local", "ADD", theirs, SAME_STORE).document["ips"][0]["address"] == "10.244.0.6/24"


def test_the_node_file_names_the_network_and_its_size(node: Node) -> None:
    spec = 'subnet = "10.244.0.0/26"\nnetwork = "10.244.0.0/20"\nname = "named"\n'
    node.run(["sh", "-c", "mkdir -p /etc/cnictl && cat >/etc/cnictl/node.toml"], stdin=spec)
    listed = json.loads(node.run(["cnictl", "ipam", "list", "-o", "json"]).stdout)
    assert (listed["network"], listed["used"], listed["total"], listed["free"]) == ("named", 0, 61, 61)
    assert node.run(["cnictl", "ipam", "list"]).stdout == f"named 10.244.0.0/26  {'░' * 20} 0 used, 61 free of 61\n"


@pytest.mark.parametrize("words", [("gc",), ("release", "10.244.0.2"), ("list",)])
def test_without_root_one_line_says_who_needs_it(tmp_path: Path, words: tuple[str, ...]) -> None:
    """The command refuses before it reads anything, or at the first folder that it may not open."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    drop = ["setpriv", "--reuid", "65534", "--clear-groups"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*drop, sys.executable, "-m", "cnictl", "ipam", *words, "--data-dir", str(closed)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"cnictl: cnictl ipam {words[0]} needs root") and done.stderr.count("\n") == 1


def test_check_classifies_every_address_and_probes_the_link(lab: Lab) -> None:
    """The addresses' states: live, namespace gone, lease torn, used without a lease, and used by two pods."""
    node = lab.nodes[0]
    commands.init(node)
    pods = {name: commands.start_pod(node, name) for name in ("sound", "gone", "unheld", "twice")}
    assert commands.cnictl(node, "ipam", "check").status == 0
    store = "/var/lib/cni/networks/mynet"
    break_them = (
        f"ip netns delete gone; while ip link | grep -q 'link-netns gone'; do :; done; : > {store}/10.244.0.99; "
        f"rm {store}/{pods['unheld'].address}; ip netns add thief; "
        "ip link add vthief type veth peer name eth0 netns thief; ip link set vthief master cni0 up; "
        f"ip -n thief link set eth0 up; ip -n thief address add {pods['twice'].address}/24 dev eth0"
    )
    node.run(["sh", "-c", break_them])
    listed = "import json, sys; print([r['state'] for r in json.load(sys.stdin)['items'] if r['container'] == 'gone'])"
    wait_for(
        lambda: "stale" in node.run(["sh", "-c", f'cnictl ipam list -o json | python3 -c "{listed}"']).stdout,
        "the pod's lease is stale",
    )
    done = commands.cnictl(node, "ipam", "check", "-o", "json", check=False)
    findings = {row["address"]: row["found"] for row in json.loads(done.stdout)["items"]}
    assert done.status == 1
    assert findings == {
        pods["sound"].address: "live",
        pods["gone"].address: "namespace gone",
        pods["unheld"].address: "held without a lease",
        pods["twice"].address: "seen twice on the wire",
        "10.244.0.99": "torn",
    }
