"""`ipMasq` with several subnets or subnets from the runtime, with missing tools, and after another plugin."""

import hashlib

import pytest

from tests.kernel.plugin.client import Host
from tests.kernel.underlay import NODE, NODE6, OUTSIDE, OUTSIDE6, backends, masquerading, seen, sources
from tests.kernel.underlay import underlay as underlay

pytestmark = [pytest.mark.usefixtures("underlay"), pytest.mark.once]


@backends
def test_every_range_set_is_masqueraded_but_not_towards_another_set(host: Host, backend: str) -> None:
    masquerading(host, backend)
    del host.conf["subnet"], host.conf["network"]
    ranges = [[{"subnet": subnet}] for subnet in ("10.244.0.0/24", "10.250.0.0/24", "fd00:244::/64", "fd00:250::/64")]
    host.conf |= {"isDefaultGateway": True, "ipam": {"type": "host-local", "ranges": ranges}}
    pod, other = host.pods(2)
    host.add(pod)
    host.add(other)
    host.inside(pod, *["ip", "route", "add", "192.0.2.10", "via", "10.250.0.1", "src", "10.250.0.2"])
    assert sources(host, pod, OUTSIDE, OUTSIDE6) == (NODE, NODE6)
    host.inside(pod, *["ip", "route", "change", "192.0.2.10", "via", "10.244.0.1", "src", "10.244.0.2"])
    assert seen(host, pod, OUTSIDE, 98) == NODE
    host.inside(pod, *["ip", "route", "add", "10.250.0.3", "via", "10.244.0.1", "src", "10.244.0.2"])
    assert seen(host, pod, "10.250.0.3", receiver=other) == "10.244.0.2"


@backends
def test_ranges_of_the_runtime_are_masqueraded_while_they_have_a_pod(host: Host, backend: str) -> None:
    masquerading(host, backend)
    pods = host.pods(3)
    confs = [
        {
            **host.conf,
            "subnet": None,
            "network": None,
            "isDefaultGateway": True,
            "ipam": {"type": "host-local"},
            "runtimeConfig": {"ipRanges": [[{"subnet": subnet}]]},
        }
        for subnet in ("10.244.0.0/24", "fd00:244::/64", "10.244.0.0/24")
    ]
    for pod, conf in zip(pods, confs, strict=True):
        host.add(pod, conf)
    assert seen(host, pods[0], OUTSIDE) == seen(host, pods[2], OUTSIDE) == NODE
    assert seen(host, pods[1], OUTSIDE6) == NODE6
    host.delete(pods[0], confs[0])
    assert seen(host, pods[2], OUTSIDE) == NODE
    flush = {"nftables": "nft delete table inet cnictl", "iptables": "ip6tables -t nat -F"}
    host.run(*flush[backend].split())
    for pod, conf in ((pods[1], confs[1]), (pods[2], confs[2])):
        host.delete(pod, conf)
    assert "masquerade" not in host.traces()["rules"] and "CNICTL" not in host.traces()["rules"]


@backends
def test_subnets_of_another_ipam_plugin_are_masqueraded_while_they_have_a_pod(host: Host, backend: str) -> None:
    masquerading(host, backend)
    pods = host.pods(2)
    confs = [
        {
            **host.conf,
            "subnet": None,
            "network": None,
            "cniVersion": "0.4.0",
            "isDefaultGateway": True,
            "ipam": {
                "type": "static",
                "addresses": [{"address": f"10.244.0.{last}/24"}, {"address": f"fd00:244::{last}/64"}],
            },
        }
        for last in (5, 6)
    ]
    result = host.add(pods[0], confs[0])
    host.add(pods[1], confs[1])
    host.delete(pods[1], confs[1])
    assert sources(host, pods[0], OUTSIDE, OUTSIDE6) == (NODE, NODE6)
    assert host.plugin("CHECK", pods[0], confs[0], result).result == {}
    host.run(*("nft delete table inet cnictl" if backend == "nftables" else "ip6tables -t nat -F").split())
    assert "fd00:244::/64" in host.plugin("CHECK", pods[0], confs[0], result).error["msg"]
    host.add(pods[1], confs[1])
    assert host.plugin("CHECK", pods[0], confs[0], result).result == {}
    for pod, conf in zip(pods, confs, strict=True):
        host.delete(pod, conf)
    assert "masquerade" not in host.traces()["rules"] and "CNICTL" not in host.traces()["rules"]


def test_ip6tables_is_required_only_if_a_subnet_needs_it(host: Host) -> None:
    masquerading(host, "iptables")
    host.run("mkdir", "/run/tools")
    host.run("ln", "-s", *(f"/usr/sbin/{name}" for name in ("iptables", "iptables-restore")), "/run/tools")
    before = host.traces()
    dual, four = host.pods(2)
    failed = host.plugin("ADD", dual, PATH="/run/tools")
    assert failed.code == 2
    assert "ip6tables" in failed.error["msg"] and "fd00:244::/64" in failed.error["msg"]
    assert host.traces() == before
    del host.conf["ipMasqBackend"]  # nft is missing too, so ADD must use iptables
    host.conf |= {"subnet": "10.244.0.0/24", "network": "10.244.0.0/20"}
    host.add(four, PATH="/run/tools")
    assert seen(host, four, OUTSIDE) == NODE
    host.delete(four, PATH="/run/tools")


def test_nftables_rules_of_a_newer_reference_plugin_are_removed_with_its_pod(host: Host) -> None:
    """The rules are those that releases from 1.6.0 on create for two pods; our DEL is for one of them."""
    pod = host.pod("pod0")
    conf = {**host.conf, "type": "bridge", "ipMasq": True, "bridge": "cni0", "isGateway": True}
    conf["ipam"] = {"type": "host-local", "subnet": "10.244.0.0/24"}
    result = host.reference("bridge", "ADD", pod, conf).result
    network = "mynet"
    rules = "".join(
        f"add rule inet cni_plugins_masquerade masq_checks ip saddr == {address} ip daddr != 10.244.0.0/24 masquerade "
        f'comment "{sha(network)}-{sha(f"eth0:{container}")}, net: {network}, if: eth0, id: {container}"\n'
        for container, address in (("pod0", "10.244.0.2"), ("other", "10.244.0.9"))
    )
    host.run(
        "nft",
        "-f",
        "-",
        stdin="add table inet cni_plugins_masquerade\nadd chain inet cni_plugins_masquerade masq_checks\n" + rules,
    )
    host.run("iptables", "-t", "nat", "-F")  # a flush of the reference's iptables rules must not fail the DEL
    host.delete(pod, prev=result)
    left = host.traces()["rules"]
    assert sha("eth0:other") in left and sha("eth0:pod0") not in left and "CNI-" not in left


def sha(text: str) -> str:
    """Hash as MustFormatHashWithPrefix(16, "", text) in pkg/utils/utils.go does."""
    return hashlib.sha512(text.encode()).hexdigest()[:16]
