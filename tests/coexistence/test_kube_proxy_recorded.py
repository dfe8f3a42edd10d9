"""Load a real kube-proxy's rules before or after cnictl. Services must work, and refused ports must stay refused."""

import json
from collections.abc import Iterator

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.cluster import shell
from tests.kernel.commands import cnictl, drifted, start_pod
from tests.kernel.node.test_dual_stack import set_up

from . import kube_proxy_recorded as recorded
from .kube_proxy_recorded import KubeProxy

pytestmark = pytest.mark.once

_GREET = """
import socket, sys
server = socket.create_server(("0.0.0.0", 80))
print("ready", flush=True)
while True:
    connection, (address, _) = server.accept()
    connection.sendall(f"{sys.argv[1]} {address}".encode())
    connection.close()
"""
_ASK = """
import socket, sys
for target in sys.argv[1:]:
    address, _, port = target.rpartition(":")
    try:
        said = socket.create_connection((address, int(port)), 1.5).recv(99).decode()
    except ConnectionRefusedError:
        said = "refused"
    except OSError:
        said = "silence"
    print(said)
"""
HOST_PORT = 8080


class Cluster:
    """Two dual-stack nodes. A pod on each answers with its name and the source address that it sees."""

    def __init__(self, lab: Lab) -> None:
        self.lab, (self.here, self.there) = lab, lab.nodes
        set_up(lab, both=True)
        self.pod, self.near, self.far = (
            start_pod(self.here, "pod"),
            start_pod(self.here, "near"),
            start_pod(self.there, "far"),
        )
        for pod in (self.near, self.far):
            serving = pod.popen(["/usr/bin/python3", "-c", _GREET, pod.name])
            assert serving.stdout is not None and serving.stdout.readline() == "ready\n"
        # the rule that the portmap plugin makes
        port = (
            f"-p tcp --dport {HOST_PORT} -m addrtype --dst-type LOCAL -j DNAT --to-destination {self.near.address}:80"
        )
        shell(self.here, f"iptables -t nat -A PREROUTING {port}")

    def answers(self, mode: str) -> dict[str, str]:
        """Return each client's answer from a Service. For two endpoints, leave out which of them answered."""
        pod = {
            "no endpoint": f"{recorded.EMPTY}:80",
            "no endpoint, with a node port": f"{recorded.NODE_PORT_EMPTY}:80",
            "pods": f"{recorded.WEB}:80",
            "local pods": f"{recorded.LOCAL}:80",
        }
        outside = {
            "node port without endpoint": f"{self.here.address}:{recorded.EMPTY_NODE_PORT}",
            "node port with policy Local": f"{self.here.address}:{recorded.LOCAL_NODE_PORT}",
            "host port": f"{self.here.address}:{HOST_PORT}",
        }
        if mode == "nftables":
            pod |= {
                "wrong port": f"{recorded.WEB}:81", "unallocated": f"{recorded.UNALLOCATED}:80",
                "no endpoint, IPv6": f"{recorded.EMPTY6}:80", "wrong port, IPv6": f"{recorded.WRONG_PORT6}:81",
                "unallocated, IPv6": f"{recorded.UNALLOCATED6}:80",
            }  # fmt: skip
        answers = dict(zip(pod, ask(self.here, self.pod.command(), *pod.values()), strict=True))
        answers |= dict(zip(outside, ask(self.lab.outside, [], *outside.values()), strict=True))
        answers |= {"host, no endpoint": ask(self.here, [], f"{recorded.EMPTY}:80")[0]}
        for name in ("pods", "local pods"):
            answers[name] = answers[name].removeprefix("near ").removeprefix("far ")
        sticky = ask(self.here, self.pod.command(), *[f"{recorded.STICKY}:80"] * 4)
        answers["session affinity"] = "one pod" if len(set(sticky)) == 1 and "silence" not in sticky else str(sticky)
        return answers

    def expected(self, mode: str) -> dict[str, str]:
        """Return the answers that kube-proxy promises."""
        outside = self.lab.outside.address
        promised = {
            "no endpoint": "refused", "no endpoint, with a node port": "refused", "pods": self.pod.address,
            "local pods": self.pod.address, "node port without endpoint": "refused",
            "node port with policy Local": f"near {outside}", "host port": f"near {outside}",
            "host, no endpoint": "refused", "session affinity": "one pod",
        }  # fmt: skip
        if mode == "nftables":
            promised |= {
                "wrong port": "refused", "unallocated": "silence", "no endpoint, IPv6": "refused",
                "wrong port, IPv6": "refused", "unallocated, IPv6": "silence",
            }  # fmt: skip
        return promised

    def findings(self) -> list[str]:
        """Return doctor's findings about forwarding."""
        only = ("forward-drop", "forward-drop-nft", "two-iptables", "forward-off")
        options = [word for check in only for word in ("--only", check)]
        said = cnictl(self.here, "doctor", "-o", "json", *options, check=False).stdout
        return [finding["id"] for finding in json.loads(said)["items"]]


