"""Many calls at once: no two pods get the same address, and a full subnet refuses the rest cleanly."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.storm import Storm, addresses, clear, crew, judge, storm
from tests.kernel.plugin.client import Answer, Host, Pod, finish
from tests.soak import SOAK
from tests.waiting import wait_for

pytestmark = pytest.mark.once


def at_once(host: Host, verb: str, pods: list[Pod]) -> list[Answer]:
    """Start a call for each pod, all at the same time, and return their answers."""
    return [finish(started, bound=120) for started in [host.start(verb, pod) for pod in pods]]


def addresses_inside(host: Host, pods: list[Pod]) -> dict[str, str]:
    """Return each pod's actual IPv4 address, by container; pods without an interface are left out."""
    script = "".join(
        f"nsenter --net={pod.netns} ip -j -4 address show dev eth0 2>/dev/null && echo {pod.container}\n"
        for pod in pods
    )
    lines = host.run("sh", "-c", script + "true").split()
    by_container = {}
    for told, container in zip(lines[::2], lines[1::2], strict=True):
        by_container[container] = str(json.loads(told)[0]["addr_info"][0]["local"])
    return by_container


def test_simultaneous_pods_never_share_an_address_and_none_is_lost(host: Host) -> None:
    """The host has no bridge yet, so all calls race to create it. `make storm` runs this with 500 pods."""
    pods, told = host.pods(120 if SOAK else 60), Storm()
    conf = {
        "cniVersion": "1.1.0",
        "name": "mynet",
        "type": "cnictl-bridge",
        "isDefaultGateway": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": "10.244.0.0/25"}], [{"subnet": "fd00:10:244::/121", "rangeEnd": "fd00:10:244::7e"}]],
        },
    }
    with crew(host, conf, told, 8) as workers:
        for turn in range(2):
            storm(workers, told, pods, turn)
        assert judge(host, told, "mynet") == []
        assert {"ADD", "CHECK", "DEL"} == set(told.calls)
        attached = [pod for pod in pods if pod.container in told.results]
        assert len(host.records()) == len(host.ports()) == len(attached)
        made = {result["interfaces"][0]["mac"] for result in told.results.values()}
        assert made == {host.links()["cni0"]["address"]}
        promised = {container: addresses(result)[0] for container, result in told.results.items()}
        assert addresses_inside(host, attached) == promised
        assert host.pings(attached[0], promised[attached[-1].container])
        clear(workers, told, pods)
    assert judge(host, told, "mynet") == []
    assert (host.leases(), host.records(), host.ports()) == ({}, set(), set())


def test_simultaneous_adds_fill_a_subnet_and_the_rest_leave_nothing(host: Host) -> None:
    host.conf["subnet"] = "10.244.0.0/26"
    pods = host.pods(90)
    answers = at_once(host, "ADD", pods)
    served = {pod.container: answer.address for pod, answer in zip(pods, answers, strict=True) if answer.status == 0}
    assert len(served) == len(set(served.values())) == 61
    assert [answer.code for answer in answers if answer.status] == [100] * 29
    assert addresses_inside(host, pods) == served
    assert host.leases() == {address: f"{container}\r\neth0" for container, address in served.items()}
    assert host.records() == {f"{container}@eth0" for container in served}
    assert len([name for name in host.links() if name.startswith("veth")]) == len(host.ports()) == 61

    refused = [pod for pod in pods if pod.container not in served]
    before = host.traces()
    assert all(answer.result == {} for answer in at_once(host, "DEL", refused))  # as a runtime does after a failed ADD
    assert host.traces() == before


def test_simultaneous_calls_of_host_local_and_ours_never_share_an_address(host: Host) -> None:
    """Both use the store's one lock and its one layout."""
    ours, theirs = host.pods(30, "ours"), host.pods(30, "theirs")
    conf = {
        "cniVersion": "0.4.0",
        "name": "mynet",
        "type": "bridge",
        "ipam": {"type": "host-local", "subnet": "10.244.0.0/24"},
    }
    with ThreadPoolExecutor(8) as runtime:
        reference = runtime.map(lambda pod: host.reference("host-local", "ADD", pod, conf).address, theirs)
        own = [answer.address for answer in at_once(host, "ADD", ours)]
        given = [*own, *reference]
    assert [address for address, times in Counter(given).items() if times > 1] == []
    assert sorted(host.leases()) == sorted(given)


def test_failed_first_add_does_not_remove_the_bridge_of_another(host: Host) -> None:
    """The call that created the bridge fails while the other is between finding the bridge and joining it."""
    failing, other = host.pods(2)
    host.inside(failing, "ip", "link", "add", "eth0", "type", "bridge")
    slow = ["strace", "-qq", "-o", "/dev/null", "-e", "trace=linkat", "-e"]
    first = host.start("ADD", failing, [*slow, "inject=linkat:delay_enter=400000:when=1"])
    wait_for(lambda: "cni0" in host.links(), "the bridge")
    second = host.start("ADD", other, [*slow, "inject=linkat:delay_enter=400000:when=1..2"])
    assert finish(first).code == 102
    assert finish(second).address
    assert host.pings(other, "10.244.0.1")
    assert host.records() == {f"{other.container}@eth0"}


def test_del_that_meets_its_own_add_waits_and_undoes_it(host: Host) -> None:
    """A runtime that gave up on an ADD may call DEL while the ADD still runs."""
    host.add(host.pod("first"))
    before = host.traces()
    pod = host.pod()
    slow = ["strace", "-qq", "-o", "/dev/null", "-e", "trace=setns", "-e", "inject=setns:delay_enter=500000"]
    adding = host.start("ADD", pod, slow)
    wait_for(lambda: len(host.ports()) == 2, "the link of the ADD")
    host.delete(pod)
    assert finish(adding).address == "10.244.0.3"
    assert host.traces() == before
    assert host.pod_link(pod) is None
