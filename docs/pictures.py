"""Make docs/status.svg and docs/support-bundle.svg from what cnictl says on a lab node: `python docs/pictures.py`."""

import io
from pathlib import Path

from rich.console import Console
from rich.text import Text

from cnictl.lab.lab import Lab, Node

_HERE = Path(__file__).parent
_NETWORK = "10.244.0.0/20"
_WIDTH = 132
_PODS = """
for name in web db; do
    ip netns add $name
    python3 -c "import json; c = json.load(open('/etc/cni/net.d/10-cnictl.conflist')); \\
print(json.dumps({'cniVersion': c['cniVersion'], 'name': c['name'], **c['plugins'][0]}))" |
        CNI_COMMAND=ADD CNI_CONTAINERID=$name CNI_NETNS=/run/netns/$name CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin \\
        CNI_ARGS="K8S_POD_NAMESPACE=default;K8S_POD_NAME=$name" /opt/cni/bin/cnictl-bridge >/dev/null
done
ip netns exec web ping -q -c3 -i0.2 192.0.2.10 >/dev/null
"""


def main() -> None:
    """Set two nodes up, with two pods on the first, and take the pictures."""
    with Lab(nodes=2) as lab:
        here, there = lab.nodes
        for node, other in ((here, there), (there, here)):
            peer = f"{other.pod_cidr}={other.address}"
            node.run(["cnictl", "init-node", "--subnet", node.pod_cidr, "--network", _NETWORK, "--peer", peer])
        here.run(["sh", "-ec", _PODS])
        _picture(here, "status", ["cnictl", "status"])
        _picture(here, "support-bundle", ["cnictl", "support-bundle", "/tmp/node1.tar.gz"])


def _picture(node: Node, name: str, argv: list[str]) -> None:
    said = node.run(argv, timeout=60)
    console = Console(record=True, width=_WIDTH, file=io.StringIO())
    for line in (f"# {' '.join(argv)}", *said.stdout.splitlines(), *said.stderr.splitlines()):
        console.print(Text(line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…"))
    console.save_svg(str(_HERE / f"{name}.svg"), title="node1")


if __name__ == "__main__":
    main()
