"""Programs are found in root's folders with any PATH: cron's, a unit's, a runtime's, or none."""

import json
from collections.abc import Iterator

import pytest

from cnictl.core.process import Finished
from cnictl.lab.lab import Lab, Node
from tests.kernel.commands import INIT_OPTIONS, PLUGIN, Pod, cnictl, start_pod

pytestmark = pytest.mark.once

PATHS = {"cron's": ["PATH=/usr/bin:/bin"], "none": ["-u", "PATH"], "empty": ["PATH="], "relative": ["PATH=bin:.:"]}


@pytest.fixture(scope="module", params=["nft", "iptables"])
def set_up(request: pytest.FixtureRequest) -> Iterator[Node]:
    with Lab(nodes=1) as lab:
        (node,) = lab.nodes
        cnictl(node, "init-node", *INIT_OPTIONS, "--backend", request.param)
        start_pod(node, "first")
        yield node


def with_path(node: Node, path: list[str], *argv: str, stdin: str = "") -> Finished:
    return node.run(["/usr/bin/env", *path, *argv], stdin=stdin, timeout=90, check=False)


def program(node: Node) -> str:
    return node.run(["sh", "-c", "command -v cnictl"]).stdout.strip()


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_commands_print_the_same_with_any_path(set_up: Node, path: list[str]) -> None:
    own = program(set_up)
    for words in (("status",), ("apply",), ("plan", "--exit-code"), ("doctor",), ("nat", "show")):
        usual = cnictl(set_up, *words, "-o", "json", check=False)
        short = with_path(set_up, path, own, *words, "-o", "json")
        assert (short.status, short.stderr) == (usual.status, usual.stderr), words
        if words[0] != "nat":  # the counters in it change
            assert _steady(short) == _steady(usual), words


def _steady(done: Finished) -> object:
    document = json.loads(done.stdout)
    return document["resources"] if isinstance(document, dict) and "resources" in document else document


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_add_loads_the_rules_with_any_path(set_up: Node, path: list[str]) -> None:
    conf = json.loads(set_up.run(["cat", "/etc/cni/net.d/10-cnictl.conflist"]).stdout)
    request = json.dumps({"cniVersion": conf["cniVersion"], "name": conf["name"], **conf["plugins"][0]})
    set_up.run(["sh", "-c", "nft delete table inet cnictl; iptables -t nat -F POSTROUTING"], check=False)
    set_up.run(["ip", "netns", "add", "second"])
    call = ["CNI_CONTAINERID=second", "CNI_NETNS=/run/netns/second", "CNI_IFNAME=eth0", "CNI_PATH=/opt/cni/bin"]
    added = with_path(set_up, path, *call, "CNI_COMMAND=ADD", PLUGIN, stdin=request)
    try:
        assert added.status == 0, added.stdout
        pod = Pod(set_up, "second", json.loads(added.stdout)["ips"][0]["address"].partition("/")[0])
        assert pod.pings("192.0.2.1") or cnictl(set_up, "status").status == 0
        assert cnictl(set_up, "status", check=False).status == 0
    finally:
        with_path(set_up, path, *call, "CNI_COMMAND=DEL", PLUGIN, stdin=request)
        set_up.run(["ip", "netns", "delete", "second"])


def test_nothing_in_the_current_folder_is_run(set_up: Node) -> None:
    ran = "/root/ran"
    for name in ("nft", "iptables", "ip"):
        set_up.run(["sh", "-c", f"printf '#!/bin/sh\\ntouch {ran}\\n' > /root/{name}; chmod 755 /root/{name}"])
    try:
        for path in (["PATH=."], ["PATH=:"], ["PATH="]):
            assert with_path(set_up, path, program(set_up), "status").status == 0
        assert set_up.run(["test", "-e", ran], check=False).status != 0
    finally:
        set_up.run(["rm", "-f", ran, "/root/nft", "/root/iptables", "/root/ip"])
