"""The plugin's log: each call writes one complete line, and a problem with the log never fails a call."""

import os
import re
from typing import Any

import pytest

from cnictl.node.host import plugin_log
from tests.kernel.plugin.client import PLUGIN_LOG, WALK_THROUGH, Host, Pod, finish

pytestmark = pytest.mark.once

Json = dict[str, Any]

LINE = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ) (?P<level>info|error) (?P<verb>[A-Z-]*) (?P<duration>\d+\.\d)ms "
    r"container=(?P<container>\S+) ifname=(?P<ifname>\S+) pod=(?P<pod>\S+) address=(?P<address>\S+) "
    r"(?P<more>.*)outcome=(?P<outcome>.*)"
)


def log(host: Host, path: str = PLUGIN_LOG) -> list[dict[str, str]]:
    """Return the log's lines, split into their parts."""
    lines = host.path(path).read_text().splitlines()
    matches = [LINE.fullmatch(line) for line in lines]
    assert all(matches), lines
    return [matched.groupdict() for matched in matches if matched]


def test_each_call_is_one_line_with_container_duration_and_outcome(host: Host) -> None:
    pod = host.pod()
    named = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0"
    conf = {**WALK_THROUGH, "cniVersion": "1.1.0"}
    result = host.add(pod, conf, CNI_ARGS=named)
    host.plugin("CHECK", pod, conf, result, CNI_ARGS=named)
    host.plugin("DEL", pod, conf, result, CNI_ARGS=named)
    host.plugin("VERSION", conf=conf)
    host.plugin("STATUS", conf=conf)
    lines = log(host)
    assert [line["verb"] for line in lines] == ["ADD", "CHECK", "DEL", "STATUS"]
    for line in lines[:3]:
        told = [line[key] for key in ("level", "container", "ifname", "pod", "address", "outcome")]
        assert told == ["info", "pod", "eth0", "shop/web-0", "10.244.0.2", "ok"]
        assert float(line["duration"]) > 0


def test_failed_call_is_logged_with_its_error(host: Host) -> None:
    host.plugin("ADD", Pod("pod", "/run/netns/gone"))
    (line,) = log(host)
    assert (line["level"], line["address"]) == ("error", "-")
    assert line["outcome"].startswith("3: CNI_NETNS '/run/netns/gone'")


@pytest.mark.parametrize(
    ("level", "verbs"), [("info", ["ADD", "ADD"]), ("debug", ["ADD", "ADD"]), ("error", ["ADD"]), ("off", [])]
)
def test_level_decides_what_is_written(host: Host, level: str, verbs: list[str]) -> None:
    host.conf["logLevel"] = level
    pod = host.pod()
    host.add(pod)
    assert host.plugin("ADD", pod).status == 1
    lines = log(host) if verbs else []
    assert [line["verb"] for line in lines] == verbs
    assert host.path(PLUGIN_LOG).exists() == bool(verbs)
    if level == "debug":
        assert pod.netns in lines[0]["more"]


def test_path_of_the_conf_is_used_and_folders_are_created(host: Host) -> None:
    host.conf["logFile"] = "/var/log/deep/down/pods.log"
    host.add(host.pod())
    assert len(log(host, "/var/log/deep/down/pods.log")) == 1
    assert not host.path(PLUGIN_LOG).exists()


def test_log_is_not_world_readable_with_any_umask_of_the_runtime(host: Host) -> None:
    for mask in (0o000, 0o077, 0o777):
        former = os.umask(mask)
        try:
            host.plugin("STATUS", conf={**WALK_THROUGH, "cniVersion": "1.1.0", "logFile": f"/var/log/{mask}.log"})
        finally:
            os.umask(former)
        assert host.path(f"/var/log/{mask}.log").stat().st_mode & 0o777 == 0o640


def test_rotated_log_is_created_again(host: Host) -> None:
    pod = host.pod()
    host.add(pod)
    host.path(PLUGIN_LOG).rename(host.path(f"{PLUGIN_LOG}.1"))
    host.delete(pod)
    assert [line["verb"] for line in log(host)] == ["DEL"]
    assert host.path(PLUGIN_LOG).stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("obstacle", ["folder", "pipe", "full", "read-only", "file in the way", "loop"])
