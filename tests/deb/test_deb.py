"""Install, upgrade, remove and purge the Debian packages with dpkg on a bare Debian.

`make deb-test` builds the packages first. CNICTL_DEB names the folder that `tests.deb.trees` filled. Without it the
tests are skipped, because building takes minutes and needs Debian's mirror.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deb.machine import Machine, machine
from tests.deb.trees import LATER, LINTIAN, PACKAGES
from tests.waiting import wait_for

TREES = Path(os.environ.get("CNICTL_DEB", ""))
PODS = int(os.environ.get("CNICTL_PODS", "100"))
LOGROTATE = "/etc/logrotate.d/cnictl"
KEPT = "/var/lib/cnictl-removed"

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not os.environ.get("CNICTL_DEB"), reason="`make deb-test` builds the packages and tests them"),
]


@pytest.fixture
def host() -> Iterator[Machine]:
    """A bare Debian."""
    with machine(TREES) as bare:
        yield bare


@pytest.fixture
def node(host: Machine) -> Machine:
    """A node that was set up with the package, and has `PODS` pods."""
    host.install(PACKAGES)
    host.init()
    host.pods("ADD", 1, PODS)
    return host


def test_lintian_finds_nothing_without_an_override() -> None:
    tags = (TREES / LINTIAN).read_text(encoding="utf-8").splitlines()
    assert [line for line in tags if re.match(r"[EW]:", line)] == []


def test_an_installation_changes_no_network_and_starts_nothing(host: Machine) -> None:
    network, files = host.network(), host.files()
    said = host.install(PACKAGES)
    assert "cnictl: this node" not in said
    assert host.network() == network
    assert host.state() == "ii"
    assert host.run("find /etc/systemd -name 'cnictl*'; find /var/lib/systemd -name 'cnictl*' -path '*wants*'") == ""
    new = {re.split(r" +", line)[-1] for line in set(host.files()) - set(files)}
    new = {path for path in new if not path.startswith("/usr/lib/cnictl")}
    assert new == {"/usr/bin/cnictl", LOGROTATE, "/lib/systemd/system/cnictl-watch.service"}


def test_the_installed_program_takes_only_the_packages_modules(host: Machine) -> None:
    host.install(PACKAGES)
    host.run("mkdir -p /usr/local/lib/python3.11/dist-packages; echo 'raise SystemExit(9)' > "
             "/usr/local/lib/python3.11/dist-packages/typer.py")  # fmt: skip
    assert host.run("cd /tmp; echo 'raise SystemExit(9)' >rich.py; PYTHONPATH=/tmp cnictl --version").startswith(
        "cnictl "
    )
    assert host.run("find /usr/lib/cnictl/site/cnictl -name '*.pyc' | wc -l").strip() not in ("", "0")
    before = host.run("find /usr/lib/cnictl | sort")
    host.run("cnictl --help")
    assert host.run("find /usr/lib/cnictl | sort") == before, "bytecode was not written at the installation"
    assert host.run("dpkg --verify cnictl") == ""


def test_every_command_has_a_page_and_shells_complete(host: Machine) -> None:
    host.install(PACKAGES)
    pages = set(host.run("ls /usr/share/man/man1").split())
    assert {"cnictl.1.gz", "cnictl-init-node.1.gz", "cnictl-plugin-use.1.gz"} <= pages
    script = (
        ". /usr/share/bash-completion/completions/cnictl; COMP_WORDS=(cnictl plug); COMP_CWORD=1; "
        "_cnictl cnictl; echo ${COMPREPLY[*]}"
    )
    assert host.run(f"bash -c '{script}'").split() == ["plugin"]


def test_zsh_completes_at_the_first_tab(host: Machine) -> None:
    host.install(PACKAGES)
    script = """
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'autoload -U compinit; compinit -u; print read''y'
zpty -r shell out '*ready*'
zpty -w -n shell $'cnictl plugin un\\t'
zpty -r shell out '*uninstall*'
"""
    host.run(f"cat >/tmp/keys <<'EOF'{script}EOF\ntimeout 60 zsh /tmp/keys")


def test_units_of_a_running_systemd_keep_their_version_and_stop_at_a_removal() -> None:
    with machine(TREES, booted=True) as host:
        host.install(PACKAGES)
        assert host.try_to("systemctl is-enabled cnictl-watch").stdout == "disabled\n"
        host.init()
        host.pods("ADD", 1, 3)
        host.run("systemctl start cnictl; systemctl enable --now cnictl-watch")
        pid = host.run("systemctl show --value -p MainPID cnictl-watch")
        with host.all_answer(host.addresses(3)):
            host.install(LATER)
            assert host.run("systemctl show --value -p MainPID cnictl-watch") == pid
            host.run("nft delete table inet cnictl")
            wait_for(lambda: "mynet" in host.try_to("nft list table inet cnictl").stdout, "watch has repaired it", 30)
            host.run("cnictl plugin install; systemctl try-restart cnictl-watch; systemctl is-active cnictl-watch")
            host.run("apt-get remove -y cnictl")
            assert host.try_to("systemctl is-active cnictl-watch").stdout != "active\n"
            host.run("systemctl restart cnictl")
        host.pods("DEL", 1, 3)
        host.run("dpkg --purge cnictl")
        assert host.run("find /etc/systemd /usr/local/lib -name '*cnictl*'") == ""


def test_an_upgrade_under_pods_loses_no_ping_and_leaves_the_plugin(node: Machine) -> None:
    addresses = node.addresses(PODS)
    former = node.json("cnictl plugin list -o json")["current"]
    network = node.network()
    with node.all_answer(addresses):
        said = node.install(LATER)
        assert "cnictl plugin install" in said
        assert node.network() == network
        listed = node.json("cnictl plugin list -o json")
        assert (listed["current"], listed["cnictl_is_newer"]) == (former, True)
        status = node.try_to("cnictl status")
        assert status.returncode == 0, status
        assert "newer than the plugin: cnictl plugin install" in status.stdout
        assert f"/{former}/" in node.run("readlink -f /usr/local/lib/cnictl/cli/current/cnictl")
        node.run("cnictl plugin install")
        listed = node.json("cnictl plugin list -o json")
        assert listed["current"].startswith("9.")
        assert not listed["cnictl_is_newer"]
        node.pods("CHECK", 1, 10)
        node.pods("ADD", PODS + 1, PODS + 5)
        node.run(f"cnictl plugin use {former}")
        node.pods("CHECK", PODS + 1, PODS + 5)
        node.pods("DEL", PODS + 1, PODS + 5)
    node.run("cnictl status")


def test_a_removal_leaves_pods_plugin_and_boot_unit(node: Machine) -> None:
    network = node.network()
    with node.all_answer(node.addresses(PODS)):
        node.run("apt-get remove -y cnictl")
        assert node.state() == "rc"
        assert node.network() == network
        node.pods("ADD", PODS + 1, PODS + 2)
        node.pods("DEL", PODS + 1, PODS + 2)
        node.run("/usr/local/lib/cnictl/cli/current/cnictl apply")
        assert node.run("readlink /etc/systemd/system/multi-user.target.wants/cnictl.service").endswith(
            "cnictl.service\n"
        )
    with node.all_answer(node.addresses(PODS)):
        node.install(PACKAGES)
        assert not node.run(f"ls -d {KEPT} 2>/dev/null || true")
        assert node.try_to("cnictl status").returncode == 0


@pytest.mark.parametrize("first", ["purge", "remove"])
def test_a_purge_refuses_while_pods_live_and_can_be_repeated(host: Machine, first: str) -> None:
    network, files = host.network(), host.files()
    host.install(PACKAGES)
    host.init()
    host.pods("ADD", 1, 5)
    addresses = host.addresses(5)
    with host.all_answer(addresses):
        if first == "remove":
            host.run("apt-get remove -y cnictl")
        for _ in range(2):
            refused = host.try_to("apt-get purge -y cnictl 2>&1 || dpkg --purge cnictl 2>&1")
            assert refused.returncode != 0
            assert "cnictl: not purged: this node could not be reset" in refused.stdout, refused.stdout
            assert "then: dpkg --purge cnictl" in refused.stdout
            assert host.state().startswith("pc") or host.state().startswith("rc")
            host.pods("CHECK", 1, 5)
    host.pods("DEL", 1, 5)
    host.run("dpkg --purge cnictl")
    assert host.state() in ("", "un")
    host.run("for i in 1 2 3 4 5; do ip netns delete p$i; done")
    assert host.files() == files
    assert host.network() == network


def test_a_refused_purge_names_the_command_that_detaches(host: Machine) -> None:
    host.install(PACKAGES)
    host.init()
    host.pods("ADD", 1, 2)
    refused = host.try_to("dpkg --purge cnictl 2>&1")
    (hint,) = re.findall(r"detach them with (.*); then: (.*)", refused.stdout)
    for command in hint:
        host.run(command)
    assert host.state() in ("", "un")
    assert host.run("ip -o link show type bridge") == ""


def test_a_purge_of_a_package_that_was_never_used_leaves_nothing(host: Machine) -> None:
    network, files = host.network(), host.files()
    host.install(PACKAGES)
    host.run("apt-get purge -y cnictl")
    assert host.state() in ("", "un")
    assert host.files() == files
    assert host.network() == network


def test_a_purge_of_a_node_that_lost_its_copy_says_what_to_do(host: Machine) -> None:
    host.install(PACKAGES)
    host.init()
    host.run("apt-get remove -y cnictl")
    host.run(f"rm -r {KEPT}")
    refused = host.try_to("dpkg --purge cnictl 2>&1")
    assert refused.returncode != 0
    assert "install cnictl again, run cnictl reset-node" in refused.stdout
    host.install(PACKAGES)
    host.run("cnictl reset-node --yes")
    host.run("apt-get purge -y cnictl")
    assert host.state() in ("", "un")


def test_a_reset_keeps_the_packages_files(host: Machine) -> None:
    host.install(PACKAGES)
    files = host.files()
    host.init()
    assert host.try_to("cnictl status").returncode == 0
    host.run("cnictl reset-node --yes")
    assert host.files() == files
    assert host.run("dpkg --verify cnictl") == ""


def test_the_package_takes_over_from_another_installation(host: Machine) -> None:
    """The package must own the logrotate file that the other installation wrote."""
    host.run(f"mkdir -p /opt/venv; dpkg-deb -x /packages/{PACKAGES}/cnictl_*.deb /opt/venv; rm /opt/venv{LOGROTATE}")
    host.run("cp -a /opt/venv/usr/lib/cnictl /usr/lib/; cp /opt/venv/usr/bin/cnictl /usr/local/bin/")
    host.init()
    assert host.run(f"cat {LOGROTATE}")
    host.run("rm -r /usr/local/bin/cnictl /usr/lib/cnictl")
    host.install(PACKAGES)
    assert host.try_to("cnictl status").returncode == 0
    host.run("cnictl reset-node --yes")
    assert host.run("dpkg --verify cnictl") == ""


def test_kubernetes_needs_its_own_package(host: Machine) -> None:
    host.install(PACKAGES)
    without = host.try_to("cnictl init-node --from kubernetes")
    assert without.returncode == 2
    assert "apt install ./cnictl-kubernetes_*.deb" in without.stderr
    host.run(f"cd /packages/{PACKAGES}; apt install -y ./cnictl-kubernetes_*.deb")
    with_it = host.try_to("cnictl init-node --from kubernetes")
    assert with_it.returncode in (1, 2)
    assert "is not installed" not in with_it.stderr
    assert "a bug in cnictl" not in with_it.stderr, with_it.stderr
    assert "kubeconfig" in with_it.stderr, with_it.stderr
