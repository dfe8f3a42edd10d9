"""The conf and the boot unit on a node have the right content, appear atomically, and leave nothing when removed."""

import importlib.resources
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from cnictl.lab.lab import Node
from cnictl.node.plugin.program import COMMAND
from cnictl.node.resources.cni_conf import conflist
from cnictl.node.spec.node_spec import NodeSpec

pytestmark = pytest.mark.once

CONF = "/etc/cni/net.d/10-cnictl.conflist"
UNIT = "/etc/systemd/system/cnictl.service"

SPEC = NodeSpec(subnets=("10.244.0.0/24",), networks=("10.244.0.0/20",))

# Runs on a node: changes a resource to its desired state or to None, and prints the state that it then observes.
CARRY_OUT = """
import json, sys
from cnictl.node.resources.{module} import {name}
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.node.spine import Change
spec = NodeSpec(subnets=("10.244.0.0/24",), networks=("10.244.0.0/20",))
resource = {name}(spec)
before, after = resource.observe(), resource.desired(spec) if {wanted} else None
{around}
if before != after:
    resource.carry_out(Change(resource.id, before, after, *resource.describe(before, after)))
assert resource.observe() == after, (resource.observe(), after)
json.dump(after, sys.stdout)
"""


def carry_out(node: Node, name: str, wanted: bool = True, around: str = "", check: bool = True) -> Any:
    module = {"CniConf": "cni_conf", "BootUnit": "boot_unit"}[name]
    program = CARRY_OUT.format(module=module, name=name, wanted=wanted, around=around)
    done = node.run([sys.executable, "-c", program], check=check)
    return json.loads(done.stdout) if done.status == 0 else done.stderr


def read(node: Node, path: str) -> str:
    return node.run(["cat", path]).stdout


def there(node: Node, path: str) -> bool:
    return node.run(["test", "-e", path], check=False).status == 0


def test_the_conf_is_valid_for_a_runtime(node: Node) -> None:
    carry_out(node, "CniConf")
    document = json.loads(read(node, CONF))
    assert document["cniVersion"] == "1.0.0"
    assert document["name"] == "mynet"
    first, *rest = document["plugins"]
    assert first["type"] == "cnictl-bridge"
    assert (first["subnet"], first["network"], first["bridge"]) == (SPEC.subnet, SPEC.network, "cni0")
    assert (first["ipMasq"], first["isDefaultGateway"]) == (True, True)
    assert [plugin["type"] for plugin in rest] == (["portmap"] if there(node, "/usr/lib/cni/portmap") else [])
    assert node.run(["stat", "-c", "%a", CONF]).stdout == "644\n"


def test_the_newest_version_is_offered_only_if_the_whole_chain_supports_it(node: Node) -> None:
    old = '#!/bin/sh\necho \'{"cniVersion": "1.0.0", "supportedVersions": ["0.4.0", "1.0.0"]}\'\n'
    node.run(["sh", "-c", "mkdir /etc/containerd; echo version = 2 > /etc/containerd/config.toml"])
    node.run(["sh", "-c", "cat > /opt/cni/bin/portmap; chmod 755 /opt/cni/bin/portmap"], old)
    carry_out(node, "CniConf")
    assert "cniVersions" not in json.loads(read(node, CONF))
    node.run(["sed", "-i", 's/"1.0.0"\\]/"1.0.0", "1.1.0"]/', "/opt/cni/bin/portmap"])
    carry_out(node, "CniConf")
    assert json.loads(read(node, CONF))["cniVersions"] == ["0.4.0", "1.0.0", "1.1.0"]
    node.run(["rm", "/opt/cni/bin/portmap"])
    carry_out(node, "CniConf")
    assert [plugin["type"] for plugin in json.loads(read(node, CONF))["plugins"]] == ["cnictl-bridge"]


