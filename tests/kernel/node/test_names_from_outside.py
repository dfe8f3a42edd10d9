"""Malicious pod names can't control the terminal, forge a row or widen other rows in the output."""

import json
import os
import pty
import select
from collections.abc import Iterator

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.commands import CONF, PLUGIN, cnictl, init

HARMFUL = "web\x1b[2J\x1b]0x\x07\r\n10.244.0.9  forged\u202e live"
LONG = "n" * 60_000


@pytest.fixture(scope="module")
def attached() -> Iterator[Node]:
    """Yield a node with two pods: one with a harmful name, one with a very long name."""
    with Lab(nodes=1) as lab:
        node = lab.nodes[0]
        init(node)
        conf = json.loads(node.run(["cat", CONF]).stdout)
        request = json.dumps({"cniVersion": conf["cniVersion"], "name": conf["name"], **conf["plugins"][0]})
        for name, pod in (("harmful", HARMFUL), ("long", LONG)):
            node.run(["ip", "netns", "add", name])
            environment = {
                "CNI_COMMAND": "ADD", "CNI_CONTAINERID": name, "CNI_NETNS": f"/run/netns/{name}",
                "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin",
                "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod}",
            }  # fmt: skip
            node.run([PLUGIN], stdin=request, env=environment)
        yield node


@pytest.mark.parametrize(
    "words",
    ["ipam list", "ipam show 10.244.0.2", "ipam gc --dry-run", "pod 10.244.0.2", "logs", "status", "bridge show"],
)
def test_table_holds_no_character_that_acts_on_a_terminal(attached: Node, words: str) -> None:
    done = cnictl(attached, *words.split(), check=False)
    assert done.stdout, done.stderr
    for text in (done.stdout, done.stderr):
        assert all(line.isprintable() for line in text.split("\n"))
        assert not any(line.startswith("10.244.0.9") for line in text.split("\n"))
        assert all(len(line) < 2000 for line in text.split("\n"))


def test_long_name_pads_no_other_row(attached: Node) -> None:
    listed = cnictl(attached, "ipam", "list").stdout.splitlines()
    assert min(len(line) for line in listed if line.startswith("10.244.0.")) < 400


@pytest.mark.parametrize("words", ["ipam list", "pod 10.244.0.2", "logs"])
def test_json_keeps_the_exact_value(attached: Node, words: str) -> None:
    text = cnictl(attached, *words.split(), "-o", "json", check=False).stdout
    assert text.isascii() and "\x1b" not in text
    normalized = json.dumps(json.loads(text))
    assert (json.dumps(HARMFUL)[1:-1] in normalized) or words == "logs"


def test_terminal_gets_no_sequence_of_the_names(attached: Node) -> None:
    outer, inner = pty.openpty()
    process = attached.popen(["env", "TERM=xterm", "cnictl", "ipam", "list"], stdout=inner, stderr=inner)
    os.close(inner)
    said = b""
    while select.select([outer], [], [], 30)[0]:
        try:
            said += os.read(outer, 65536)
        except OSError:
            break  # EIO: the last writer has closed the terminal
    assert process.wait(timeout=30) == 0
    os.close(outer)
    assert b"10.244.0.2" in said and b"\x1b[2J" not in said and b"\x1b]0" not in said and b"\x07" not in said


def test_alias_of_the_host_veth_is_plain_text(attached: Node) -> None:
    aliases = [link.get("ifalias", "") for link in json.loads(attached.run(["ip", "-d", "-j", "link"]).stdout)]
    ours = [alias for alias in aliases if alias.startswith("cnictl:") and "/default/" in alias]
    assert len(ours) == 2 and all(alias.isprintable() and " " not in alias for alias in ours)


def test_record_holds_a_bounded_name(attached: Node) -> None:
    folder = "/var/lib/cnictl/attachments/"
    sizes = attached.run(["find", folder, "-type", "f", "-name", "*@*", "-printf", "%s\n"]).stdout.split()
    assert len(sizes) == 2 and all(int(size) < 4096 for size in sizes)
