"""Run the hints of preflight and status as printed, and check that the finding is gone."""

import json
import shlex
from dataclasses import dataclass
from typing import Any

import pytest

from cnictl.lab.lab import Node
from tests.kernel.cluster import shell
from tests.kernel.commands import INIT_OPTIONS, cnictl, init
from tests.kernel.hints import applies, matches

pytestmark = pytest.mark.once


@dataclass(frozen=True)
class Case:
    """A fault that preflight finds, and the hint that it prints."""

    check: str
    hint: str
    """The hint's name in tests/kernel/hints.py."""
    fault: str
    restore: str
    options: tuple[str, ...] = INIT_OPTIONS

    def __str__(self) -> str:
        return self.hint


_TO_ROOT = "node.preflight.root_alone.to_root: {}"
_BOTH = (*INIT_OPTIONS, "--subnet", "fd00:244::/64", "--network", "fd00:244::/48")
CASES = (
    Case(
        "bridge", "node.preflight.addresses.bridge: ip link del {}",
        "ip link add cni0 type bridge; ip link set cni0 alias cnictl:old; ip address add 10.9.0.1/24 dev cni0",
        "ip link del cni0 || true",
    ),
    Case(
        "bridge", "node.preflight.addresses._another_bridge: --bridge {}",
        "ip link add cni0 type veth peer name cni1", "ip link del cni0",
    ),
    Case(
        "bridge", "node.preflight.addresses._another_bridge: --bridge {}",
        "ip link add cni0 type bridge; ip link set cni0 alias cnictl:old; ip address add 10.9.0.1/24 dev cni0; "
        "ip link add p0 type veth peer name p1; ip link set p0 master cni0",
        "ip link del p0; ip link del cni0",
    ),
    Case(
        "ipv6", "node.preflight.addresses.ipv6: sysctl -w net.ipv6.conf.all.disable_ipv6=0",
        "sysctl -qw net.ipv6.conf.all.disable_ipv6=1", "sysctl -qw net.ipv6.conf.all.disable_ipv6=0", _BOTH,
    ),
    Case(
        "subnet-overlap", "node.preflight.addresses._suggest: --subnet {}",
        "ip route add 10.244.0.128/25 via 10.0.10.51", "ip route del 10.244.0.128/25",
    ),
    Case(
        "forward", "node.preflight.forward: --no-forward", "iptables -P FORWARD DROP", "iptables -P FORWARD ACCEPT",
    ),
    Case(
        "firewall-tool", "node.preflight.host.firewall_tool: --backend {}",
        "mount --bind /dev/null /usr/sbin/nft", "umount /usr/sbin/nft", (*INIT_OPTIONS, "--backend", "nft"),
    ),
    Case(
        "bin-dir", _TO_ROOT, "chmod 777 /opt/cni/bin; chown 1000 /opt/cni",
        "chmod 755 /opt/cni/bin; chown 0 /opt/cni",
    ),
    Case("lib-dir", _TO_ROOT, "chmod 777 /usr/local/lib", "chmod 755 /usr/local/lib"),
    Case("ownership", _TO_ROOT, "mkdir -m 777 /etc/cnictl", "rmdir /etc/cnictl"),
    Case(
        "lib-dir", "node.preflight.places._elsewhere: cnictl plugin install --lib-dir /opt/cnictl",
        "mount --bind /usr/local/lib /usr/local/lib; mount -o remount,bind,ro /usr/local/lib",
        "cnictl plugin uninstall --all 2>/dev/null || rm -rf /opt/cnictl /opt/cni/bin/cnictl-bridge; "
        "umount /usr/local/lib",
    ),
    Case(
        "launcher-name", "node.preflight.places._move_away: mv {} {}.off",
        "echo theirs > /usr/lib/cni/cnictl-bridge", "rm /usr/lib/cni/cnictl-bridge.off",
    ),
    Case(
        "conf-name", "node.preflight.places._move_away: mv {} {}.off",
        "echo '{}' > /etc/cni/net.d/10-cnictl.conflist", "rm /etc/cni/net.d/10-cnictl.conflist.off",
    ),
)  # fmt: skip


def findings(node: Node, options: tuple[str, ...], check: str) -> list[dict[str, Any]]:
    """Return the findings of one check from `init-node --dry-run`."""
    done = cnictl(node, "init-node", *options, "--dry-run", "-o", "json", check=False)
    assert done.stdout, done.stderr
    return [finding for finding in json.loads(done.stdout)["findings"] if finding["name"] == check]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_hint_of_preflight_clears_its_finding(shared_node: Node, case: Case) -> None:
    assert findings(shared_node, case.options, case.check) == []
    shell(shared_node, case.fault)
    try:
        reported = findings(shared_node, case.options, case.check)
        assert reported
        for finding in reported:
            printed = finding["hint"]["command"] or finding["hint"]["option"]
            assert matches(case.hint, printed), printed
            assert printed in finding["hint"]["text"]
        command, option = reported[0]["hint"]["command"], reported[0]["hint"]["option"]
        shell(shared_node, command or "true")
        left = findings(shared_node, (*_without(case.options, option), *shlex.split(option)), case.check)
        assert reported[0] not in left, left
    finally:
        shell(shared_node, case.restore)


def _without(options: tuple[str, ...], option: str) -> tuple[str, ...]:
    """Return the options without one option and its value."""
    name = option.split()[0] if option else ""
    if name not in options:
        return options
    at = options.index(name)
    return (*options[:at], *options[at + 2 :])


APPLY = "cli.status_screen._differences: cnictl apply"


@applies(APPLY)
def test_command_that_status_names_repairs_the_drift(node: Node) -> None:
    init(node)
    shell(node, "sysctl -qw net.ipv4.ip_forward=0; ip link set cni0 down; nft delete table inet cnictl")
    told = cnictl(node, "status", check=False)
    assert told.status == 1
    (printed,) = (line.split("`")[1] for line in told.stdout.splitlines() if "repairs them" in line)
    assert matches(APPLY, printed)
    shell(node, printed)
    assert cnictl(node, "status").status == 0
