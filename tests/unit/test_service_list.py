"""List Services from what kube-proxy writes in each of its modes, and choose the one to test."""

import re
from pathlib import Path
from typing import Any

import pytest

from cnictl.core.errors import UsageProblem
from cnictl.node.spec.node_spec import is_ipv6
from cnictl.probe.cells import names
from cnictl.probe.cells.service_list import ServicePort, of_iptables, of_ipvs, of_nftables, preferred
from cnictl.probe.checks import CHECKS

_RECORDED = Path(__file__).parents[1] / "coexistence" / "recorded"

# the output of `nft -j list map ip kube-proxy service-ips` with kube-proxy's map
_MAP: list[dict[str, Any]] = [
    {"metainfo": {"json_schema_version": 1}},
    {
        "map": {
            "family": "ip",
            "table": "kube-proxy",
            "name": "service-ips",
            "elem": [
                [
                    {"concat": ["10.96.0.10", "udp", 53]},
                    {"goto": {"target": "service-FY5PMXPG-kube-system/kube-dns/udp/dns"}},
                ],
                [
                    {"concat": ["10.96.0.1", "tcp", 443]},
                    {"goto": {"target": "service-2QRHZV4L-default/kubernetes/tcp/https"}},
                ],
                [
                    {"concat": ["10.96.0.9", "tcp", 80]},
                    {"goto": {"target": "external-2QRHZV4L-default/web/tcp/http"}},
                ],
            ],
        }
    },
]

# the format of ip_vs_info_seq_show (net/netfilter/ipvs/ip_vs_ctl.c)
_IP_VS = """IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A600001:01BB rr
  -> AC1E000B:192B      Masq    1      0          0
TCP  0A600005:0050 rr
UDP  0A60000A:0035 rr
  -> 0AF40002:0035      Masq    1      0          0
  -> 0AF40003:0035      Masq    1      0          0
TCP  [fd00:0096:0000:0000:0000:0000:0000:0001]:01BB rr
  -> [fd00:0244:0000:0000:0000:0000:0000:0002]:192B      Masq    1      0          0
FWM  00000001 rr
  -> 0AF40002:0035      Masq    1      0          0
"""


def test_recorded_iptables_rules_name_their_services() -> None:
    text = (_RECORDED / "kube-proxy-iptables.iptables-save").read_text(encoding="utf-8")
    services = list(of_iptables(text))
    assert ServicePort("10.96.0.1", "tcp", 443, "default/kubernetes") in services
    jumps = re.findall(r"^-A KUBE-SERVICES -d (\S+)/32 .*cluster IP.* -j KUBE-SVC-", text, re.MULTILINE)
    assert [service.address for service in services] == jumps
    assert not any(is_ipv6(service.address) for service in services)
    six = of_iptables((_RECORDED / "kube-proxy-iptables.ip6tables-save").read_text(encoding="utf-8"))
    assert all(is_ipv6(service.address) for service in six)


def test_nftables_map_names_its_services_and_no_external_addresses() -> None:
    assert list(of_nftables(_MAP)) == [
        ServicePort("10.96.0.10", "udp", 53, "kube-system/kube-dns"),
        ServicePort("10.96.0.1", "tcp", 443, "default/kubernetes"),
    ]


def test_ipvs_lists_those_with_an_endpoint() -> None:
    assert list(of_ipvs(_IP_VS)) == [
        ServicePort("10.96.0.1", "tcp", 443),
        ServicePort("10.96.0.10", "udp", 53),
        ServicePort("fd00:96::1", "tcp", 443),
    ]


@pytest.mark.parametrize(
    "text", ["", "-A KUBE-SERVICES", "-A KUBE-SERVICES -d 10.96.0.1 -j KUBE-SVC-A", "TCP  xyz:01BB rr"]
)
def test_entry_that_is_not_a_service_is_skipped(text: str) -> None:
    assert [*of_iptables(text), *of_ipvs(f"{text}\n  -> 0AF40002:0035 Masq 1 0 0\n"), *of_nftables([{"map": {}}])] == []


def test_the_wanted_service_comes_first_and_any_other_next() -> None:
    web, api = ServicePort("10.96.0.5", "tcp", 80, "a/web"), ServicePort("10.96.0.1", "tcp", 443, "default/kubernetes")
    dns = ServicePort("10.96.0.10", "udp", 53)
    assert preferred([web, api, dns], "tcp", False, "default/kubernetes") == api
    assert preferred([web, dns], "tcp", False, "default/kubernetes") == web
    assert preferred([web, api, dns], "udp", False, "kube-system/kube-dns", 53) == dns
    assert preferred([web, api, dns], "tcp", True, "default/kubernetes") is None


def test_checks_are_selected_with_what_they_need() -> None:
    assert names.choose([], []) == frozenset(names.ALL)
    chosen = names.choose(["tcp", "hairpin"], ["hairpin"])
    assert chosen == {"tcp"}
    assert names.checks_for(chosen) == {"pod-same-host", "pod-other-host", "external"}
    assert names.checks_for(frozenset(names.ALL)) == frozenset(CHECKS)
    with pytest.raises(UsageProblem, match="there is no check 'dsn'") as refused:
        names.choose(["dsn"], [])
    assert refused.value.hint == "did you mean dns?"
