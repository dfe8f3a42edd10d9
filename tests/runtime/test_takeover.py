"""Let host-local and the plugin share a lease store. Each must respect and be able to free the other's leases."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.waiting import wait_for

from . import containerd
from .calls import REFERENCE_CONFLIST, Refused, cnictl_bridge, host_local
from .containerd import Containerd
from .node import DEBIAN, Node, Wheel, node

REFERENCE_CONF = "/etc/cni/net.d/10-bridge.conflist"


@pytest.fixture(scope="module")
def shared_node(wheel: Wheel) -> Iterator[Node]:
    """A node whose lease store host-local also uses, and on which tests call both plugins directly."""
    with node(DEBIAN, wheel) as fresh:
        fresh.init()
        yield fresh


@pytest.fixture
def store(shared_node: Node) -> Iterator[Node]:
    """The node. After each test, check that nothing is left."""
    yield shared_node
    try:
        shared_node.expect_nothing_left()
    finally:
        for name in {*shared_node.leases().values(), *(r.partition("@")[0] for r in shared_node.records())}:
            cnictl_bridge(shared_node).delete(name)


@pytest.fixture
def bridged(wheel: Wheel) -> Iterator[tuple[Node, Containerd]]:
    """A node on which the reference bridge plugin still attaches the pods."""
    with node(DEBIAN, wheel) as fresh:
        fresh.machine.write(REFERENCE_CONF, json.dumps(REFERENCE_CONFLIST))
        with containerd.running(fresh.machine) as daemon:
            yield fresh, daemon


def netns(node: Node, container: str) -> str:
    """Make a namespace for a container if it has none, and return its path."""
    if not node.machine.path(f"/run/netns/{container}").exists():
        node.machine.run("ip", "netns", "add", container)
    return f"/run/netns/{container}"


def test_host_local_frees_leases_of_the_plugin(store: Node) -> None:
    ours, theirs = cnictl_bridge(store), host_local(store)
    address = ours.add("alpha", netns(store, "alpha"))
    assert store.leases() == {address: "alpha"}
    theirs.delete("alpha")
    assert store.leases() == {}
    ours.delete("alpha", netns(store, "alpha"))


def test_plugin_frees_leases_of_host_local(store: Node) -> None:
    ours, theirs = cnictl_bridge(store), host_local(store)
    address = theirs.add("beta", netns(store, "beta"))
    assert store.leases() == {address: "beta"}
    ours.delete("beta", netns(store, "beta"))
    assert store.leases() == {}


def test_plugin_frees_leases_of_host_local_without_a_namespace(store: Node) -> None:
    ours, theirs = cnictl_bridge(store), host_local(store)
    kept = ours.add("kept", netns(store, "kept"))
    theirs.add("gone", netns(store, "gone"))
    ours.delete("gone")
    assert store.leases() == {kept: "kept"}
    ours.delete("kept")


def test_late_del_by_host_local_spares_the_next_owner_of_the_address(store: Node) -> None:
    ours, theirs = cnictl_bridge(store), host_local(store)
    asked = "IgnoreUnknown=1;IP=10.244.0.99"
    assert ours.add("former", netns(store, "former"), asked) == "10.244.0.99"
    theirs.delete("former")
    assert ours.add("next", netns(store, "next"), asked) == "10.244.0.99"
    ours.delete("former", netns(store, "former"))
    theirs.delete("former")
    assert store.leases() == {"10.244.0.99": "next"}
    ours.delete("next")


def test_plugin_refuses_a_container_that_another_plugin_attached_with_host_local(store: Node) -> None:
    ours, theirs = cnictl_bridge(store), host_local(store)
    inside = netns(store, "gamma")
    address = theirs.add("gamma", inside)
    store.machine.run("ip", "-n", "gamma", "link", "add", "eth0", "type", "veth", "peer", "name", "other")
    with pytest.raises(Refused, match="gamma"):
        ours.add("gamma", inside)
    assert store.leases() == {address: "gamma"}
    assert store.veths() == []
    theirs.delete("gamma")
    ours.delete("gamma")


def test_plugin_replaces_the_lease_of_an_add_that_stopped_after_host_local(store: Node) -> None:
    ours, theirs = cnictl_bridge(store), host_local(store)
    cut_off = theirs.add("zeta", netns(store, "zeta"))
    address = ours.add("zeta", netns(store, "zeta"))
    assert address != cut_off
    assert store.leases() == {address: "zeta"}
    ours.delete("zeta", netns(store, "zeta"))


def test_host_local_refuses_a_container_that_has_a_lease_of_the_plugin(store: Node) -> None:
    ours, theirs = cnictl_bridge(store), host_local(store)
    address = ours.add("delta", netns(store, "delta"))
    with pytest.raises(Refused, match="delta"):
        theirs.add("delta", netns(store, "delta"))
    assert store.leases() == {address: "delta"}
    ours.delete("delta", netns(store, "delta"))


def test_plugin_refuses_a_requested_address_that_host_local_leased(store: Node) -> None:
    ours, theirs = cnictl_bridge(store), host_local(store)
    address = theirs.add("holder", netns(store, "holder"))
    with pytest.raises(Refused, match=address):
        ours.add("asker", netns(store, "asker"), f"IgnoreUnknown=1;IP={address}")
    assert store.leases() == {address: "holder"}
    assert store.veths() == []
    ours.delete("asker")
    ours.delete("holder")


def test_each_continues_after_the_others_last_lease(store: Node) -> None:
    """Both plugins must share one round-robin order, so that the next pod does not get a just freed address."""
    ours, theirs = cnictl_bridge(store), host_local(store)
    given = [
        int(plugin.add(name, netns(store, name)).rpartition(".")[2])
        for plugin, name in ((ours, "one"), (theirs, "two"), (ours, "three"), (theirs, "four"))
    ]
    assert given == list(range(given[0], given[0] + 4))
    for name in ("one", "two"):
        ours.delete(name, netns(store, name))
    for name in ("three", "four"):
        theirs.delete(name)
    assert ours.add("five", netns(store, "five")).endswith(f".{given[-1] + 1}")
    for name in ("three", "five"):
        ours.delete(name, netns(store, name))


def test_simultaneous_calls_of_both_never_give_an_address_twice(store: Node) -> None:
    plugins = {f"at-once-{number}": (cnictl_bridge, host_local)[number % 2](store) for number in range(24)}
    for name in plugins:
        netns(store, name)
    with ThreadPoolExecutor(12) as pool:
        addresses = list(pool.map(lambda name: plugins[name].add(name, netns(store, name)), plugins))
        assert store.leases() == dict(zip(addresses, plugins, strict=True))
        list(pool.map(lambda name: cnictl_bridge(store).delete(name, netns(store, name)), plugins))


def test_pods_of_the_reference_bridge_keep_working_and_end_under_the_plugin(bridged: tuple[Node, Containerd]) -> None:
    node, daemon = bridged
    cri = daemon.cri
    wait_for(cri.network_ready, "NetworkReady")
    old = [cri.run_sandbox("old-1"), cri.run_sandbox("old-2")]
    node.machine.path(REFERENCE_CONF).unlink()
    node.init()
    wait_for(cri.network_ready, "NetworkReady after init-node")

    new = cri.run_sandbox("new")
    assert node.leases() == {sandbox.address: sandbox.id for sandbox in (*old, new)}
    cri.expect_ping(cri.run_sleeper(new), *(sandbox.address for sandbox in old))
    cri.end(*(sandbox.id for sandbox in (*old, new)))
    node.expect_nothing_left()


def test_pods_of_the_plugin_end_under_the_reference_bridge(bridged: tuple[Node, Containerd]) -> None:
    """After a change back to the reference, only stale records may stay, which `ipam gc` must remove."""
    node, daemon = bridged
    cri = daemon.cri
    node.machine.path(REFERENCE_CONF).unlink()
    node.init()
    wait_for(cri.network_ready, "NetworkReady after init-node")
    sandbox = cri.run_sandbox("ours")
    conflist = node.machine.path("/etc/cni/net.d/10-cnictl.conflist")
    conflist.write_text(json.dumps(REFERENCE_CONFLIST))

    def ended_by_the_reference() -> bool:
        """Return whether a new pod has no record. Pods have records until containerd has reread the conf."""
        probe = cri.run_sandbox("probe")
        has_record = f"{probe.id}@eth0" in node.records()
        cri.end(probe.id)
        return not has_record

    wait_for(ended_by_the_reference, "the first pod of the reference")
    cri.end(sandbox.id)
    assert node.leases() == {}
    assert node.veths() == []
    node.cnictl("ipam", "gc")
    node.expect_nothing_left()