# Prints what containerd's watcher sees in the folder while the conf is written: inotify(7) events.
WATCH = """
import ctypes, os, struct
libc = ctypes.CDLL(None)
os.makedirs("/etc/cni/net.d", exist_ok=True)
watch = libc.inotify_init1(os.O_NONBLOCK)
libc.inotify_add_watch(watch, b"/etc/cni/net.d", 0xFFF)
import atexit
def show():
    data, at = os.read(watch, 65536), 0
    while at < len(data):
        _, mask, _, length = struct.unpack_from("iIII", data, at)
        name = data[at + 16 : at + 16 + length].rstrip(b"\\0").decode()
        at += 16 + length
        print(hex(mask & 0xFFF), name, file=sys.stderr)
atexit.register(show)
"""


def test_the_conf_appears_by_a_rename_from_a_name_that_no_runtime_reads(node: Node) -> None:
    program = CARRY_OUT.format(module="cni_conf", name="CniConf", wanted=True, around=WATCH)
    events = [line.split() for line in node.run([sys.executable, "-c", program]).stderr.splitlines()]
    kinds = {(int(event[0], 16), event[1]) for event in events if len(event) == 2}
    final = Path(CONF).name
    moved_to = {name for kind, name in kinds if kind == 0x80}
    others = {name for _, name in kinds if name != final}
    assert moved_to == {final}
    assert not {kind for kind, name in kinds if name == final} & {0x2, 0x100}  # neither written nor created in place
    assert others
    assert not any(name.endswith((".conf", ".conflist", ".json")) for name in others)


def test_foreign_conf_with_our_name_is_not_modified(node: Node) -> None:
    theirs = '{"cniVersion": "1.0.0", "name": "x", "plugins": [{"type": "bridge"}]}'
    node.run(["sh", "-c", f"cat > {CONF}"], theirs)
    assert "is not cnictl's" in carry_out(node, "CniConf", check=False)
    assert "is not cnictl's" in carry_out(node, "CniConf", wanted=False, check=False)
    assert read(node, CONF) == theirs


def test_a_folder_created_for_the_conf_is_removed_with_it_unless_a_runtime_watches_it(node: Node) -> None:
    node.run(["rm", "-r", "/etc/cni"])
    carry_out(node, "CniConf")
    carry_out(node, "CniConf", wanted=False)
    assert not there(node, "/etc/cni")
    assert not there(node, "/var/lib/cnictl")
    carry_out(node, "CniConf")
    node.run(["sh", "-c", "mkdir -p /run/containerd; touch /run/containerd/containerd.sock"])
    carry_out(node, "CniConf", wanted=False)
    assert not there(node, CONF)
    assert there(node, "/etc/cni/net.d")


def test_a_runtime_with_its_own_folders_gets_the_conf_there(node: Node) -> None:
    config = (
        'version = 2\n[plugins."io.containerd.grpc.v1.cri".cni]\nbin_dir = "/opt/cni/bin"\nconf_dir = "/etc/theirs"\n'
    )
    node.run(["sh", "-c", "mkdir /etc/containerd; cat > /etc/containerd/config.toml"], config)
    carry_out(node, "CniConf")
    assert there(node, "/etc/theirs/10-cnictl.conflist")
    assert not there(node, CONF)


def test_a_plain_node_gets_the_shipped_example() -> None:
    shipped = json.loads((importlib.resources.files("cnictl_conf") / "10-cnictl.conflist").read_text())
    assert shipped == conflist(SPEC, bridge_netfilter=False, portmap=True, newest=False)


@pytest.mark.parametrize("nat", [True, False])
def test_the_conf_matches_the_spec(nat: bool) -> None:
    spec = NodeSpec(
        subnets=("10.9.1.0/24",),
        networks=("10.9.0.0/16",),
        name="n1",
        bridge="br1",
        mtu=1400,
        nat=nat,
        backend="iptables",
    )
    document = conflist(spec, bridge_netfilter=True, portmap=False, newest=True)
    plugin = document["plugins"][0]
    assert (document["name"], plugin["bridge"], plugin["mtu"], plugin["hairpinMode"]) == ("n1", "br1", 1400, True)
    assert plugin["ipMasq"] is nat
    assert plugin.get("ipMasqBackend") == ("iptables" if nat else None)


