"""Networks on one host for fault tests, each with its own bridge and pods."""

import itertools
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cnictl.core.attachments import CLAIM_MARK
from cnictl.core.digest import host_veth_name
from tests.faults.inside import Inside, cnictl_inside, plugin_inside
from tests.kernel.plugin.client import LEASES, RECORDS, VALID, Answer, Host, Json, Pod, new_host

PATIENCE = 0.5
"""Seconds for which the plugin waits for a lock in these tests; its default is 20."""


FULL, ALL = 5, 13
"""The CNI code of an I/O failure; the number of addresses in a /28 that pods can get."""


class Net:
    """A network on the host, with its leases and records."""

    def __init__(self, host: Host, plugin: Inside, cnictl: Inside, number: int) -> None:
        self.host, self._plugin, self._cnictl, self.number = host, plugin, cnictl, number
        self.name = f"net{number}"
        self.conf: Json = {
            "cniVersion": "1.1.0",
            "name": self.name,
            "type": "cnictl-bridge",
            "bridge": f"cni{number}",
            "subnet": f"10.244.{number}.0/28",
        }
        self._pods = itertools.count()

    def pod(self) -> Pod:
        return self.host.pod(f"{self.name}-pod{next(self._pods)}")

    def call(self, verb: str, pod: Pod | None = None, prev: Json | None = None, keys: Json | None = None) -> Answer:
        conf = {**self.conf, **(keys or {})}
        return self._plugin.call(self.host.environment(verb, pod), self.host.stdin(conf, prev))

    def add(self, pod: Pod) -> Json:
        return self.call("ADD", pod).result

    def address(self, last: int) -> str:
        return f"10.244.{self.number}.{last}"

    def collect(self, *valid: Pod) -> Answer:
        """Call GC; `valid` are the remaining attachments."""
        listed = [{"containerID": pod.container, "ifname": pod.ifname} for pod in valid]
        return self.call("GC", keys={VALID: listed})

    def ipam(self, *words: str) -> tuple[int, Any]:
        """Run `cnictl ipam …` and return its exit status and answer; for `gc`, the action for each row."""
        command = ["cnictl", "ipam", *words, "--name", self.name, "-o", "json"]
        answer = self._cnictl.call({"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, b"", command)
        told: Any = json.loads(answer.stdout) if answer.stdout else answer.stderr.decode()
        return answer.status, [row["action"] for row in told["items"][0]["outcomes"]] if words == ("gc",) else told

    @property
    def store(self) -> Path:
        return self.host.path(f"{LEASES}/{self.name}")

    @property
    def records(self) -> Path:
        return self.host.path(f"{RECORDS}/{self.name}")

    @property
    def mark(self) -> Path:
        """The path of the claim mark."""
        return self.records / CLAIM_MARK

    def record(self, pod: Pod) -> Path:
        return self.records / f"{pod.container}@{pod.ifname}"

    def leases(self) -> dict[str, bytes]:
        """Return the content of each lease file by address; b"" for a folder in a lease's place."""
        there = [file for file in self.store.iterdir() if file.name[0].isdigit()]
        return {file.name: file.read_bytes() if file.is_file() else b"" for file in there}

    def left(self) -> tuple[list[str], list[str], list[str]]:
        """Return the leased addresses, the names of the records, and the bridge's ports."""
        there = self.records.iterdir() if self.records.is_dir() else iter(())
        records = [file.name for file in there if not file.name.startswith(".")]
        return sorted(self.leases()), sorted(records), sorted(self.host.ports(f"cni{self.number}"))

    def of(self, *pods: tuple[Pod, int]) -> tuple[list[str], list[str], list[str]]:
        """Return what `left` returns if exactly these pods are attached; each has its address's last octet."""
        return (
            sorted(self.address(last) for _, last in pods),
            sorted(self.record(pod).name for pod, _ in pods),
            sorted(self.veth(pod) for pod, _ in pods),
        )

    def veth(self, pod: Pod) -> str:
        return host_veth_name(self.name, pod.container, pod.ifname)


class Ground:
    """The host, on which each test gets its own network."""

    def __init__(self, host: Host, plugin: Inside, cnictl: Inside) -> None:
        self.host, self._plugin, self._cnictl = host, plugin, cnictl
        self._numbers = itertools.count(1)

    def net(self) -> Net:
        return Net(self.host, self._plugin, self._cnictl, next(self._numbers))


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with ExitStack() as stack:
        host = stack.enter_context(new_host())
        host.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        plugin = stack.enter_context(plugin_inside(host, PATIENCE))
        yield Ground(host, plugin, stack.enter_context(cnictl_inside(host)))


@pytest.fixture
def net(ground: Ground) -> Net:
    return ground.net()
