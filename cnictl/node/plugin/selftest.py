"""Test an installed plugin: call VERSION, ADD, CHECK and DEL through its launcher, as a runtime does.

This happens in a scratch network and mount namespace: the host sees no bridge, lease, record or log line.
"""

import json
import os
from typing import Any

from cnictl.core import programs
from cnictl.core.errors import Problem
from cnictl.core.paths import NETWORKS_DIR, PLUGIN_LOG, RUN_DIR, STATE_DIR
from cnictl.core.process import run
from cnictl.node.host import scratch

PRIVATE_PATHS = (os.path.dirname(NETWORKS_DIR), STATE_DIR, RUN_DIR, os.path.dirname(PLUGIN_LOG))

_CONF: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "cnictl-selftest",
    "type": "cnictl-bridge",
    "bridge": "cnictl-test0",
    "subnet": "198.18.0.0/29",  # for tests of network devices (RFC 2544), never a pod network's
    "network": "198.18.0.0/29",
}


def check(launcher: str) -> None:
    """Test a launcher. Raises Problem with the verb that failed and the plugin's message."""
    scratch.attempt(lambda: _life_of_a_pod(launcher), PRIVATE_PATHS)


def _life_of_a_pod(launcher: str) -> None:
    versions = _call(launcher, "VERSION", "", {"cniVersion": _CONF["cniVersion"]})
    if _CONF["cniVersion"] not in versions.get("supportedVersions", []):
        raise Problem(f"self-test of {launcher}: VERSION doesn't offer {_CONF['cniVersion']}: {versions}")
    with scratch.second_netns() as netns:
        result = _call(launcher, "ADD", netns, _CONF)
        if not result.get("ips"):
            raise Problem(f"self-test of {launcher}: ADD gave no address: {result}")
        attached = {**_CONF, "prevResult": result}
        _call(launcher, "CHECK", netns, attached)
        _call(launcher, "DEL", netns, attached)
    address = result["ips"][0]["address"].partition("/")[0]
    if os.path.exists(f"{NETWORKS_DIR}/{_CONF['name']}/{address}"):
        raise Problem(f"self-test of {launcher}: DEL left the lease of {address}")


def _call(launcher: str, verb: str, netns: str, conf: dict[str, Any]) -> dict[str, Any]:
    environment = [
        f"PATH={programs.path()}",
        f"CNI_COMMAND={verb}",
        "CNI_CONTAINERID=cnictl-selftest",
        f"CNI_NETNS={netns}",
        "CNI_IFNAME=eth0",
        f"CNI_PATH={os.path.dirname(launcher)}",
    ]
    done = run(["env", "-i", *environment, launcher], json.dumps(conf), timeout=20, check=False)
    try:
        answer = json.loads(done.stdout) if done.stdout.strip() else {}
    except ValueError:
        raise Problem(f"self-test of {launcher}: {verb} returned invalid JSON: {done.stdout[:200]!r}") from None
    if done.status != 0:
        message = answer.get("msg") or done.stderr.strip()[-300:] or f"exit status {done.status}"
        raise Problem(f"self-test of {launcher}: {verb}: {message}", str(answer.get("details", "")))
    return dict(answer)
