"""Any configuration, result, environment or file gives a usable value or an error that follows the specification."""

import os
import posix
import tempfile
from pathlib import Path

import pytest
from cnictl_plugin.environment import Call, read_environment
from cnictl_plugin.ipam_result import parse_ipam_result
from hypothesis import given
from hypothesis import strategies as st

from cnictl.core import attachments, jsontext
from cnictl.core.cidr import parse_address, parse_interface
from cnictl.core.conf.netconf import NetConf
from cnictl.core.conf.network import interface_name_fault, parse_conf
from cnictl.core.errors import CniError
from cnictl.core.leases.lease import parse_owner
from cnictl.core.leases.lease_store import Store
from cnictl.core.result import SUPPORTED_VERSIONS, objects, shape
from tests.faults import inputs

REFUSED = {1, 2, 4, 6, 7, 101}


def sane(error: CniError) -> None:
    """Check that an error has a code of the specification and one line of readable length."""
    assert error.code in REFUSED, error.code
    assert error.message and len(error.message) < 1000
    jsontext.dumps({"msg": error.message, "details": error.hint})


def fit(conf: NetConf) -> None:
    """Check what the rest of the plugin relies on."""
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
        for span in ranges.ranges:
            assert span.subnet.holds(span.gateway) and span.subnet.first <= span.start <= span.end <= span.subnet.last
    for route in conf.routes:
        assert route.gateway == b"" or len(route.gateway) == len(route.destination.packed)
    jsontext.dumps(conf.dns)


@inputs.bounded(400)
@given(conf=inputs.confs())
def test_any_configuration_is_valid_or_refused(conf: bytes) -> None:
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
def test_any_result_is_passed_on_or_refused(previous: object, version: str) -> None:
    try:
        document = jsontext.loads(inputs.document(previous))
        interfaces, ips = objects(document, "interfaces", "name"), objects(document, "ips", "address")
        routes = objects(document, "routes", "dst")
    except jsontext.JsonError as error:
        assert str(error)
        return
    except CniError as error:
        sane(error)
        return
    jsontext.dumps(shape(version, interfaces, ips, routes, document.get("dns")))


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


@inputs.bounded(200)
@given(answer=inputs.results | inputs.results_0_2)
def test_any_answer_of_an_ipam_plugin_is_used_or_refused(answer: object) -> None:
    try:
        document = jsontext.loads(inputs.document(answer))
        if not isinstance(document, dict):
            return
        told = parse_ipam_result(document, "theirs")
    except jsontext.JsonError as error:
        assert str(error)
        return
    except CniError as error:
        sane(error)
        return
    assert told["ips"]
    for ip in told["ips"]:
        assert parse_interface(ip["address"])
    jsontext.dumps(told)


records = st.fixed_dictionaries({}, optional=dict.fromkeys(attachments._FIELDS, inputs.anything)) | inputs.anything


@inputs.bounded(150)
@given(record=records.map(inputs.document) | st.binary(max_size=80))
def test_valid_parts_of_any_record_are_read(record: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(attachments, "ATTACHMENTS_DIR", folder)
        os.mkdir(f"{folder}/mynet")
        Path(folder, "mynet", "c1@eth0").write_bytes(record)
        parsed = attachments.read("mynet", "c1", "eth0")
    if parsed is None:
        said = jsontext.loads(record)
        assert isinstance(said, dict)  # the file has another attachment's record, as in an editor's copy
        own = {"network": "mynet", "container": "c1", "ifname": "eth0"}
        assert any(isinstance(said.get(key), str) and said[key] != value for key, value in own.items())
        return
    fresh = attachments.Record("mynet", "c1", "eth0")
    assert all(type(getattr(parsed, field)) is type(getattr(fresh, field)) for field in attachments._FIELDS)
    assert (parsed.network, parsed.container, parsed.ifname) == ("mynet", "c1", "eth0")
    assert all(parse_address(address) for address in parsed.addresses)
    assert all(isinstance(subnet, str) for subnet in parsed.masqueraded)


@inputs.bounded(200)
@given(content=st.binary(max_size=300) | inputs.names.map(os.fsencode))
def test_any_lease_names_a_valid_owner_or_none(content: bytes) -> None:
    container, ifname = parse_owner(content)
    assert container or not ifname
    assert len(f"{container}@{ifname}".encode()) <= 255
    assert container[:1] != "." and not set("/\0\n") & set(container + ifname)


@inputs.bounded(200)
@given(content=st.binary(max_size=40) | st.integers().map(lambda number: str(number).encode()))
def test_any_wrong_claim_mark_counts_as_missing(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(attachments, "ATTACHMENTS_DIR", f"{folder}/records")
        patch.setattr(attachments, "SPARE_ATTACHMENTS_DIR", f"{folder}/spare")
        for place in ("records/mynet", "networks/mynet"):
            os.makedirs(f"{folder}/{place}")
        store = Store("mynet", f"{folder}/networks")
        mark = Path(attachments.claim_mark("mynet"))
        mark.write_bytes(content)
        assert not store._claimed()
        mark.write_text(str(os.stat(store.folder).st_mtime_ns))
        assert store._claimed()
