"""Replay the rules that a real kube-proxy wrote (`recorded/`) on a lab node, with its pods' addresses."""

import re
from pathlib import Path

from cnictl.lab.lab import Node

_RECORDED = Path(__file__).with_name("recorded")
_ENDPOINTS = ("10.244.0.200", "10.244.1.200")
"""The recorded endpoints of the Services in namespace `capture`, a pod on each node."""

EMPTY, NODE_PORT_EMPTY = "10.96.9.90", "10.96.9.91"
"""Services without endpoints, on port 80. The second also has a node port."""
WEB, STICKY, LOCAL = "10.96.9.80", "10.96.9.81", "10.96.9.82"
"""Services with both endpoints: plain, with session affinity, with `externalTrafficPolicy: Local`."""
EMPTY_NODE_PORT, LOCAL_NODE_PORT = 30090, 30082
UNALLOCATED = "10.96.77.77"
EMPTY6, WRONG_PORT6, UNALLOCATED6 = "fd00:96::3e79", "fd00:96::845e", "fd00:96::7777"


class KubeProxy:
    """Change a node's rules as kube-proxy does in one of its modes when it starts, syncs and is cleaned up."""

    def __init__(self, node: Node, mode: str, endpoints: tuple[str, str]) -> None:
        self._node, self.mode = node, mode
        self._addresses = dict(zip(_ENDPOINTS, endpoints, strict=True))

    def start(self) -> None:
        """Write kube-proxy's own chains, and insert its jumps at the heads of the built-in chains.

        A second call is a restart: the full sync flushes and rewrites kube-proxy's chains and keeps existing jumps.
        """
        if self.mode == "nftables":
            tables = "".join(
                f"table {family} kube-proxy {{}}\ndelete table {family} kube-proxy\n" for family in _FAMILIES
            )
            self._node.run(["nft", "-f", "-"], stdin=tables + self._text("nftables.nft"))
            return
        for program in ("iptables", "ip6tables"):
            self._node.run([f"{program}-restore", "--noflush"], stdin=self._inserting(program))

    def stop(self) -> None:
        """Remove the rules as `kube-proxy --cleanup` does."""
        if self.mode == "nftables":
            for family in _FAMILIES:
                self._node.run(["nft", "delete", "table", family, "kube-proxy"])
            return
        for program in ("iptables", "ip6tables"):
            kept = f"{program}-save | grep -v -e '^-A KUBE-' -e '^:KUBE-' -e '-j KUBE-' | {program}-restore"
            self._node.run(["sh", "-c", kept])

    def _text(self, name: str) -> str:
        text = (_RECORDED / f"kube-proxy-{name}").read_text(encoding="utf-8")
        for recorded, address in self._addresses.items():
            text = re.sub(rf"\b{re.escape(recorded)}\b", address, text)
        if name.endswith(".nft"):
            ports = 'comment "IPs that accept NodePort traffic"'
            return text.replace(ports, f"{ports}\n\t\telements = {{ {self._node.address} }}", 1)
        # kube-proxy counts with nfacct objects only on hosts where it could make them
        return re.sub(r" -m nfacct --nfacct-name +\S+", "", text)

    def _inserting(self, program: str) -> str:
        """Return the restore text: kube-proxy's own chains, and the missing jumps for the heads of built-in chains."""
        present = self._node.run([f"{program}-save"]).stdout
        lines: list[str] = []
        jumps: list[str] = []
        for line in self._text(f"iptables.{program}-save").splitlines():
            if line.startswith(":") and not line.startswith(":KUBE-"):
                continue
            if line.startswith("-A") and not line.startswith("-A KUBE-"):
                if line not in present:
                    jumps.insert(0, line.replace("-A", "-I", 1))
                continue
            if line == "COMMIT":
                lines += jumps
                jumps = []
            lines.append(line)
        return "\n".join([*lines, ""])


_FAMILIES = ("ip", "ip6")
