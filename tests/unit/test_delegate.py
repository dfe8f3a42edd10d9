"""Run IPAM plugins written in sh: their input, the handling of their output, and their failures."""

import json
import os
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cnictl_plugin import delegate
from cnictl_plugin.environment import Call

from cnictl.core.attachments import Record
from cnictl.core.errors import CniError
from tests.waiting import wait_for

Json = dict[str, Any]

RESULT: Json = {"cniVersion": "1.0.0", "ips": [{"address": "10.9.0.7/24", "gateway": "10.9.0.1"}]}
SAYS = f"echo '{json.dumps(RESULT)}'"
FAILS = """echo '{"cniVersion": "1.0.0", "code": 123, "msg": "no lease", "details": "try the other one"}'; exit 1"""


class Site:
    """A folder in CNI_PATH, a call, and the IPAM plugin `odd`, which records its calls in a diary."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.diary = folder / "diary"
        self.environ = {
            b"CNI_COMMAND": b"ADD",
            b"CNI_CONTAINERID": b"c1",
            b"CNI_IFNAME": b"eth0",
            b"CNI_NETNS": b"/run/netns/c1",
            b"CNI_ARGS": b"K=V",
            b"CNI_PATH": b"/nowhere::" + os.fsencode(folder) + b":/usr/bin",
            b"PATH": b"/usr/bin:/bin",
        }
        monkeypatch.setattr(delegate, "environ", self.environ)
        self.call = Call()
        self.call.plugin = "cnictl-bridge"
        self.call.stdin = json.dumps({"cniVersion": "1.1.0", "name": "net", "ipam": {"type": "odd"}}).encode()
        self.conf: Any = SimpleNamespace(ipam_type="odd", cni_version="1.1.0")

    def plugin(self, *, name: str = "odd", **verbs: str) -> None:
        """Write a plugin that runs a given script for each verb, and by default does nothing."""
        cases = "".join(f"{verb}) {script} ;;\n" for verb, script in verbs.items())
        path = self.folder / name
        path.write_text(
            f'#!/bin/sh\necho "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_NETNS" >>{self.diary}\n'
            f"case $CNI_COMMAND in\n{cases}esac\n"
        )
        path.chmod(0o755)

    @property
    def verbs(self) -> list[str]:
        """Return the verbs of the calls so far."""
        return [line.split()[0] for line in self.diary.read_text().splitlines()] if self.diary.exists() else []


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


def test_add_gives_its_addresses_and_passes_environment_stdin_and_stderr(
    site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    site.plugin(ADD=f"env >{site.folder}/env; cat >{site.folder}/stdin; echo a word >&2; {SAYS}")
    assert delegate.add(site.call, site.conf)["ips"] == RESULT["ips"]
    seen = dict(line.split("=", 1) for line in (site.folder / "env").read_text().splitlines())
    given = {key.decode(): value.decode() for key, value in site.environ.items()}
    assert {key: seen.get(key) for key in given} == given
    assert set(seen) - set(given) <= {"PWD", "OLDPWD", "SHLVL", "_"}  # variables that the shell sets
    assert (site.folder / "stdin").read_bytes() == site.call.stdin
    assert capfd.readouterr().err == "a word\n"
    assert site.verbs == ["ADD"]


def test_large_requests_and_answers_are_passed_completely(site: Site) -> None:
    site.call.stdin = json.dumps({"padding": "x" * 300_000}).encode()
    answer = json.dumps({**RESULT, "dns": {"search": ["y" * 100] * 4000}})
    (site.folder / "answer").write_text(answer)
    site.plugin(ADD=f"cat {site.folder}/answer; cat >{site.folder}/stdin")
    assert len(delegate.add(site.call, site.conf)["dns"]["search"]) == 4000
    assert (site.folder / "stdin").stat().st_size == len(site.call.stdin)


def test_the_first_of_its_name_in_cni_path_is_run(site: Site, tmp_path: Path) -> None:
    other = tmp_path / "first"
    (other / "odd").mkdir(parents=True)  # a folder of that name is not a plugin
    site.environ[b"CNI_PATH"] = os.fsencode(f"{other}:{tmp_path}")
    site.plugin(ADD=SAYS)
    delegate.add(site.call, site.conf)
    (other / "odd").rmdir()
    (other / "odd").write_text("#!/bin/sh\nexit 3\n")
    (other / "odd").chmod(0o755)
    with pytest.raises(CniError, match="exit status 3") as refused:
        delegate.add(site.call, site.conf)
    assert refused.value.code == 107 and f"{other}/odd" in refused.value.message


@pytest.mark.parametrize("kind", ["../odd", "a/b", "..", "o\0dd", "o\ndd", "cnictl-bridge"])
def test_invalid_plugin_name_is_refused(site: Site, kind: str) -> None:
    site.plugin(ADD=SAYS)
    site.conf.ipam_type = kind
    with pytest.raises(CniError, match=r"ipam\.type") as refused:
        delegate.add(site.call, site.conf)
    assert refused.value.code == 7 and site.verbs == []


def test_a_missing_plugin_is_reported_with_the_folders_searched(site: Site) -> None:
    with pytest.raises(CniError) as refused:
        delegate.add(site.call, site.conf)
    assert refused.value.code == 2
    assert all(part in refused.value.message for part in ("ipam.type", "'odd'", "CNI_PATH", str(site.folder)))


def test_error_of_the_plugin_is_passed_on_unchanged_after_its_del(site: Site) -> None:
    site.plugin(ADD=FAILS, DEL="echo broken; exit 1")
    with pytest.raises(CniError) as refused:
        delegate.add(site.call, site.conf)
    assert (refused.value.code, refused.value.message, refused.value.hint) == (123, "no lease", "try the other one")
    assert site.verbs == ["ADD", "DEL"]


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [
        ("exit 0", 107, "without a CNI result"),
        ("echo garbage", 107, "without a CNI result"),
        ("echo '[]'", 107, "without a CNI result"),
        ("printf '\\377\\000'", 107, "without a CNI result"),
        ("echo '{'; exit 2", 107, "exit status 2, without a CNI error"),
        (f"{SAYS}; exit 1", 107, "exit status 1, without a CNI error"),
        ("kill -9 $$", 107, "killed by signal 9"),
        ("""echo '{"code": "7", "msg": "x"}'; exit 1""", 107, "exit status 1"),
        ("""echo '{"code": 7, "msg": "x"}'""", 7, "x"),
        ("echo '{}'", 6, "no address"),
        ("exec cat /dev/zero", 107, "over 4 MiB"),
        ("head -c 5000000 /dev/zero", 107, "over 4 MiB"),
    ],
)
def test_each_way_to_answer_wrongly_is_one_error(site: Site, script: str, code: int, said: str) -> None:
    site.plugin(ADD=script)
    with pytest.raises(CniError, match=said) as refused:
        delegate.add(site.call, site.conf)
    assert refused.value.code == code
    assert site.verbs == ["ADD", "DEL"]


def test_plugin_that_cannot_be_started_is_reported(site: Site) -> None:
    (site.folder / "odd").write_text("no program\n")
    for mode, said in ((0o644, "Permission denied"), (0o755, "Exec format error")):
        (site.folder / "odd").chmod(mode)
        with pytest.raises(CniError, match=said) as refused:
            delegate.add(site.call, site.conf)
        assert refused.value.code == 107


def test_plugin_that_hangs_is_ended_with_its_children(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delegate, "ADD_WAIT", 2.0)  # time for the child to start, even on a busy machine
    site.plugin(ADD=f"sleep 1000 & echo $! >{site.folder}/child; wait")
    with pytest.raises(CniError, match="timed out and was killed") as refused:
        delegate.add(site.call, site.conf)
    assert refused.value.code == 107
    assert site.verbs == ["ADD", "DEL"]
    child = Path(f"/proc/{(site.folder / 'child').read_text().strip()}")
    wait_for(lambda: not child.exists() or "\nState:\tZ" in (child / "status").read_text(), "the child ends")


def test_a_child_that_keeps_stdout_open_delays_nobody(site: Site) -> None:
    site.plugin(ADD=f"{SAYS}; sleep 1000 & echo $! >{site.folder}/child")
    assert delegate.add(site.call, site.conf)["ips"] == RESULT["ips"]
    os.kill(int((site.folder / "child").read_text()), 9)


@pytest.mark.parametrize("verb", ["delete", "check", "collect", "status"])
def test_other_verbs_and_their_errors_are_passed_through(site: Site, verb: str) -> None:
    name = {"delete": "DEL", "check": "CHECK", "collect": "GC", "status": "STATUS"}[verb]
    listed = """echo '{"cniVersion": "1.1.0", "supportedVersions": ["1.0.0", "1.1.0"]}'"""
    site.plugin(VERSION=listed, **{name: "echo whatever"})
    run = partial(delegate.collect, valid=()) if verb == "collect" else getattr(delegate, verb)
    run(site.call, site.conf)
    assert site.verbs[-1] == name
    site.plugin(VERSION=listed, **{name: FAILS})
    with pytest.raises(CniError, match="no lease") as refused:
        run(site.call, site.conf)
    assert refused.value.code == 123


def test_gc_names_all_that_may_not_be_freed(site: Site) -> None:
    site.plugin(VERSION="exit 1", GC=f"cat >{site.folder}/stdin")
    delegate.collect(site.call, site.conf, {("c2", "eth0"), ("c1", "net1")})
    given = json.loads((site.folder / "stdin").read_text())
    valid = given.pop("cni.dev/valid-attachments")
    assert valid == [{"containerID": "c1", "ifname": "net1"}, {"containerID": "c2", "ifname": "eth0"}]
    assert given == json.loads(site.call.stdin)


def test_plugin_older_than_gc_and_status_is_not_called(site: Site) -> None:
    """Such a plugin would answer 'unknown CNI_COMMAND', and refuses every ADD with a 1.1.0 conf."""
    site.plugin(VERSION="""echo '{"cniVersion": "1.0.0", "supportedVersions": ["0.4.0", "1.0.0"]}'""")
    delegate.collect(site.call, site.conf, ())
    with pytest.raises(CniError, match=r"doesn't support cniVersion 1\.1\.0") as refused:
        delegate.status(site.call, site.conf)
    assert refused.value.code == 50
    assert site.verbs == ["VERSION", "VERSION"]


def test_plugin_without_a_version_answer_is_called(site: Site) -> None:
    site.plugin(VERSION="exit 1")
    delegate.collect(site.call, site.conf, ())
    delegate.status(site.call, site.conf)
    assert site.verbs == ["VERSION", "GC", "VERSION", "STATUS"]


def test_status_reports_a_missing_plugin(site: Site) -> None:
    with pytest.raises(CniError, match="CNI_PATH") as refused:
        delegate.status(site.call, site.conf)
    assert refused.value.code == 50


def test_an_abandoned_attachment_is_deleted_under_its_own_name(site: Site) -> None:
    site.plugin()
    record = Record("net", "other", "net1")
    record.netns, record.netns_dev, record.netns_ino = "/proc/self/ns/net", 1, 1
    delegate.forget(site.call, site.conf, record)
    there = os.stat(record.netns)
    record.netns_dev, record.netns_ino = there.st_dev, there.st_ino
    delegate.forget(site.call, site.conf, record)
    assert site.diary.read_text() == "DEL other net1 \nDEL other net1 /proc/self/ns/net\n"
