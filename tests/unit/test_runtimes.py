"""The plugin and configuration folders of runtimes, read from their own configurations."""

import os
import tomllib
from pathlib import Path

import pytest

from cnictl.node.host import runtime_processes, runtimes
from cnictl.node.host.runtime_processes import Process
from cnictl.node.host.runtimes import Runtime

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
    for runtime in (first, second, third):
        assert runtime is not None
        assert (runtime.bin_dirs, runtime.conf_dir, runtime.needs_loopback) == (("/a",), "/b", True)


def test_containerd_without_cni_configuration_uses_upstreams_folders() -> None:
    runtime = containerd("version = 2")
    assert runtime is not None
    assert (runtime.bin_dirs, runtime.conf_dir) == (("/opt/cni/bin",), "/etc/cni/net.d")


def test_containerd_with_disabled_cri_is_ignored() -> None:
    assert containerd('disabled_plugins = ["cri"]') is None
    assert containerd('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]') is None


def test_containerd_with_an_internal_loopback_needs_no_plugin_for_it() -> None:
    runtime = containerd('version = 3\n[plugins."io.containerd.cri.v1.runtime".cni]\nuse_internal_loopback = true')
    assert runtime is not None
    assert not runtime.needs_loopback


def test_crio_reads_its_drop_ins_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "crio.conf").write_text('[crio.network]\nnetwork_dir = "/n1/"\nplugin_dirs = ["/p1/", "/p2"]')
    (tmp_path / "90-last.conf").write_text('[crio.network]\nnetwork_dir = "/n2/"')
    monkeypatch.setattr(runtimes, "CRIO_CONFIG", str(tmp_path / "crio.conf"))
    monkeypatch.setattr(runtimes, "CRIO_DROP_INS", str(tmp_path / "9*.conf"))
    runtime = runtimes.crio()
    assert runtime is not None
    assert (runtime.bin_dirs, runtime.conf_dir, runtime.settled) == (("/p1", "/p2"), "/n2", True)


def test_podman_counts_only_if_it_names_its_own_folders() -> None:
    assert runtimes.podman_runtime({}, "test") is None
    netavark = {"network": {"network_backend": "netavark", "network_config_dir": "/x"}}
    assert runtimes.podman_runtime(netavark, "test") is None
    runtime = runtimes.podman_runtime({"network": {"cni_plugin_dirs": ["/p/"], "network_config_dir": "/c"}}, "test")
    assert runtime is not None
    assert (runtime.bin_dirs, runtime.conf_dir, runtime.needs_loopback) == (("/p",), "/c", False)


