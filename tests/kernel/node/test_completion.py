"""A Tab completes a line at a terminal in the real shells, on a node with pods and a peer."""

import os
import pty
import re
import select
from collections.abc import Iterator

import pytest

from cnictl import __version__
from cnictl.lab.lab import Lab, Node
from tests.coexistence import packaged
from tests.kernel.commands import init, start_pod
from tests.waiting import wait_for

pytestmark = pytest.mark.once

STARTS = {
    "bash": ("--norc", "-i", 'PS1=":; "; bind "set show-all-if-ambiguous on"; bind "set enable-bracketed-paste off"\n'
             "source <(cnictl completion bash)\n"),
    "zsh": ("-f", "-i", 'PS1=":; "; LISTMAX=1000; unsetopt PROMPT_SP; mkdir -p /tmp/site; fpath=(/tmp/site $fpath)\n'
            "cnictl completion zsh > /tmp/site/_cnictl; autoload -U compinit; compinit -u -D\n"),
}  # fmt: skip
"""The options that start each shell without user configuration, and the first lines that its user types."""
_HOSTILE = "$(reboot)"
"""The name of a link that a shell would execute."""
_CLUSTER = """network = "10.244.0.0/20"
nodes = [{ name = "alpha", address = "10.0.0.210" }, { name = "beta", address = "10.0.10.51" }]
"""
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|[\x00\x07\x0f]")


class Shell:
    """An interactive shell on a node, at its own terminal."""

    def __init__(self, node: Node, name: str) -> None:
        self._ours, its = pty.openpty()
        *flags, first = STARTS[name]
        self._process = node.popen(
            ["setsid", "-c", name, *flags], stdin=its, stdout=its, stderr=its,
            env={"TERM": "vt100", "COLUMNS": "200", "LINES": "50", "HISTFILE": ""},
        )  # fmt: skip
        os.close(its)
        self._said = ""
        self.type(f"{first}echo read''y\n")
        self.wait_for("ready")

    def type(self, keys: str) -> None:
        """Drop the terminal's output so far, and type keys."""
        self._said = ""
        os.write(self._ours, keys.encode())

    def wait_for(self, text: str) -> None:
        """Wait until the terminal shows a text."""

        def shown() -> bool:
            while select.select([self._ours], [], [], 0)[0]:
                self._said += os.read(self._ours, 65536).decode("utf-8", "replace")
            return text in self.screen

        try:
            wait_for(shown, text, 20)
        except AssertionError:
            raise AssertionError(f"the terminal shows {self.screen!r}, not {text!r}") from None

    @property
    def screen(self) -> str:
        """The terminal's output since the last key, without control sequences."""
        return _CONTROL.sub("", self._said).replace("\r", "")

    def end(self) -> None:
        """End the shell."""
        self._process.kill()
        self._process.wait()
        os.close(self._ours)


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """Yield a dual-stack node with two pods and a peer."""
    with Lab(nodes=2, dual_stack=True) as lab:
        here, there = lab.nodes
        init(here, "--subnet", here.pod_cidr6, "--network", "fd00:244::/48",
             "--peer", f"{there.pod_cidr}={there.address}")  # fmt: skip
        start_pod(here, "web")
        start_pod(here, "database")
        here.run(["ip", "link", "add", _HOSTILE, "type", "bridge"])
        here.run(["sh", "-c", f"cat > /etc/cnictl/cluster.toml <<'EOF'\n{_CLUSTER}EOF"])
        yield here


