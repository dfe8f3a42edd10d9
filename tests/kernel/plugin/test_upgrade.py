"""Versions of the plugin and of Python change while pods run: no pod loses a packet, and each can be deleted."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import cnictl
from cnictl.core.digest import host_veth_name
from cnictl.lab.lab import Lab, Node
from tests.kernel.plugin.client import RECORDS, Host, Pod, plugin_executable

pytestmark = pytest.mark.once

PODS = int(os.environ.get("CNICTL_PODS", "30"))
"""`make faults` runs 100."""
LAUNCHER = "/opt/cni/bin/cnictl-bridge"
SOURCE = Path(cnictl.__file__).resolve().parent.parent

CONF = '"cniVersion": "1.1.0", "name": "mynet", "type": "cnictl-bridge", "subnet": "10.244.0.0/24"'
CALL = (
    "CNI_COMMAND={verb} CNI_CONTAINERID=p$i CNI_NETNS=/run/netns/p$i CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin " + LAUNCHER
)
ADD = "for i in {pods}; do ip netns add p$i; echo '{{" + CONF + "}}' | " + CALL + " >/tmp/p$i || exit 9; done"
LATER = (
    "for i in {pods}; do printf '{{" + CONF + ', "prevResult": %s}}\' "$(cat /tmp/p$i)" | ' + CALL + " || exit 9; done"
)

# Send echo requests to every address five times a second (less often to over 50 addresses) until stdin ends, and at
# least six rounds. Print how many rounds there were, and how many requests each address left unanswered. Requests are
# spread because a burst could overflow queues on the way. The socket's buffer keeps answers while this process waits
# for a processor.
PINGER = """
import select, socket, struct, sys, time
from collections import Counter

def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF

targets = sys.argv[1:]
wire = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
wire.setblocking(False)
step = max(0.2 / len(targets), 0.004)
sent, heard, place, due, end, ending = Counter(), Counter(), 0, time.monotonic(), None, False
while end is None or (sum(sent.values()) > sum(heard.values()) and time.monotonic() < end):
    now = time.monotonic()
    if end is None and now >= due:
        due = max(due + step, now - 0.05)
        number, index = divmod(place, len(targets))
        place += 1
        body = struct.pack("!BBHHH", 8, 0, 0, 4711, number & 0xFFFF)
        body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
        wire.sendto(body, (targets[index], 0))
        sent[targets[index]] += 1
    wait = min(max(due - time.monotonic(), 0), 0.02) if end is None else 0.02
    ready = select.select([wire] + [sys.stdin] * (not ending), [], [], wait)[0]
    try:
        while wire in ready:
            data, (source, _) = wire.recvfrom(2048)
            if data[20] == 0 and data[24:26] == struct.pack("!H", 4711):
                heard[source] += 1
    except BlockingIOError:
        pass
    ending = ending or sys.stdin in ready
    if ending and end is None and place >= 6 * len(targets):
        end = time.monotonic() + 5  # for answers on their way