def test_unwritable_log_never_fails_a_call(host: Host, obstacle: str) -> None:
    path = "/var/log/plugin.log"
    if obstacle == "folder":
        host.path(path).mkdir()
    elif obstacle == "pipe":
        os.mkfifo(host.path(path))
    elif obstacle == "full":
        fill = (
            "mount -t tmpfs -o size=4k full /var/log; head -c 4096 /dev/zero >/var/log/ballast; : >/var/log/plugin.log"
        )
        host.run("sh", "-ec", fill)
    elif obstacle == "read-only":
        host.run("mount", "-o", "remount,bind,ro", "/var/log")
    elif obstacle == "file in the way":
        host.path("/var/log/file").write_text("")
        path = "/var/log/file/plugin.log"
    elif obstacle == "loop":
        host.path(path).symlink_to(path)
    host.conf["logFile"] = path
    pod = host.pod()
    result = host.add(pod)
    assert host.plugin("CHECK", pod, prev=result).result == {}
    host.delete(pod, prev=result)
    assert host.plugin("ADD", Pod("pod", "/run/netns/gone")).code == 3


def test_hostile_names_stay_on_their_line_and_write_no_control_characters(host: Host) -> None:
    hostile = "a\n2026-01-01T00:00:00Z info ADD\r\x1b[2J\x07ü"
    assert (
        host.plugin("ADD", Pod(hostile, "/run/netns/gone", "x\ny"), None, None, CNI_ARGS="K8S_POD_NAME=\x1b]0;").code
        == 4
    )
    text = host.path(PLUGIN_LOG).read_text()
    assert text.count("\n") == 1 and text[:-1].isprintable()
    assert "\\x1b[2J" in text


@pytest.mark.parametrize("level", ["info", "debug"])
def test_no_name_forges_a_field_or_makes_the_line_long(host: Host, level: str) -> None:
    forged = "web container=other address=10.0.0.1 outcome=ok " + "x" * 60_000
    host.conf["logLevel"] = level
    args = f"IgnoreUnknown=1;K8S_POD_NAMESPACE={forged};K8S_POD_NAME={forged}"
    container = "a container=other " + "x" * 60_000
    host.plugin("ADD", Pod(container, "/run/netns/a outcome=ok b", "e 0 outcome=ok"), CNI_ARGS=args)
    host.plugin("A outcome=ok", Pod(container, "/run/netns/gone"))
    lines = host.path(PLUGIN_LOG).read_text().splitlines()
    assert len(lines) == 2 and all(len(line) < 4096 for line in lines)
    for line in lines:
        assert re.findall(r" (container|address|outcome)=", line) == ["container", "address", "outcome"]
        call = plugin_log.parse(line)
        assert call is not None and call.failed and call.outcome.startswith("4: ") and not call.address
        assert call.container == "" or "other" in call.container


def test_lines_of_simultaneous_calls_do_not_mix(host: Host) -> None:
    pods = host.pods(40)
    answers = [finish(started) for started in [host.start("ADD", pod) for pod in pods]]
    lines = log(host)
    assert {(line["container"], line["address"]) for line in lines} == {
        (pod.container, answer.address) for pod, answer in zip(pods, answers, strict=True)
    }
    assert len(lines) == 40


def test_debug_shows_no_argument_that_may_be_a_secret(host: Host) -> None:
    host.conf["logLevel"] = "debug"
    host.add(host.pod(), CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAME=web-0;TOKEN=swordfish;x=hunter2")
    (line,) = log(host)
    assert "args=IgnoreUnknown=1;K8S_POD_NAME=web-0;TOKEN=(left-out);x=(left-out)" in line["more"]
    assert "swordfish" not in line["more"] and "hunter2" not in line["more"]


def test_argument_without_a_key_is_refused_by_position(host: Host) -> None:
    said = host.plugin("ADD", host.pod(), CNI_ARGS="IgnoreUnknown=1;swordfish").error["msg"]
    assert "part 2 of CNI_ARGS is not KEY=VALUE" in said and "swordfish" not in said
    assert "swordfish" not in host.path(PLUGIN_LOG).read_text()
