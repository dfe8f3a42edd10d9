"""`kill -9` at every step of ADD and DEL: one `ipam gc` later nothing is left, and nobody's packet was lost."""

import random
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from cnictl.core.digest import host_veth_name

from .plugin_client import Host, Pod, finish, wait_for

LIVE = 20
_CHECKOUT = Path(__file__).resolve().parents[2]

# (system call, which one of the process): what is there when it is about to happen
ADD_POINTS = {
    ("linkat", 1): "nothing",
    ("linkat", 2): "record",
    ("pwrite64", 1): "record, lease",
    ("pwrite64", 2): "record, lease",
    ("pwrite64", 3): "record, lease",
    ("sendto", 4): "record, lease",
    ("setns", 1): "record, lease, link",
    ("sendto", 5): "record, lease, link",
    ("sendto", 6): "record, lease, link",
    ("sendto", 7): "record, lease, link, address",
    ("pwrite64", 4): "record, lease, link, address",
    # whole, though nobody was told: only a DEL may take it away
    ("write", 3): "record, lease, link, address",
}
DEL_POINTS = {
    ("sendto", 1): "record, lease, link, address",
    ("unlink", 1): "record, lease",
    ("pwrite64", 1): "record",
    ("pwrite64", 2): "record",
    ("unlink", 2): "record",
}
# how often the map of free addresses is written depends on what others did meanwhile
ADD_POINTS_AMONG_OTHERS = [point for point in ADD_POINTS if point[0] != "pwrite64"]
DEL_POINTS_AMONG_OTHERS = [point for point in DEL_POINTS if point[0] != "pwrite64"]
EACH = 15
AT_RANDOM = 45
"""With the points above, EACH times over, and these ADDs and DELs cut off at any moment: 210 kills."""


def cut_off(host: Host, verb: str, pod: Pod, point: tuple[str, int]) -> None:
    """A call that is killed when it is about to make that system call."""
    name, number = point
    kill = ["-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={number}"]
    answer = finish(host.start(verb, pod, ["strace", "-qq", "-o", "/dev/null", *kill]))
    assert answer.status == -signal.SIGKILL, (verb, point, answer)


def cut_off_after(host: Host, verb: str, pod: Pod, seconds: float) -> None:
    """A call that is killed some time after it was started, wherever it is by then."""
    started = host.start(verb, pod)
    try:
        started.wait(seconds)
    except subprocess.TimeoutExpired:
        started.kill()
    started.communicate()


def state(host: Host, pod: Pod, links: set[str], records: set[str], owners: set[str]) -> str:
    """What there is of an attachment."""
    there = {
        "record": f"{pod.container}@{pod.ifname}" in records,
        "lease": f"{pod.container}\r\n{pod.ifname}" in owners,
        "link": host_veth_name("mynet", pod.container, pod.ifname) in links,
    }
    if there["link"]:
        inside = host.pod_link(pod)
        there["address"] = inside is not None and any(one["family"] == "inet" for one in inside["addr_info"])
    return ", ".join(part for part, is_there in there.items() if is_there) or "nothing"


def states(host: Host, pods: list[Pod]) -> dict[str, str]:
    """`state` of many at once, by container."""
    links, records, owners = set(host.links()), host.records(), set(host.leases().values())
    return {pod.container: state(host, pod, links, records, owners) for pod in pods}


@contextmanager
def pinging(host: Host, pods: list[Pod], addresses: list[str]) -> Iterator[None]:
    """Each pod pings the next, five times a second, and at the end every request but the last was answered."""
    running = [
        subprocess.Popen(
            [*host.enter, "nsenter", f"--net={pod.netns}", "ping", "-n", "-i", "0.2", addresses[place - 1]],
            stdout=subprocess.PIPE,
            text=True,
        )
        for place, pod in enumerate(pods)
    ]
    try:
        yield
    finally:
        for one in running:
            one.send_signal(signal.SIGINT)
        heard = [one.communicate(timeout=10)[0] for one in running]
    for said in heard:
        answered = [int(number) for number in re.findall(r"bytes from .* icmp_seq=(\d+) ", said)]
        assert len(answered) > 10
        assert answered == list(range(1, len(answered) + 1)), said
        sent = re.search(r"(\d+) packets transmitted", said)
        assert sent is not None and int(sent[1]) - len(answered) <= 1, said


def ipam_gc(host: Host) -> str:
    """`cnictl ipam gc` of this checkout, as root of the host."""
    program = f"import sys; sys.path.insert(0, {str(_CHECKOUT)!r}); from cnictl.cli.main import main; main()"
    return host.run(sys.executable, "-c", program, "ipam", "gc", "--network", "mynet")


