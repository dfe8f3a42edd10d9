"""Configurations for tests of their parser."""

from collections.abc import Iterable
from typing import Any

from cnictl.core.conf.netconf import NetConf
from cnictl.core.conf.network import parse_conf

WALK_THROUGH: dict[str, Any] = {
    "cniVersion": "0.4.0",
    "name": "mynet",
    "type": "cnictl-bridge",
    "network": "10.244.0.0/20",
    "subnet": "10.244.0.0/24",
}


HOST_LOCAL: dict[str, Any] = {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24"}]]}


def conf(**keys: Any) -> NetConf:
    return parse_conf({**WALK_THROUGH, **keys})


def with_ipam(**keys: Any) -> NetConf:
    """Return a conf in the reference's form: its only subnet is that of `ipam`."""
    return parse_conf({"cniVersion": "1.0.0", "name": "other", "type": "cnictl-bridge", "ipam": {**HOST_LOCAL, **keys}})


def shown(values: Iterable[object]) -> list[str]:
    return [str(value) for value in values]