def test_systemd_accepts_the_boot_unit(node: Node) -> None:
    node.run(["mkdir", "-p", "/run/systemd/system", "/etc/systemd/system", "/etc/logrotate.d"])
    before = node.run(["find", "/etc"]).stdout
    carry_out(node, "BootUnit")
    unit = read(node, UNIT)
    node.run(["sh", "-c", f"mkdir -p {os.path.dirname(COMMAND)}; cp /usr/bin/true {COMMAND}"])  # verify wants a program
    command = next(line for line in unit.splitlines() if line.startswith("ExecStart="))
    assert command.endswith(" apply")
    assert "@" not in command
    assert node.run(["readlink", "/etc/systemd/system/multi-user.target.wants/cnictl.service"]).stdout == f"{UNIT}\n"
    assert "/var/log/cnictl" in read(node, "/etc/logrotate.d/cnictl")
    verified = node.run(["systemd-analyze", "verify", "--man=no", UNIT], check=False)
    assert "cnictl" not in verified.stderr + verified.stdout, verified.stderr
    for first in ("containerd.service", "crio.service", "kubelet.service"):
        assert first in next(line for line in unit.splitlines() if line.startswith("Before="))
    after = " ".join(line for line in unit.splitlines() if line.startswith("After="))
    assert all(f"{service}.service" in after for service in ("nftables", "firewalld", "ufw"))
    carry_out(node, "BootUnit", wanted=False)
    assert node.run(["find", "/etc"]).stdout == before


def test_the_packages_logrotate_file_is_neither_written_nor_removed(node: Node) -> None:
    logrotate = "/etc/logrotate.d/cnictl"
    node.run(["mkdir", "-p", "/run/systemd/system", "/etc/systemd/system", "/etc/logrotate.d", "/var/lib/dpkg/info"])
    carry_out(node, "BootUnit")  # an installation before the package wrote the file
    node.run(["sh", "-c", f"echo {logrotate} >/var/lib/dpkg/info/cnictl.list; echo '# an edit' >> {logrotate}"])
    assert set(carry_out(node, "BootUnit")["files"]) == {UNIT}
    carry_out(node, "BootUnit", wanted=False)
    assert "# an edit" in read(node, logrotate)
    node.run(["rm", logrotate, "/var/lib/dpkg/info/cnictl.list"])
    carry_out(node, "BootUnit")
    assert "/var/log/cnictl" in read(node, logrotate)


_THERE_AND_BACK = """
for one, other in ((before, after), (after, before)):
    resource.carry_out(Change(resource.id, one, other, "", ""))
after = before
"""


def test_an_earlier_releases_unit_comes_back_enabled_as_it_was(node: Node) -> None:
    node.run(["mkdir", "-p", "/run/systemd/system", "/etc/systemd/system", "/etc/logrotate.d"])
    carry_out(node, "BootUnit")
    node.run(["sed", "-i", "s/^WantedBy=.*/WantedBy=multi-user.target/", UNIT])
    node.run(["sh", "-c", "rm -r /etc/systemd/system/[!m]*.wants"])
    before = node.run(["find", "/etc"]).stdout
    assert carry_out(node, "BootUnit", around=_THERE_AND_BACK)["enabled"]
    assert node.run(["find", "/etc"]).stdout == before


def test_unit_of_an_earlier_release_that_starts_a_users_environment_is_replaced(node: Node) -> None:
    node.run(["mkdir", "-p", "/run/systemd/system", "/etc/systemd/system", "/home/user/venv/bin"])
    carry_out(node, "BootUnit")
    node.run(["cp", "/usr/local/bin/cnictl", "/home/user/venv/bin/cnictl"])
    node.run(["sed", "-i", "s#^ExecStart=.*#ExecStart=/home/user/venv/bin/cnictl apply#", UNIT])
    assert "/home" not in carry_out(node, "BootUnit")["files"][UNIT]
    assert "/home" not in read(node, UNIT)


def test_without_systemd_and_logrotate_nothing_is_written(node: Node) -> None:
    assert carry_out(node, "BootUnit") is None
    assert not there(node, "/etc/systemd")
