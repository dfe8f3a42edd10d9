"""With any stdin and environment, the answer follows the specification and nothing is left behind.

`make fuzz` draws 20 times as many examples, different ones in each run; docs/dev/faults.md has the figures.
"""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnictl.core.attachments import CLAIM_MARK
from tests.faults import inputs
from tests.faults.inside import Inside, plugin_inside, processes_inside
from tests.kernel.plugin.client import VALID, WALK_THROUGH, Answer, Host, Pod, new_host, plugin_executable

pytestmark = pytest.mark.once

OWN_FOLDERS = (
    "var/lib/cni/networks",
    "var/lib/cnictl",
    "run/cnictl",
    "var/log/cnictl",
    "run/netns",
    "run/xtables.lock",
)
INTERNAL = 199
EACH = 5
"""One in this number of examples runs as a separate process, from the launcher on."""
SPECIFIED = {1, 2, 3, 4, 5, 6, 7, 11, 50, 51}


class Ground:
    """A host and a pod for all examples; each example leaves both unchanged. The bridge already exists."""

    def __init__(self, host: Host, plugin: Inside, processes: Inside) -> None:
        self.host, self._plugin, self._processes = host, plugin, processes
        self._calls = 0
        self.pod = host.pod()
        host.add(self.pod)
        host.delete(self.pod)
        self._inside = int(
            host.run("sh", "-c", f"nsenter --net={self.pod.netns} sleep 36000 >/dev/null 2>&1 & echo $!")
        )
        self.rules = host.run("nft", "list", "ruleset")

    def close(self) -> None:
        """Kill the process that keeps the pod's namespace alive."""
        os.kill(self._inside, 9)

    def call(self, environment: dict[str, str], stdin: bytes) -> Answer:
        """Call the plugin without any IPAM plugins, detach the pod if it was attached, and check what is left."""
        environment = {**environment, "CNI_PATH": "/var/lib/no-plugins"}
        self._calls += 1
        runner = self._plugin if self._calls % EACH else self._processes
        answer = runner.call(environment, stdin, [plugin_executable()])
        if answer.status == 0:
            assert answer.stderr == b""
            if environment["CNI_COMMAND"] == "ADD":
                again = runner.call({**environment, "CNI_COMMAND": "DEL"}, stdin, [plugin_executable()])
                assert again.status == 0, (answer, again)
        else:
            assert answer.code != INTERNAL, answer
            assert answer.code in SPECIFIED or 100 <= answer.code < INTERNAL, answer
        left = self._left()
        assert left == [], (answer, left)
        return answer

    def _left(self) -> list[str]:
        """Return what is left of an attachment on the host or in the pod, and files outside the plugin's folders."""
        host = self.host
        left = [name for name in devices(host, host.pid) if name not in ("lo", "cni0")]
        left += [name for name in devices(host, self._inside) if name != "lo"]
        for top in ("run", "var/lib", "var/log", "opt"):
            for file in host.path(f"/{top}").rglob("*"):
                inside = str(file.relative_to(host.path("/")))
                if file.is_dir() or file.name in ("lock", CLAIM_MARK) or file.name.startswith("last_reserved_ip."):
                    continue
                if not inside.startswith(OWN_FOLDERS) or "/attachments/" in inside or "/cni/networks/" in inside:
                    left.append(inside)
        return left


def devices(host: Host, process: int) -> list[str]:
    """Return the links in a process's network namespace."""
    lines = host.path(f"/proc/{process}/net/dev").read_text().splitlines()[2:]
    return [line.split(":")[0].strip() for line in lines]


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with ExitStack() as stack:
        host = stack.enter_context(new_host())
        plugin, processes = stack.enter_context(plugin_inside(host)), stack.enter_context(processes_inside(host))
        where = Ground(host, plugin, processes)
        stack.callback(where.close)
        yield where
        assert host.run("nft", "list", "ruleset") == where.rules


@inputs.bounded(60)
@given(verb=inputs.verbs, stdin=st.binary(max_size=200))
def test_any_bytes_on_stdin(ground: Ground, verb: str, stdin: bytes) -> None:
    ground.call(ground.host.environment(verb, ground.pod), stdin)


@inputs.bounded(60)
@given(verb=inputs.verbs, cut=st.integers(0, 140), filler=st.binary(max_size=4))
def test_conf_cut_or_corrupted_anywhere(ground: Ground, verb: str, cut: int, filler: bytes) -> None:
    whole = json.dumps(WALK_THROUGH).encode()
    environment = ground.host.environment(verb, ground.pod)
    ground.call(environment, whole[:cut] + filler + whole[cut + len(filler) :])
    ground.call(environment, whole[:cut])


@inputs.bounded(250)
@given(verb=inputs.verbs, conf=inputs.confs())
def test_any_value_under_every_key(ground: Ground, verb: str, conf: bytes) -> None:
    ground.call(ground.host.environment(verb, ground.pod), conf)


@inputs.bounded(100)
@given(verb=inputs.verbs, prev=inputs.results)
def test_any_prev_result(ground: Ground, verb: str, prev: object) -> None:
    conf = {**WALK_THROUGH, "cniVersion": "1.1.0", VALID: [], "prevResult": prev}
    ground.call(ground.host.environment(verb, ground.pod), inputs.document(conf))


@inputs.bounded(150)
@given(
    verb=inputs.verbs | inputs.verbs | inputs.names,
    container=inputs.names,
    ifname=inputs.names,
    netns=st.just("") | inputs.names,
    args=inputs.cni_args,
    real=st.sampled_from(["", "netns", "ifname", "netns ifname", "container netns ifname"]),
)
def test_any_environment(
    ground: Ground, verb: str, container: str, ifname: str, netns: str, args: str, real: str
) -> None:
    conf = {**WALK_THROUGH, "cniVersion": "1.1.0", VALID: []}
    pod = Pod(
        "pod" if "container" in real else container,
        ground.pod.netns if "netns" in real else netns,
        "eth0" if "ifname" in real else ifname,
    )
    ground.call(ground.host.environment(verb, pod, CNI_ARGS=args), json.dumps(conf).encode())