def test_kills_at_every_step_leave_nothing_that_gc_does_not_find(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.conf["subnet"] = "10.244.0.0/23"
    live = host.pods(LIVE, "live")
    addresses = [host.plugin("ADD", pod).address for pod in live]
    adding = host.pods(EACH * len(ADD_POINTS_AMONG_OTHERS), "add")
    deleting = host.pods(EACH * len(DEL_POINTS_AMONG_OTHERS), "del")
    chance = host.pods(AT_RANDOM, "any")
    dice = random.Random(5)
    moments = [dice.uniform(0.004, 0.06) for _ in chance]
    with pinging(host, live, addresses), ThreadPoolExecutor(4) as workers:
        adds = [(pod, point) for pod, point in zip(adding, ADD_POINTS_AMONG_OTHERS * EACH, strict=True)]
        dels = [(pod, point) for pod, point in zip(deleting, DEL_POINTS_AMONG_OTHERS * EACH, strict=True)]
        list(workers.map(host.add, [*deleting, *chance[::3]]))
        list(workers.map(lambda one: cut_off(host, "ADD", *one), adds))
        list(workers.map(lambda one: cut_off(host, "DEL", *one), dels))
        list(workers.map(lambda one: cut_off_after(host, "DEL", *one), zip(chance[::3], moments[::3], strict=True)))
        for part in (1, 2):
            begun = zip(chance[part::3], moments[part::3], strict=True)
            list(workers.map(lambda one: cut_off_after(host, "ADD", *one), begun))

        found = states(host, [*adding, *deleting, *chance])
        expected = Counter(f"ADD: {ADD_POINTS[point]}" for _, point in adds)
        expected.update(f"DEL: {DEL_POINTS[point]}" for _, point in dels)
        known = Counter(f"ADD: {found[pod.container]}" for pod in adding)
        known.update(f"DEL: {found[pod.container]}" for pod in deleting)
        assert known == expected
        histogram = known + Counter(f"at random: {found[pod.container]}" for pod in chance)
        with capsys.disabled():
            print("\nleft by kill -9:", *(f"{count:4} {what}" for what, count in sorted(histogram.items())), sep="\n  ")

        # the runtime's part: it deletes again what it knows of, and containers that end take their namespaces along
        whole = [
            pod
            for pod in [*adding[len(ADD_POINTS_AMONG_OTHERS) - 1 :: len(ADD_POINTS_AMONG_OTHERS)], *deleting, *chance]
            if found[pod.container].endswith("address")
        ]
        for pod in whole[::2]:
            host.delete(pod)
        for pod in whole[1::2]:
            host.kill(pod)
        wait_for(lambda: not {veth(pod) for pod in whole} & set(host.links()), "the ended containers' links to go")

        ipam_gc(host)
        assert host.records() == {f"{pod.container}@eth0" for pod in live}
        leases = host.leases()
        assert sorted(leases) == sorted(addresses)
        assert [leases[address] for address in addresses] == [f"{pod.container}\r\neth0" for pod in live]
        assert host.ports() == {veth(pod) for pod in live}
        assert not [name for name, link in host.links().items() if name.startswith("veth") and not link.get("master")]
        ended = {pod.container for pod in whole[1::2]}
        assert all(host.pod_link(pod) is None for pod in adding if pod.container not in ended)

        again = [pod for pod in adding if pod.container not in ended][::10]
        given = [host.plugin("ADD", pod).address for pod in again]
        assert len({*addresses, *given}) == LIVE + len(again)
        assert all(host.pings(pod, addresses[0]) for pod in again)


def veth(pod: Pod) -> str:
    return host_veth_name("mynet", pod.container, pod.ifname)


@pytest.mark.parametrize("point", [*ADD_POINTS][:-1], ids=lambda point: f"{point[0]} {point[1]}")
def test_add_cut_off_is_cleared_away_by_the_next_add_of_the_same_container(host: Host, point: tuple[str, int]) -> None:
    host.add(host.pod("first"))
    pod = host.pod()
    cut_off(host, "ADD", pod, point)
    assert host.add(pod)
    assert host.pings(pod, "10.244.0.2")
    assert len(host.leases()) == len(host.records()) == len(host.ports()) == 2


@pytest.mark.parametrize("point", ADD_POINTS, ids=lambda point: f"{point[0]} {point[1]}")
def test_add_cut_off_is_undone_by_the_runtimes_del(host: Host, point: tuple[str, int]) -> None:
    host.add(host.pod("first"))
    before = host.traces()
    pod = host.pod()
    cut_off(host, "ADD", pod, point)
    host.delete(pod)
    assert host.traces() == before
    assert host.pod_link(pod) is None


@pytest.mark.parametrize("point", DEL_POINTS, ids=lambda point: f"{point[0]} {point[1]}")
def test_del_cut_off_is_completed_by_the_next_del(host: Host, point: tuple[str, int]) -> None:
    host.add(host.pod("first"))
    before = host.traces()
    pod = host.pod()
    host.add(pod)
    cut_off(host, "DEL", pod, point)
    host.delete(pod)
    assert host.traces() == before
    assert host.pod_link(pod) is None


@pytest.mark.parametrize("call", ["sendto 4", "sendto 5", "sendto 6", "sendto 7", "setns 1", "linkat 1"])
def test_first_add_on_a_host_cut_off_is_no_hindrance_for_the_next(host: Host, call: str) -> None:
    """The bridge is made there, in one message of several: a half-made one is taken over and made whole."""
    pod, other = host.pods(2)
    name, _, number = call.partition(" ")
    cut_off(host, "ADD", pod, (name, int(number)))
    assert host.plugin("ADD", other).result
    assert host.pings(other, "10.244.0.1")
    cni0 = host.links()["cni0"]
    assert (cni0["mtu"], "UP" in cni0["flags"]) == (1500, True)
    host.delete(pod)
    assert host.ports() == {veth(other)}
