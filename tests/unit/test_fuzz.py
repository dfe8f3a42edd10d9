"""Any configuration, result and environment: a value that is fit for use, or an error by the specification."""

import os
import posix

import pytest
from cnictl_plugin.environment import Call, read_environment
from hypothesis import given
from hypothesis import strategies as st

from cnictl.core import jsontext
from cnictl.core.conf import NetConf, interface_name_fault, parse_conf
from cnictl.core.errors import CniError
from cnictl.core.result import SUPPORTED_VERSIONS, objects, shape
from tests.faults import inputs

REFUSED = {1, 2, 4, 6, 7, 101}


def sane(error: CniError) -> None:
    """An error as its reader wants it: a code of the specification's, one line, of a length that can be read."""
    assert error.code in REFUSED, error.code
    assert error.msg and len(error.msg) < 1000
    jsontext.dumps({"msg": error.msg, "details": error.details})


def fit(conf: NetConf) -> None:
    """What the rest of the plugin relies on."""
    assert conf.name and "/" not in conf.name and conf.name[0] not in ".-@" and len(conf.name) <= 200
    assert interface_name_fault(conf.bridge) == ""
    assert conf.mtu == 0 or 68 <= conf.mtu <= 65535
    assert conf.data_dir.startswith("/") and "\0" not in conf.data_dir
    assert conf.log_file.startswith("/") and "\0" not in conf.log_file
    assert 0 <= conf.vlan <= 4094 and all(1 <= first <= last <= 4094 for first, last in conf.vlan_trunk)
    assert len(conf.mac) in (0, 6) and {len(packed) for packed in conf.wanted} <= {4, 16}
    assert "/" not in conf.ipam_type and conf.ipam_type not in (".", "..")
    for ranges in conf.sets:
        assert ranges.size > 0
        for one in ranges.ranges:
            assert one.subnet.holds(one.gateway) and one.subnet.first <= one.start <= one.end <= one.subnet.last
    for route in conf.routes:
        assert route.gateway == b"" or len(route.gateway) == len(route.destination.packed)
    jsontext.dumps(conf.dns)


@inputs.bounded(600)
@given(conf=inputs.confs())
def test_any_configuration_is_fit_for_use_or_refused(conf: bytes) -> None:
    try:
        parsed = parse_conf(jsontext.loads(conf))
    except jsontext.JsonError as error:
        assert str(error)
        return
    except CniError as error:
        sane(error)
        return
    fit(parsed)


@inputs.bounded(300)
@given(previous=inputs.results, version=st.sampled_from(SUPPORTED_VERSIONS))
def test_any_result_is_handed_on_or_refused(previous: object, version: str) -> None:
    try:
        found = jsontext.loads(inputs.document(previous))
        interfaces, ips = objects(found, "interfaces", "name"), objects(found, "ips", "address")
        routes = objects(found, "routes", "dst")
    except jsontext.JsonError as error:
        assert str(error)
        return
    except CniError as error:
        sane(error)
        return
    jsontext.dumps(shape(version, interfaces, ips, routes, found.get("dns")))


@inputs.bounded(300)
@given(
    verb=inputs.verbs | inputs.names,
    container=inputs.names,
    ifname=inputs.names,
    netns=inputs.names,
    args=inputs.cni_args,
)
def test_any_environment_names_files_and_links_or_is_refused(
    verb: str, container: str, ifname: str, netns: str, args: str
) -> None:
    given_out = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": container,
        "CNI_IFNAME": ifname,
        "CNI_NETNS": netns,
        "CNI_ARGS": args,
    }
    call = Call()
    with pytest.MonkeyPatch.context() as patch:
        for key, value in given_out.items():
            patch.setitem(posix.environ, os.fsencode(key), os.fsencode(value))
        try:
            read_environment(call)
        except CniError as error:
            sane(error)
            return
    if call.verb in ("ADD", "DEL", "CHECK"):
        assert len(os.fsencode(f"{call.container}@{call.ifname}")) <= 255
        assert "/" not in call.container + call.ifname and call.container[0] not in ".-@"
        assert interface_name_fault(call.ifname) == ""
        assert len(call.mac) in (0, 6)