lost = {target: sent[target] - heard[target] for target in set(targets) if sent[target] != heard[target]}
print(min(sent.values()), lost)
"""


@pytest.fixture
def node() -> Iterator[Node]:
    """A bare node with the plugin installed by this cnictl."""
    with Lab(nodes=1) as lab:
        lab.nodes[0].run(["cnictl", "plugin", "install"])
        yield lab.nodes[0]


def call(node: Node, verb: str, first: int, last: int, around: Callable[[str], list[str]] | None = None) -> None:
    """Call the verb for pods `first` to `last` through the launcher; each call must succeed."""
    script = (ADD if verb == "ADD" else LATER).format(verb=verb, pods=" ".join(map(str, range(first, last + 1))))
    node.run(around(script) if around else ["sh", "-c", script], timeout=120)


@contextmanager
def all_answer(node: Node, addresses: list[str]) -> Iterator[None]:
    """Check that each address answers every echo request until the block ends."""
    with node.popen([sys.executable, "-c", PINGER, *addresses], stdin=subprocess.PIPE) as pinger:
        try:
            yield
        finally:
            said, complaints = pinger.communicate("")
    assert_all_answered(said, complaints)


def assert_all_answered(said: str, complaints: str) -> None:
    """Check what PINGER printed: no request was left unanswered."""
    rounds, _, silent = said.partition(" ")
    assert silent.strip() == "{}", (said, complaints)
    assert int(rounds) > 5


def run_other(node: Node, *words: str) -> None:
    """Run `cnictl plugin …` of another build of the same version, in /tmp/other."""
    program = "import sys; sys.path.insert(0, '/tmp/other'); from cnictl.cli.main import main; main()"
    node.run([sys.executable, "-c", program, "plugin", *words])


def make_other(node: Node) -> None:
    copies = "".join(
        f"cp -r {SOURCE}/{source} /tmp/other/{name}; "
        for source, name in (("cnictl", "cnictl"), ("plugin", "cnictl_plugin"), ("conf", "cnictl_conf"))
    )
    node.run(["sh", "-ec", f"mkdir /tmp/other; {copies} echo '# another' >> /tmp/other/cnictl_plugin/log.py"])


def test_no_pod_loses_a_ping_while_versions_come_and_go(node: Node) -> None:
    call(node, "ADD", 1, PODS + 15)
    outside = sorted(folder for folder in (str(SOURCE), sys.prefix) if not folder.startswith("/usr"))
    hide = "".join(f"mount -t tmpfs none {folder}; " for folder in outside if not folder.startswith(outside[0] + "/"))
    with all_answer(node, [f"10.244.0.{place + 1}" for place in range(1, PODS + 1)]):
        make_other(node)
        run_other(node, "install")
        call(node, "CHECK", PODS - 4, PODS)  # what the former version attached
        call(node, "DEL", PODS + 1, PODS + 5)
        call(node, "ADD", PODS + 16, PODS + 20)
        node.run(["cnictl", "plugin", "use", cnictl.__version__])
        call(node, "CHECK", PODS + 16, PODS + 20)  # what the newer version attached
        call(node, "DEL", PODS + 6, PODS + 10)
        # the environment that installed it is hidden: only the files under /usr/local/lib/cnictl are left
        gone = ["unshare", "-m", "sh", "-ec"]
        call(node, "DEL", PODS + 11, PODS + 15, lambda script: [*gone, hide + script])
        call(node, "CHECK", 1, 5, lambda script: [*gone, hide + script])
        node.run(["cnictl", "ipam", "gc", "--name", "mynet"])
    call(node, "DEL", 1, PODS)
    call(node, "DEL", PODS + 16, PODS + 20)
    left = f"ls {RECORDS}/mynet; ls /var/lib/cni/networks/mynet; ip -br link show type veth master cni0"
    assert node.run(["sh", "-c", left]).stdout.split() == ["last_reserved_ip.0", "lock"]


def other_pythons() -> dict[str, str]:
    """Return the path of each Python here that can run the plugin and has another minor version, by cache tag."""
    running = sys.implementation.cache_tag
    paths = {}
    places = [Path("/usr/bin"), Path("/usr/local/bin")]
    try:
        places += (Path.home() / ".pyenv/versions").glob("*/bin")
    except PermissionError:
        return {}
    for path in sorted(file for place in places for file in place.glob("python3.1[1-9]")):
        told = subprocess.run(
            [path, "-ISc", "import sys; print(sys.implementation.cache_tag)"],
            capture_output=True,
            text=True,
            check=False,
        )
        if told.returncode == 0 and told.stdout.strip() != running:
            paths[told.stdout.strip()] = str(path)
    return paths


def test_pods_added_under_one_python_are_handled_by_the_next(host: Host) -> None:
    """After an upgrade of the distribution, the recorded interpreter is gone and the new one has no bytecode."""
    others = other_pythons()
    if not others:
        pytest.skip("no other Python here")
    text = Path(plugin_executable()).read_text()
    folder = os.path.dirname(plugin_executable())
    for tag, path in others.items():
        assert not os.path.exists(f"{folder}/bundles/{tag}")
        pods = host.pods(3, tag)
        results = [host.add(pod) for pod in pods]
        loop = next(line for line in text.splitlines() if line.startswith("for python in "))
        launcher = host.path(f"/run/launcher-{tag}")
        launcher.write_text(text.replace(loop, f"for python in /usr/bin/python3.0 {path}; do"))
        launcher.chmod(0o755)

        def call(verb: str, pod: Pod, prev: dict[str, object] | None = None, program: str = str(launcher)) -> None:
            inside = f"/run/{os.path.basename(program)}"
            answer = host.call(host.environment(verb, pod), host.stdin(None, prev), inside)
            assert answer.status == 0, answer

        call("CHECK", pods[0], results[0])
        call("DEL", pods[0], results[0])
        call("ADD", pods[0])
        host.delete(pods[0])
        call("DEL", pods[1])
        host.conf["cniVersion"] = "1.1.0"
        assert host.collect([]).status == 0
        assert (host.leases(), host.records(), host.ports()) == ({}, set(), set())


@pytest.mark.parametrize("spoil", [lambda _: b"", lambda whole: whole[: len(whole) // 2], lambda _: b"\0" * 64])
def test_a_torn_bundle_costs_time_and_no_call(host: Host, spoil: Callable[[bytes], bytes]) -> None:
    installed = os.path.dirname(plugin_executable())
    copied = host.path("/run/torn")
    shutil.copytree(installed, copied, symlinks=True)
    launcher = copied / "cnictl-bridge"
    launcher.write_text(launcher.read_text().replace(installed, "/run/torn"))
    for bundle in copied.glob("bundles/*/*"):
        bundle.write_bytes(spoil(bundle.read_bytes()))
    pod = host.pod()
    for verb in ("ADD", "DEL"):
        answer = host.call(host.environment(verb, pod), host.stdin(), "/run/torn/cnictl-bridge")
        assert answer.result.get("ips") or verb == "DEL"
    assert (host.leases(), host.records(), host.ports()) == ({}, set(), set())


# records as releases wrote them; only what differs between hosts is replaced
RECORD_0_1_0 = (
    '{"complete": 1, "version": 1, "network": "mynet", "container": "CONTAINER", "ifname": "eth0", '
    '"addresses": ["ADDRESS"], "bridge": "cni0", "host_veth": "VETH", "mac": "MAC", "netns": "NETNS", '
    '"netns_dev": 4, "netns_ino": 1234567, "pod_namespace": "shop", "pod_name": "web-0", '
    '"pod_uid": "0b1f6a2e-9d3c-4a55-8f0e-2f6f5b6d8a11", "boot_id": "BOOT", "created": 1795571289.3136592, '
    '"data_dir": "/var/lib/cni/networks"}\n'
)
CLAIMED_0_1_0 = (
    '{"complete": 1, "version": 1, "network": "mynet", "container": "CONTAINER", "ifname": "eth0", '
    '"addresses": ["ADDRESS"], "bridge": "", "host_veth": "", "mac": "", "netns": "", "netns_dev": 0, "netns_ino": 0, '
    '"pod_namespace": "", "pod_name": "", "pod_uid": "", "boot_id": "", "created": CREATED, '
    '"data_dir": "/var/lib/cni/networks"}\n'
)


def written_by_0_1_0(host: Host, pod: Pod, text: str = RECORD_0_1_0) -> None:
    """Replace the pod's record with the one that release 0.1.0 would have written."""
    path = host.path(f"{RECORDS}/mynet/{pod.container}@{pod.ifname}")
    now = json.loads(path.read_bytes())
    for mark, value in (
        ("CONTAINER", pod.container),
        ("ADDRESS", now["addresses"][0]),
        ("VETH", host_veth_name("mynet", pod.container, pod.ifname)),
        ("MAC", now["mac"]),
        ("NETNS", pod.netns),
        ("BOOT", now["boot_id"]),
        ("CREATED", str(now["created"])),
    ):
        text = text.replace(mark, value)
    path.write_text(text)


