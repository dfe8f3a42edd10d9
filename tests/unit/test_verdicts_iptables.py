"""Where the jumps to cnictl's accept rules belong in iptables' FORWARD, beside the firewalls found on real hosts."""

import shlex
from pathlib import Path

import pytest

from cnictl.node.host import firewall, host_links
from cnictl.node.host.verdicts import iptables
from cnictl.node.host.verdicts.model import Packets, drops, walk
from cnictl.node.resources.forward import CHAIN, FilterTable, jump
from cnictl.node.spec.node_spec import NodeSpec, Peer

SPEC = NodeSpec(("10.244.0.0/24",), ("10.244.0.0/20",), peers=(Peer("10.244.1.0/24", "10.0.10.51"),))
RECORDED = Path(__file__).parents[1] / "coexistence" / "recorded" / "kube-proxy-iptables.iptables-save"

METADATA = "-A FORWARD -d 169.254.169.254/32 -j DROP\n"
UFW = """\
-P FORWARD DROP
-N ufw-before-forward
-N ufw-user-forward
-N ufw-reject-forward
-A FORWARD -j ufw-before-forward
-A FORWARD -j ufw-reject-forward
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A ufw-before-forward -j ufw-user-forward
"""
DOCKER = """\
-P FORWARD DROP
-N DOCKER-USER
-N DOCKER-ISOLATION-STAGE-1
-N DOCKER-ISOLATION-STAGE-2
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-USER -j RETURN
"""
DOCKER_28 = """\
-P FORWARD DROP
-N DOCKER
-N DOCKER-FORWARD
-N DOCKER-USER
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER ! -i docker0 -o docker0 -j DROP
-A DOCKER-FORWARD -j DOCKER
-A DOCKER-FORWARD -i docker0 -j ACCEPT
"""
ORACLE = """\
-P FORWARD ACCEPT
-A FORWARD -j REJECT --reject-with icmp-host-prohibited
"""
POLICY_TOOL = """\
-P FORWARD ACCEPT
-N cali-FORWARD
-N cali-from-wl-dispatch
-N cali-tw-web
-A FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD
-A cali-FORWARD -j MARK --set-xmark 0x0/0xe0000
-A cali-FORWARD -i cali+ -j cali-from-wl-dispatch
-A cali-FORWARD -d 10.244.0.9/32 -j cali-tw-web
-A cali-from-wl-dispatch -m comment --comment "Unknown interface" -j DROP
-A cali-tw-web -m mark ! --mark 0x10000/0x10000 -m comment --comment "no policy lets it in" -j DROP
"""
FIREWALLD = """\
-P FORWARD ACCEPT
-N FORWARD_IN_ZONES
-N FWDI_public
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT
-A FORWARD -i lo -j ACCEPT
-A FORWARD -j FORWARD_IN_ZONES
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -j REJECT --reject-with icmp-host-prohibited
-A FORWARD_IN_ZONES -i eth0 -g FWDI_public
-A FORWARD_IN_ZONES -g FWDI_public
-A FWDI_public -p icmp -j ACCEPT
"""


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> "type[Look]":
    monkeypatch.setattr(host_links, "links_to_others", lambda _: ["eth0"])
    Look.patch = monkeypatch
    return Look


class Look:
    """A `FilterTable` with rules given as text."""

    patch: pytest.MonkeyPatch

    def __init__(self, text: str) -> None:
        lines = [shlex.split(line) for line in text.splitlines() if line]
        self.patch.setattr(firewall, "rules_of", lambda *_: lines)
        self._look = FilterTable("iptables", "ip", SPEC)

    def inserted(self) -> list[str]:
        """Return the wanted jumps with their positions: `FORWARD 3`, `DOCKER-USER 1 -o cni0`."""
        wanted = self._look.wanted(everywhere=True)
        lines = self._look.insertions({"jumps": wanted}, "mynet")
        return [line.removeprefix("-I ").partition("-m comment")[0].strip() for line in lines]

    def misplaced(self) -> list[str]:
        """Return why existing jumps are out of place."""
        return list(map(str, self._look.survey().misplaced.values()))

    def passed(self) -> list[tuple[str, str]]:
        """Return the rules that the accept rules come ahead of."""
        return list(self._look.survey().passed_over)