def test_an_invalid_configuration_file_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.toml").write_text("version = = 2")
    monkeypatch.setattr(runtimes, "CONTAINERD_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("PATH", str(tmp_path))
    runtime = runtimes.containerd()
    assert runtime is not None
    assert (runtime.bin_dirs, runtime.settled) == (("/opt/cni/bin",), True)


def test_the_launcher_is_installed_where_each_configured_runtime_looks_first() -> None:
    configured = (
        Runtime("a", ("/a", "/common"), "/etc/a", "test"),
        Runtime("b", ("/b",), "/etc/b", "test"),
        Runtime("c", ("/c",), "/etc/c", "test", settled=False),
    )
    assert runtimes.bin_dirs(configured) == ("/a", "/b")
    assert runtimes.conf_dirs(configured) == ("/etc/a", "/etc/b")


def test_without_a_runtime_the_launcher_is_in_both_writable_usual_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = (str(tmp_path / "opt"), "/proc/sys/no-such")
    monkeypatch.setattr(runtimes, "DEFAULT_BIN_DIRS", usual)
    assert runtimes.bin_dirs(()) == usual[:1]
    assert runtimes.conf_dirs(()) == ("/etc/cni/net.d",)


def test_debians_containerd_gets_its_own_folder() -> None:
    runtime = containerd(DEBIAN)
    assert runtime is not None
    assert runtimes.bin_dirs((runtime,)) == ("/usr/lib/cni",)


@pytest.mark.parametrize(
    "words",
    [
        "--config /a",
        "-c /a",
        "--config=/a",
        "-c=/a",
        "-config /a",
        "--log-level x --config /b --config /a",
        "-c /a -- -c /b",
    ],
)
def test_a_command_lines_option_is_read_in_each_spelling(words: str) -> None:
    assert runtime_processes.option(["containerd", *words.split()], ("--config", "-c")) == "/a"


def test_a_containerd_reads_what_its_configuration_imports(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "config.toml").write_text(f"version = 2\nimports = ['more/*.toml', '{tmp_path}/last.toml']\n{CNI}")
    (tmp_path / "more" / "one.toml").write_text(f"version = 2\nimports = ['../config.toml']\n{CNI}".replace("/b", "/c"))
    (tmp_path / "last.toml").write_text('[plugins."io.containerd.grpc.v1.cri".cni]\nconf_dir = "/d"')
    runtime = runtimes.containerd_runtime(runtimes.with_imports(str(tmp_path / "config.toml")), "test")
    assert runtime is not None
    assert (runtime.bin_dirs, runtime.conf_dir) == (("/c",), "/d")


CNI = '[plugins."io.containerd.grpc.v1.cri".cni]\nbin_dir = "/b"\n'


def process(name: str, *words: str, root: str = "/", **environment: str) -> Process:
    given = tuple(f"{key}={value}" for key, value in environment.items())
    return Process(os.getpid(), name, (name, *words), "/", root, given)


def started(monkeypatch: pytest.MonkeyPatch, candidate: Process) -> list[Runtime]:
    monkeypatch.setattr(runtime_processes, "running", lambda *_: iter([candidate]))
    return runtimes.started()


def test_command_line_of_crio_precedes_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "crio.conf").write_text('[crio.network]\nnetwork_dir = "/n1"\nplugin_dirs = ["/p1"]')
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "10").write_text('[crio.network]\nnetwork_dir = "/n2"')
    files = ("--config", f"{tmp_path}/crio.conf", f"--config-dir={tmp_path}/d")
    (runtime,) = started(monkeypatch, process("crio", *files))
    assert (runtime.bin_dirs, runtime.conf_dir) == (("/p1",), "/n2")
    (runtime,) = started(monkeypatch, process("crio", *files, "--cni-config-dir", "/n3", "--cni-plugin-dir=/p3"))
    assert (runtime.bin_dirs, runtime.conf_dir) == (("/p3",), "/n3")
    (runtime,) = started(monkeypatch, process("crio", CONTAINER_CNI_CONFIG_DIR="/n4"))
    assert runtime.conf_dir == "/n4"


def test_dockers_cni_folders_are_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--network-plugin=cni", "--cni-bin-dir=/p,/q", "--cni-conf-dir", "/n")
    (runtime,) = started(monkeypatch, process("cri-dockerd", *words))
    assert (runtime.name, runtime.bin_dirs, runtime.conf_dir) == ("cri-dockerd", ("/p", "/q"), "/n")
    assert started(monkeypatch, process("kubelet", "--config=/var/lib/kubelet/config.yaml")) == []


def test_folders_of_a_runtime_with_another_root_are_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--network-plugin=cni", "--cni-bin-dir=/p")
    (runtime,) = started(monkeypatch, process("cri-dockerd", *words, root="/jail"))
    assert (runtime.bin_dirs, runtime.conf_dir) == (("/jail/p",), "/jail/etc/cni/net.d")


def test_a_distributions_containerd_is_known_before_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.toml").write_text(CNI)
    monkeypatch.setattr(runtimes, "CONTAINERDS", {"k3s": str(tmp_path / "config.toml"), "k0s": "/nowhere"})
    (runtime,) = [known for known in runtimes._of_distributions() if known is not None]
    assert (runtime.name, runtime.bin_dirs, runtime.settled) == ("containerd of k3s", ("/b",), True)


def test_nerdctl_counts_if_it_names_its_own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "NERDCTL_CONFIG", str(tmp_path / "nerdctl.toml"))
    assert runtimes.nerdctl() is None
    (tmp_path / "nerdctl.toml").write_text('cni_path = "/p"\ncni_netconfpath = "/n"')
    runtime = runtimes.nerdctl()
    assert runtime is not None
    assert (runtime.bin_dirs, runtime.conf_dir) == (("/p",), "/n")


def test_a_runtime_that_reads_another_folder_is_named() -> None:
    runtime = Runtime("containerd", ("/a",), "/n", "/x.toml (process 7)")
    assert runtimes.unread((runtime,), ["/a"], ["/n"]) == []
    assert runtimes.unread((runtime,), [], []) == []
    assert [name for name, _ in runtimes.unread((runtime,), ["/b"], ["/m"])] == ["containerd", "containerd"]