@pytest.fixture(scope="module", params=STARTS)
def shell(node: Node, request: pytest.FixtureRequest) -> Iterator[Shell]:
    """Yield each shell after its user has loaded the completion script."""
    if request.param == "zsh":
        packaged.install(node, "zsh")
    started = Shell(node, request.param)
    try:
        yield started
    finally:
        started.end()


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("cnictl ipam sh", "cnictl ipam show "),
        ("cnictl ipam list --na", "cnictl ipam list --name "),
        ("cnictl pod we", "cnictl pod web "),
        ("cnictl pod web --to=10.244.0.", "10.244.0.3"),
        ("cnictl ipam show fd00:", "cnictl ipam show fd00:244::"),
        ("cnictl ipam release fd00:244::3", "cnictl ipam release fd00:244::3 "),
        ("cnictl ping web 10.0.", "cnictl ping web 10.0.10.51 "),
        ("cnictl ipam gc --name my", "cnictl ipam gc --name mynet "),
        ("cnictl route del-peer 10", "cnictl route del-peer 10.244.1.0/24 "),
        ("cnictl test-connectivity --peer 10.244.1", "--peer 10.244.1.0/24=10.0.10.51 "),
        ("cnictl history ", "cnictl history 1 "),
        ("cnictl doctor --only=rev", "cnictl doctor --only=reverse-path "),
        ("cnictl doctor --skip mtu-path --explain stale-r", "--explain stale-route "),
        ("cnictl init-node --ignore subnet", "cnictl init-node --ignore subnet-overlap "),
        ("cnictl bridge up --bridge cn", "cnictl bridge up --bridge cni0 "),
        ("cnictl nat enable --backend ipt", "cnictl nat enable --backend iptables "),
        ("cnictl plugin use 0", f"cnictl plugin use {__version__} "),
        ("cnictl cluster status --limit alpha,", "cnictl cluster status --limit alpha,beta "),
        ("cnictl cluster remove be", "cnictl cluster remove beta "),
        ("cnictl metrics --textfile /etc/hostn", "cnictl metrics --textfile /etc/hostname "),
        ("cnictl plugin list --lib-dir /usr/local/li", "cnictl plugin list --lib-dir /usr/local/lib/"),
    ],
)
def test_tab_completes(shell: Shell, typed: str, completed: str) -> None:
    shell.type(f"\x15{typed}\t")
    shell.wait_for(completed)


def test_tab_lists_pods_and_addresses_and_no_files(shell: Shell) -> None:
    shell.type("\x15cd /etc; clear\n")
    shell.type("\x15cnictl pod \t")
    for name in ("web", "database", "10.244.0.2", "fd00:244::3"):
        shell.wait_for(name)
    assert "hostname" not in shell.screen


def test_name_that_a_shell_would_execute_is_not_offered(node: Node, shell: Shell) -> None:
    assert _HOSTILE in node.run(["ls", "/sys/class/net"]).stdout.split()
    shell.type("\x15cnictl bridge up --bridge \t")
    shell.wait_for("cni0")
    assert "reboot" not in shell.screen


def test_value_of_a_new_thing_is_not_completed(shell: Shell) -> None:
    shell.type("\x15cnictl init-node --subnet \t10.9.0.0/24 --name my\tx")
    shell.wait_for("--subnet 10.9.0.0/24 --name myx")


def test_fish_completes(node: Node) -> None:
    packaged.install(node, "fish")
    asked = "".join(f'complete -C "cnictl {typed}"\n' for typed in ("ipam sh", "nat enable --backend ", "pod we"))
    said = node.run(["fish", "--no-config", "-c", f"cnictl completion fish | source\n{asked}"]).stdout
    assert [line.partition("\t")[0] for line in said.splitlines()] == ["show", "iptables", "nft", "web"]


@pytest.mark.parametrize("shell_name", ["bash", "zsh"])
def test_script_that_an_earlier_version_installed_still_completes(node: Node, shell_name: str) -> None:
    """typer's script for bash expects plain words, and the one for zsh evaluates the output."""
    words = {"_CNICTL_COMPLETE": f"complete_{shell_name}", "COMP_WORDS": "cnictl\nrese", "COMP_CWORD": "1"}
    said = node.run(["env", "cnictl"], env={**words, "_TYPER_COMPLETE_ARGS": "cnictl rese"}).stdout
    if shell_name == "bash":
        assert said == "reset-node\n"
    else:
        assert said == node.run(["cnictl", "completion", "zsh"]).stdout