def recorded() -> str:
    """Return kube-proxy's filter table in the form of `iptables -S`."""
    saved = RECORDED.read_text(encoding="utf-8").partition("*filter\n")[2].partition("COMMIT")[0].splitlines()
    lines = [f"-P {line[1:].split()[0]} ACCEPT" if " ACCEPT " in line and line[0] == ":" else line for line in saved]
    return "\n".join(f"-N {line[1:].split()[0]}" if line[0] == ":" else line for line in lines) + "\n"


@pytest.mark.parametrize(
    ("text", "inserted"),
    [
        pytest.param("-P FORWARD ACCEPT\n", ["FORWARD 1"], id="nothing"),
        pytest.param("-P FORWARD DROP\n", ["FORWARD 1"], id="policy"),
        pytest.param(f"-P FORWARD DROP\n{METADATA}", ["FORWARD 2"], id="operator's drop"),
        pytest.param(f"-P FORWARD ACCEPT\n{METADATA}", ["FORWARD 2"], id="operator's drop alone"),
        pytest.param(UFW, ["FORWARD 3"], id="ufw"),
        pytest.param(DOCKER, ["DOCKER-USER 1"], id="docker"),
        pytest.param(DOCKER_28, ["FORWARD 3"], id="docker, which drops what goes straight to its containers"),
        pytest.param(
            DOCKER.replace("-A FORWARD", "-N KUBE-FORWARD\n-A FORWARD -j KUBE-FORWARD\n-A FORWARD", 1), ["FORWARD 6"],
            id="kube-proxy ahead of docker",
        ),
        pytest.param(
            DOCKER + "-N KUBE-SERVICES\n-A FORWARD -j KUBE-SERVICES\n", ["FORWARD 6"], id="kube-proxy behind docker"
        ),
        pytest.param(
            DOCKER + METADATA, ["FORWARD 6"], id="operator's drop behind docker"
        ),
        pytest.param(
            DOCKER.replace("-A DOCKER-USER -j", "-A DOCKER-USER -s 10.244.0.9/32 -j DROP\n-A DOCKER-USER -j"),
            ["DOCKER-USER 2"], id="operator's drop in DOCKER-USER",
        ),
        pytest.param(ORACLE, ["FORWARD 1"], id="a reject at the end"),
        pytest.param(
            "-P FORWARD ACCEPT\n-A FORWARD -i eth0 -j DROP\n", ["FORWARD 2 -i cni0", "FORWARD 1 -o cni0"],
            id="what comes from outside",
        ),
        pytest.param(POLICY_TOOL, ["FORWARD 2"], id="a policy tool"),
        pytest.param(FIREWALLD, ["FORWARD 5"], id="firewalld"),
    ],
)  # fmt: skip
def test_the_jump_belongs_as_late_as_it_can(look: type[Look], text: str, inserted: list[str]) -> None:
    assert look(text).inserted() == inserted


def test_the_jump_belongs_behind_all_jumps_of_kube_proxy(look: type[Look]) -> None:
    assert look(recorded()).inserted() == ["FORWARD 5"]
    assert look(recorded().replace("-P FORWARD ACCEPT", "-P FORWARD DROP")).inserted() == ["FORWARD 5"]


OURS = f"-A FORWARD {jump('', 'mynet')}\n"


def test_a_jump_ahead_of_kube_proxys_is_out_of_place_even_if_every_service_has_endpoints(look: type[Look]) -> None:
    chains = f"-P FORWARD ACCEPT\n-N {CHAIN}\n-N KUBE-SERVICES\n"
    kube = "-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES\n"
    assert look(chains + OURS + kube).misplaced() == ["ahead of what kube-proxy rejects in KUBE-SERVICES"]
    assert look(chains + kube + OURS).misplaced() == []


def test_a_jump_is_in_place_anywhere_between_particular_drops_and_the_general_drop(look: type[Look]) -> None:
    drops = "-P FORWARD DROP\n-A FORWARD -d 169.254.169.254/32 -j DROP\n"
    assert look(drops + OURS + "-A FORWARD -i docker0 -j ACCEPT\n").misplaced() == []
    assert look(UFW.replace("-A FORWARD", OURS + "-A FORWARD", 1)).misplaced() == []


def test_a_jump_behind_a_rule_that_drops_everything_is_out_of_place(look: type[Look]) -> None:
    assert look(ORACLE + OURS).misplaced() == ["behind -j REJECT --reject-with icmp-host-prohibited in FORWARD"]


