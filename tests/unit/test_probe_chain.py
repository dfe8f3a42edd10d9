"""The chain runner speaks to plugins exactly as the specification says a runtime does."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cnictl.core.errors import Problem
from cnictl.probe.chain import Attachment, Chain, PluginFailed, addresses, host_ends, load_chain

RECORDER = """#!/bin/sh
{{ printf %s "$CNI_COMMAND {name} container=$CNI_CONTAINERID netns=$CNI_NETNS "
  echo "ifname=$CNI_IFNAME args=$CNI_ARGS path=$CNI_PATH"
  cat; echo; }} >>{log}
printf '%s' '{answer}'
exit {status}
"""
CONF: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "mynet",
    "plugins": [
        {"type": "first", "bridge": "cni0", "capabilities": {"portMappings": False}, "cni.dev/odd": 1},
        {"type": "second", "capabilities": {"portMappings": True, "bandwidth": True}, "prevResult": {"stale": 1}},
    ],
}
POD = Attachment("c1", "/run/netns/c1", "eth0", "K8S_POD_NAME=p")


class Recorded:
    """A folder with plugins that record their calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"

    def plugin(self, name: str, answer: str = "", status: int = 0) -> None:
        """Install a plugin that records its call and prints `answer`."""
        path = self.folder / name
        path.write_text(RECORDER.format(name=name, log=self.log, answer=answer, status=status))
        path.chmod(0o755)

    @property
    def calls(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the environment line and the request of each call, in order."""
        lines = [line for line in self.log.read_text().splitlines() if line]
        return [(lines[i], json.loads(lines[i + 1])) for i in range(0, len(lines), 2)]


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    """`first` and `second` answer with different results."""
    made = Recorded(tmp_path)
    made.plugin("first", '{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.2/24"}]}')
    made.plugin("second", '{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.3/24"}]}')
    return made


def chain(recorded: Recorded, conf: dict[str, Any] = CONF) -> Chain:
    """Return the conf's chain with the recording plugins."""
    return Chain(conf, [str(recorded.folder)])


def test_add_hands_each_result_to_the_next_plugin_and_returns_the_last(recorded: Recorded) -> None:
    result = chain(recorded).add(POD)
    (first_line, first), (second_line, second) = recorded.calls
    assert addresses(result) == ["10.0.0.3"]
    expected = f"container=c1 netns=/run/netns/c1 ifname=eth0 args=K8S_POD_NAME=p path={recorded.folder}"
    assert first_line == f"ADD first {expected}"
    assert second_line == f"ADD second {expected}"
    assert "prevResult" not in first
    assert second["prevResult"]["ips"] == [{"address": "10.0.0.2/24"}]


def test_request_is_derived_according_to_the_specification(recorded: Recorded) -> None:
    chain(recorded).add(POD)
    (_, first), (_, second) = recorded.calls
    assert first == {"type": "first", "bridge": "cni0", "name": "mynet", "cniVersion": "1.0.0"}
    assert "capabilities" not in second


def test_del_runs_in_reverse_with_the_cached_result(recorded: Recorded) -> None:
    chain(recorded).delete(POD, {"cached": True})
    assert [line.split()[1] for line, _ in recorded.calls] == ["second", "first"]
    assert [request["prevResult"] for _, request in recorded.calls] == [{"cached": True}] * 2


def test_del_before_0_4_0_or_without_a_result_has_no_prev_result(recorded: Recorded) -> None:
    chain(recorded, {**CONF, "cniVersion": "0.3.1"}).delete(POD, {"cached": True})
    chain(recorded).delete(POD, None)
    assert all("prevResult" not in request for _, request in recorded.calls)


def test_an_error_object_becomes_a_failure_with_its_code_and_stops_the_chain(recorded: Recorded) -> None:
    recorded.plugin("first", '{"cniVersion":"1.0.0","code":7,"msg":"bad subnet","details":"try /24"}', 1)
    with pytest.raises(PluginFailed) as caught:
        chain(recorded).add(POD)
    assert (caught.value.plugin, caught.value.command, caught.value.code) == ("first", "ADD", 7)
    assert caught.value.message == "plugin first, ADD: bad subnet (CNI code 7)"
    assert caught.value.hint == "try /24"
    assert len(recorded.calls) == 1


def test_a_failure_without_an_error_object_has_the_plugins_output(recorded: Recorded) -> None:
    recorded.plugin("first", "Segmentation fault", 139)
    with pytest.raises(PluginFailed, match="Segmentation fault"):
        chain(recorded).add(POD)


def test_a_missing_plugin_is_named_with_the_folders_searched(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=f"CNI plugin first is in none of {tmp_path}"):
        Chain(CONF, [str(tmp_path)]).add(POD)


def test_a_conf_of_one_plugin_is_a_chain_of_one(tmp_path: Path) -> None:
    path = tmp_path / "10-x.conf"
    path.write_text('{"cniVersion":"0.4.0","name":"n","type":"first"}')
    assert load_chain(str(path)).types == ["first"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "Expecting"),
        ("[]", "not a JSON object"),
        ('{"name":"n","plugins":[]}', "no plugin"),
        ('{"name":"n","plugins":[{}]}', "no plugin"),
        ('{"plugins":[{"type":"x"}]}', "no name"),
    ],
)
def test_an_invalid_conf_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "conf"
    path.write_text(text)
    with pytest.raises(Problem, match=said):
        load_chain(str(path))
    with pytest.raises(Problem, match="no such CNI conf"):
        load_chain(f"{path}.missing")


def test_results_of_every_version_give_their_addresses() -> None:
    assert addresses({"ip4": {"ip": "10.0.0.2/24"}, "ip6": {"ip": "fd00::2/64"}}) == ["10.0.0.2", "fd00::2"]
    assert addresses({"ips": [{"version": "4", "address": "10.0.0.2/24"}]}) == ["10.0.0.2"]
    assert addresses({}) == []
    assert host_ends({"interfaces": [{"name": "cni0"}, {"name": "v"}, {"name": "eth0", "sandbox": "/x"}]}) == [
        "cni0",
        "v",
    ]


def test_a_port_mapping_goes_to_the_plugin_that_declares_the_capability(recorded: Recorded) -> None:
    conf = {**CONF, "plugins": [CONF["plugins"][0], {"type": "second", "capabilities": {"portMappings": True}}]}
    mapping = replace(POD, port_mappings=((8080, 80),))
    assert chain(recorded, conf).maps_ports
    chain(recorded, conf).add(mapping)
    chain(recorded, conf).delete(mapping, None)
    (_, first), (_, second), (_, deleted), _ = recorded.calls
    wanted = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
    assert "runtimeConfig" not in first
    assert second["runtimeConfig"] == deleted["runtimeConfig"] == wanted
    assert not Chain({**CONF, "plugins": [{"type": "second", "capabilities": {"bandwidth": True}}]}).maps_ports
