"""Call CNI plugins as a runtime does: pass an environment and a configuration, and read one JSON document."""

import json
from typing import Any

from .machine import Machine
from .node import NETWORK, SUBNET, Node

Document = dict[str, Any]

HOST_LOCAL: Document = {
    "cniVersion": "1.0.0",
    "name": NETWORK,
    "type": "reference",
    "ipam": {"type": "host-local", "ranges": [[{"subnet": SUBNET}]]},
}
REFERENCE_CONFLIST: Document = {
    "cniVersion": "1.0.0",
    "name": NETWORK,
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isDefaultGateway": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": SUBNET}]]},
        }
    ],
}


class Refused(Exception):
    """The error in a plugin's answer."""

    def __init__(self, document: Document) -> None:
        super().__init__(document["msg"])
        self.code: int = document["code"]


class Plugin:
    """One plugin with its configuration, on one machine."""

    def __init__(self, machine: Machine, path: str, conf: Document) -> None:
        self._machine = machine
        self._path = path
        self._conf = conf

    def add(self, container: str, netns: str, args: str = "") -> str:
        """Call ADD and return the result's address, without prefix length. Raises Refused."""
        (address,) = self._call("ADD", container, netns, args)["ips"]
        assert isinstance(address["address"], str)
        return address["address"].partition("/")[0]

    def delete(self, container: str, netns: str = "") -> None:
        """Call DEL. Raises Refused."""
        self._call("DEL", container, netns)

    def _call(self, verb: str, container: str, netns: str, args: str = "") -> Document:
        environment = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": netns,
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": args,
            "CNI_PATH": "/usr/lib/cni",
        }
        done = self._machine.try_run(self._path, stdin=json.dumps(self._conf), env=environment)
        if done.returncode != 0:
            raise Refused(json.loads(done.stdout))
        answer: Document = json.loads(done.stdout) if done.stdout else {}
        return answer


def host_local(node: Node) -> Plugin:
    """Return Debian's host-local, which uses the node's lease store."""
    return Plugin(node.machine, f"{node.layout.bin_dir}/host-local", HOST_LOCAL)


def cnictl_bridge(node: Node) -> Plugin:
    """Return the plugin as init-node installed and configured it."""
    conflist = json.loads(node.machine.path("/etc/cni/net.d/10-cnictl.conflist").read_text())
    conf = {"cniVersion": conflist["cniVersion"], "name": conflist["name"], **conflist["plugins"][0]}
    return Plugin(node.machine, f"{node.layout.bin_dir}/cnictl-bridge", conf)
