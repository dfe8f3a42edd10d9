"""Where runtimes look, read from their own configurations."""

import tomllib
from pathlib import Path

import pytest

from cnictl.node import runtimes
from cnictl.node.runtimes import Runtime

DEBIAN = """
version = 2
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "/etc/cni/net.d"
"""


def containerd(text: str) -> Runtime | None:
    return runtimes.containerd_runtime(tomllib.loads(text), "test")


def test_containerd_names_its_folders_in_every_configuration_version() -> None:
    first = containerd('[plugins.cri.cni]\nbin_dir = "/a"\nconf_dir = "/b"')
    second = containerd('version = 2\n[plugins."io.containerd.grpc.v1.cri".cni]\nbin_dir = "/a"\nconf_dir = "/b"')
    third = containerd('version = 3\n[plugins."io.containerd.cri.v1.runtime".cni]\nbin_dirs = ["/a"]\nconf_dir = "/b"')
    for found in (first, second, third):
        assert found is not None
        assert (found.bin_dirs, found.conf_dir, found.needs_loopback) == (("/a",), "/b", True)


def test_containerd_without_a_word_on_cni_uses_upstreams_folders() -> None:
    found = containerd("version = 2")
    assert found is not None
    assert (found.bin_dirs, found.conf_dir) == (("/opt/cni/bin",), "/etc/cni/net.d")


def test_containerd_with_its_cri_disabled_is_no_runtime_of_ours() -> None:
    assert containerd('disabled_plugins = ["cri"]') is None
    assert containerd('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]') is None


def test_containerd_with_an_internal_loopback_needs_no_plugin_for_it() -> None:
    found = containerd('version = 3\n[plugins."io.containerd.cri.v1.runtime".cni]\nuse_internal_loopback = true')
    assert found is not None
    assert not found.needs_loopback


def test_crio_reads_its_drop_ins_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "crio.conf").write_text('[crio.network]\nnetwork_dir = "/n1/"\nplugin_dirs = ["/p1/", "/p2"]')
    (tmp_path / "90-last.conf").write_text('[crio.network]\nnetwork_dir = "/n2/"')
    monkeypatch.setattr(runtimes, "CRIO_CONFIG", str(tmp_path / "crio.conf"))
    monkeypatch.setattr(runtimes, "CRIO_DROP_INS", str(tmp_path / "9*.conf"))
    found = runtimes.crio()
    assert found is not None
    assert (found.bin_dirs, found.conf_dir, found.settled) == (("/p1", "/p2"), "/n2", True)


def test_podman_counts_only_where_it_names_folders_of_its_own() -> None:
    assert runtimes.podman_runtime({}, "test") is None
    netavark = {"network": {"network_backend": "netavark", "network_config_dir": "/x"}}
    assert runtimes.podman_runtime(netavark, "test") is None
    found = runtimes.podman_runtime({"network": {"cni_plugin_dirs": ["/p/"], "network_config_dir": "/c"}}, "test")
    assert found is not None
    assert (found.bin_dirs, found.conf_dir, found.needs_loopback) == (("/p",), "/c", False)


def test_a_broken_configuration_file_counts_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.toml").write_text("version = = 2")
    monkeypatch.setattr(runtimes, "CONTAINERD_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("PATH", str(tmp_path))
    found = runtimes.containerd()
    assert found is not None
    assert (found.bin_dirs, found.settled) == (("/opt/cni/bin",), True)


def test_the_launcher_goes_where_each_runtime_that_is_set_up_looks_first() -> None:
    found = (
        Runtime("a", ("/a", "/common"), "/etc/a", "test"),
        Runtime("b", ("/b",), "/etc/b", "test"),
        Runtime("c", ("/c",), "/etc/c", "test", settled=False),
    )
    assert runtimes.bin_dirs(found) == ("/a", "/b")
    assert runtimes.conf_dirs(found) == ("/etc/a", "/etc/b")


def test_without_a_runtime_both_usual_folders_that_can_be_written_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = (str(tmp_path / "opt"), "/proc/sys/no-such")
    monkeypatch.setattr(runtimes, "DEFAULT_BIN_DIRS", usual)
    assert runtimes.bin_dirs(()) == usual[:1]
    assert runtimes.conf_dirs(()) == ("/etc/cni/net.d",)


def test_debians_containerd_is_served_in_its_own_folder() -> None:
    found = containerd(DEBIAN)
    assert found is not None
    assert runtimes.bin_dirs((found,)) == ("/usr/lib/cni",)