def test_only_packets_to_a_peers_pods_are_accepted_ahead_of_their_drop(look: type[Look]) -> None:
    fault = "-P FORWARD ACCEPT\n-A FORWARD -d 10.244.1.0/24 -j DROP\n"
    assert look(fault + OURS).inserted() == ["FORWARD 2", "FORWARD 1 -d 10.244.0.0/20 -i cni0"]
    moved = f"-A FORWARD {jump('-d 10.244.0.0/20 -i cni0', 'mynet')}\n"
    assert look(fault.replace("-A", moved + "-A", 1) + OURS).misplaced() == []
    fault = "-P FORWARD ACCEPT\n-A FORWARD -s 10.244.1.0/24 -j DROP\n"
    assert look(fault + OURS).inserted() == ["FORWARD 2 -i cni0", "FORWARD 1 -o cni0"]


def test_each_drop_that_an_accept_comes_ahead_of_is_named(look: type[Look]) -> None:
    assert look("-P FORWARD DROP\n").passed() == [("FORWARD", "policy drop")]
    assert look("-P FORWARD ACCEPT\n").passed() == []
    late = "-P FORWARD ACCEPT\n-A FORWARD -i eth0 -j DROP\n-A FORWARD -s 203.0.113.0/24 -j DROP\n"
    assert look(late).passed() == [("FORWARD", "-i eth0 -j DROP"), ("FORWARD", "-s 203.0.113.0/24 -j DROP")]


@pytest.mark.parametrize(
    ("rule", "all_of_them"),
    [
        ("-j DROP", True),
        ("-m comment --comment 'no more' -j DROP", True),
        ("-p all -j DROP", True),
        ("-m conntrack --ctstate NEW -j DROP", True),
        ("-m state --state NEW,INVALID -j DROP", True),
        ("-m conntrack --ctstate INVALID -j DROP", False),
        ("-p tcp -m tcp --dport 25 -j DROP", False),
        ("-p tcp -j DROP", False),
        ("-i cni+ -j DROP", True),
        ("! -i eth0 -j DROP", True),
        ("! -i cni0 -j DROP", True),
        ("-i docker0 -j DROP", False),
        ("-s 10.244.0.0/16 -j DROP", True),
        ("-s 10.244.0.7/32 -j DROP", False),
        ("! -s 192.168.0.0/16 -i cni0 -j DROP", True),
        ("-m set --match-set blocked src -j DROP", False),
        ("-m limit --limit 5/sec -j DROP", False),
        ("-m mark --mark 0x1 -j DROP", False),
        ("-m addrtype --dst-type LOCAL -j DROP", False),
        ("-j LOG", False),
    ],
)
def test_a_rule_drops_all_of_pods_packets_if_they_always_meet_its_matches(
    look: type[Look], rule: str, all_of_them: bool
) -> None:
    text = f"-P FORWARD ACCEPT\n-A FORWARD {rule}\n"
    assert any("FORWARD 1" in line for line in look(text).inserted()) is all_of_them


def dropped_for_this_node(text: str) -> bool:
    """Return whether everything that pods send to their node is dropped."""
    packets = Packets("ip", "cni0", source="10.244.0.0/24", source_type="unicast", target_type="local")
    model = iptables.ruleset([shlex.split(line) for line in text.splitlines()])
    return any(drop.certain for drop in drops(walk(model, "INPUT", packets, whole=True)))


def test_rule_that_drops_packets_for_other_hosts_does_not_drop_pods_packets_to_this_one() -> None:
    """ufw drops such packets ahead of the rules for what the operator lets in."""
    not_local = (
        "-P INPUT DROP\n-N not-local\n-A INPUT -j not-local\n-A INPUT -i cni0 -j ACCEPT\n"
        "-A not-local -m addrtype --dst-type MULTICAST -j DROP\n"
        "-A not-local -m addrtype --dst-type LOCAL -j RETURN\n-A not-local -j DROP\n"
    )
    assert not dropped_for_this_node(not_local)
    assert dropped_for_this_node(not_local.replace("LOCAL", "BROADCAST"))
    assert not dropped_for_this_node("-A INPUT -m addrtype ! --dst-type LOCAL -j DROP\n")
    assert dropped_for_this_node("-A INPUT -m addrtype --src-type UNICAST --dst-type LOCAL -j DROP\n")
    assert not dropped_for_this_node("-A INPUT -m addrtype --dst-type LOCAL --limit-iface-in -j DROP\n")