def ask(node: Node, prefix: list[str], *targets: str) -> list[str]:
    """Return what a client gets from each target (ADDRESS:PORT): its greeting, `refused`, or `silence`."""
    return node.run([*prefix, "/usr/bin/python3", "-c", _ASK, *targets], timeout=60).stdout.splitlines()


def own_jumps(node: Node, program: str = "iptables") -> list[int]:
    """Return the positions of cnictl's rules in FORWARD, counted from the end: 1 is the last rule."""
    rules = node.run([program, "-S", "FORWARD"]).stdout.splitlines()[1:]
    return [len(rules) - index for index, rule in enumerate(rules) if rule.endswith("-j CNICTL-FORWARD")]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Lab(nodes=2, dual_stack=True) as lab:
        yield Cluster(lab)


@pytest.fixture(params=["iptables", "nftables"])
def proxy(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[KubeProxy]:
    """kube-proxy in one of its modes, started after cnictl was set up."""
    running = KubeProxy(cluster.here, request.param, (cluster.near.address, cluster.far.address))
    running.start()
    yield running
    running.stop()
    cnictl(cluster.here, "apply")


def test_services_work_and_closed_ports_stay_refused_across_kube_proxy_restarts(
    cluster: Cluster, proxy: KubeProxy
) -> None:
    expected = cluster.expected(proxy.mode)
    assert (cluster.answers(proxy.mode), drifted(cluster.here), cluster.findings()) == (expected, [], [])
    proxy.start()
    assert (cluster.answers(proxy.mode), drifted(cluster.here), cluster.findings()) == (expected, [], [])


def test_kube_proxy_started_before_cnictl_keeps_its_place(cluster: Cluster, proxy: KubeProxy) -> None:
    here, expected = cluster.here, cluster.expected(proxy.mode)
    for program in ("iptables", "ip6tables"):
        mark = "-m comment --comment cnictl:mynet -j CNICTL-FORWARD"
        shell(here, f"{program} -D FORWARD {mark}; {program} -F CNICTL-FORWARD; {program} -X CNICTL-FORWARD")
    if proxy.mode == "iptables":
        shell(here, "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP")
        assert "forward-drop" in cluster.findings()
    assert drifted(here) == ["forward/iptables", "forward/ip6tables"]
    assert "forward-drop-nft" not in cluster.findings()
    cnictl(here, "apply")
    assert own_jumps(here) == own_jumps(here, "ip6tables") == [1]
    assert "cnictl" not in here.run(["nft", "list", "table", "ip", "kube-proxy"], check=False).stdout
    assert (cluster.answers(proxy.mode), drifted(here), cluster.findings()) == (expected, [], [])
    proxy.start()
    assert (cluster.answers(proxy.mode), drifted(here), cluster.findings()) == (expected, [], [])
    shell(here, "iptables -P FORWARD ACCEPT; ip6tables -P FORWARD ACCEPT")


def test_accepts_ahead_of_kube_proxys_rules_are_named_and_moved(cluster: Cluster, proxy: KubeProxy) -> None:
    """Accept rules where the previous release put them must be found and moved."""
    here = cluster.here
    if proxy.mode == "iptables":
        mark = "FORWARD -m comment --comment cnictl:mynet -j CNICTL-FORWARD"
        shell(here, f"iptables -D {mark}; iptables -I {mark}")
        resources, findings = ["forward/iptables"], ["forward-drop"]
    else:
        rule = 'iifname "cni0" ip saddr 10.244.0.0/24 counter accept comment "cnictl:mynet"'
        here.run(["nft", f"insert rule ip kube-proxy filter-forward {rule}"])
        resources, findings = ["forward/nft"], ["forward-drop-nft"]
    assert ask(here, cluster.pod.command(), f"{recorded.EMPTY}:80") == ["silence"]
    assert (drifted(here), cluster.findings()) == (resources, findings)
    cnictl(here, "doctor", "--fix", "--only", findings[0])
    assert (cluster.answers(proxy.mode), drifted(here), cluster.findings()) == (cluster.expected(proxy.mode), [], [])
