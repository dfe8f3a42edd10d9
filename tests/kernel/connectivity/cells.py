"""Provide nodes on which each cell of `test-connectivity` can pass, with DNS, an API server and kube-proxy's rules."""

from collections.abc import Iterator
from contextlib import contextmanager

from cnictl.lab.lab import Lab, Node
from tests.kernel.cluster import Cluster, Outcome, shell
from tests.schemas import checked

_SERVERS = """
import selectors, socket
dns, api = socket.socket(type=socket.SOCK_DGRAM), socket.create_server(("", 6443))
dns.bind(("", 53))
waiting = selectors.DefaultSelector()
for server in (dns, api):
    waiting.register(server, selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in waiting.select():
        if key.fileobj is api:
            api.accept()[0].close()
        else:
            question, sender = dns.recvfrom(512)
            dns.sendto(question[:2] + RCODE + question[4:], sender)
"""
NO_SUCH_NAME, SERVER_FAILURE = r"b'\x81\x83'", r"b'\x81\x82'"
KUBE_PROXY = """*nat
:KUBE-SERVICES - [0:0]
:KUBE-SVC-NPX46M4PTMTKRN6Y - [0:0]
:KUBE-SEP-THEONLYONE000000 - [0:0]
-I PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m comment --comment "default/kubernetes:https cluster IP" -m tcp --dport 443 \
-j KUBE-SVC-NPX46M4PTMTKRN6Y
-A KUBE-SVC-NPX46M4PTMTKRN6Y -j KUBE-SEP-THEONLYONE000000
-A KUBE-SEP-THEONLYONE000000 -p tcp -m tcp -j DNAT --to-destination ENDPOINT
COMMIT
"""
"""The rules that kube-proxy writes in iptables mode for the API server's Service with one endpoint."""
KUBE_PROXY_NFT = """table ip kube-proxy {
  map service-ips {
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = { 10.96.0.1 . tcp . 443 : goto service-2QRHZV4L-default/kubernetes/tcp/https }
  }
  chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }
  chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }
  chain service-2QRHZV4L-default/kubernetes/tcp/https {
    goto endpoint-A-default/kubernetes/tcp/https__10.0.0.1/6443
  }
  chain endpoint-A-default/kubernetes/tcp/https__10.0.0.1/6443 { meta l4proto tcp dnat to ENDPOINT:6443; }
}
"""
"""The same rules in nftables mode."""


class World:
    """Two nodes, with a DNS server and an API server outside.

    The first node has kube-proxy's rules for the API server.
    """

    def __init__(self, lab: Lab) -> None:
        self.cluster, self.outside = Cluster(lab), lab.outside
        self.here, self.there = lab.nodes
        self.cluster.init()
        self.send_on("6443")
        shell(self.here, f"echo nameserver {lab.outside.address} > /etc/resolv.conf")

    def send_on(self, port: str) -> None:
        """Make kube-proxy's rules lead to a port of the host outside."""
        rules = KUBE_PROXY.replace("ENDPOINT", f"{self.outside.address}:{port}")
        self.here.run(["sh", "-c", "iptables -t nat -F PREROUTING; iptables-restore --noflush"], rules)

    def test(self, *cells: str, options: tuple[str, ...] = ()) -> Outcome:
        """Run these cells, or all of them if none is given."""
        named = [word for cell in cells for word in ("--only", cell)]
        return of_node(self.here, *named, *options)

    @contextmanager
    def served(self, rcode: str = NO_SUCH_NAME) -> Iterator[None]:
        """Run the API server, and a DNS server that answers every question with this code."""
        process = self.outside.popen(["/usr/bin/python3", "-c", _SERVERS.replace("RCODE", rcode)])
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()
            process.communicate(timeout=20)

    @contextmanager
    def broken(self, fault: str, undo: str) -> Iterator[None]:
        """Break something on the first node while the context lasts."""
        shell(self.here, fault)
        try:
            yield
        finally:
            shell(self.here, undo)


def of_node(node: Node, *arguments: str) -> Outcome:
    """Run checks on a node, check the JSON against the schema, and return the result."""
    done = node.run(
        ["cnictl", "test-connectivity", "--count", "2", "--timeout", "0.4", "-o", "json", *arguments], check=False
    )
    document = checked("test-connectivity", done.stdout)
    return Outcome(done.status, document["overall"], document["checks"])


def guard(*rules: str) -> str:
    made = ["nft add table ip guard", "nft add chain ip guard forward '{ type filter hook forward priority 0; }'"]
    return "; ".join([*made, *(f"nft add rule ip guard forward {rule}" for rule in rules)])


NO_GUARD = "nft delete table ip guard"