def test_records_of_0_1_0_are_read_by_every_verb(host: Host) -> None:
    host.conf["cniVersion"] = "1.1.0"
    pods = host.pods(4)
    results = [host.add(pod) for pod in pods]
    for pod in pods:
        written_by_0_1_0(host, pod)
    assert host.plugin("CHECK", pods[0], prev=results[0]).result == {}
    assert host.plugin("ADD", pods[0]).code == 102
    host.delete(pods[0])
    host.kill(pods[1])
    assert host.add(host.pod("pod1"))  # the next ADD of the same id removes the stale attachment
    assert host.collect([pods[2]]).result == {}
    assert host.records() == {"pod2@eth0"}
    assert host.plugin("CHECK", pods[2], prev=results[2]).result == {}
    host.delete(pods[2])
    assert (host.leases(), host.records(), host.ports()) == ({}, set(), set())


def test_leases_that_0_1_0_took_over_from_host_local_are_freed_by_their_del(host: Host) -> None:
    host.add(host.pod("ours"))
    theirs = Pod("theirs", "")
    host.path("/var/lib/cni/networks/mynet/10.244.0.9").write_bytes(b"theirs\r\neth0")
    host.path(f"{RECORDS}/mynet/.claimed").unlink()
    host.add(host.pod("next"))
    written_by_0_1_0(host, theirs, CLAIMED_0_1_0)
    host.delete(theirs)
    assert sorted(host.leases()) == ["10.244.0.2", "10.244.0.3"]
