"""The plugin's files are installed, tested, switched and removed, on nodes with both usual plugin folders."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cnictl
from cnictl.core.process import Finished
from cnictl.lab.lab import Lab, Node

pytestmark = pytest.mark.once

LIB = "/usr/local/lib/cnictl"
LAUNCHERS = ("/opt/cni/bin/cnictl-bridge", "/usr/lib/cni/cnictl-bridge")
SOURCE = Path(cnictl.__file__).resolve().parent.parent
CALL_VERSION = 'echo \'{"cniVersion":"1.0.0"}\' | CNI_COMMAND=VERSION '

# another build of the same cnictl, as a developer or a second installation would have
COPY = f"""
set -e
mkdir /tmp/other
cp -r {SOURCE}/cnictl /tmp/other/cnictl
cp -r {SOURCE}/plugin /tmp/other/cnictl_plugin
cp -r {SOURCE}/conf /tmp/other/cnictl_conf
"""


@pytest.fixture
def node() -> Iterator[Node]:
    """A bare node with empty plugin folders."""
    with Lab(nodes=1) as lab:
        yield lab.nodes[0]


def run(node: Node, *words: str, check: bool = True) -> Finished:
    return node.run(["cnictl", "plugin", *words], check=check)


def run_other(node: Node, *words: str, check: bool = True) -> Finished:
    """Run `cnictl plugin …` of the build in /tmp/other."""
    program = "import sys; sys.path.insert(0, '/tmp/other'); from cnictl.cli.main import main; main()"
    return node.run([sys.executable, "-c", program, "plugin", *words], check=check)


def make_other(node: Node, change: str = "echo '# another build' >> /tmp/other/cnictl_plugin/log.py") -> None:
    node.run(["sh", "-c", COPY + change])


def versions(node: Node) -> dict[str, bool]:
    """Return the names of the installed versions and whether each is current."""
    listed = json.loads(run(node, "list", "-o", "json").stdout)
    return {item["version"]: item["current"] for item in listed["items"]}


def call(node: Node, launcher: str = LAUNCHERS[0]) -> dict[str, object]:
    answer: dict[str, object] = json.loads(node.run(["sh", "-c", CALL_VERSION + launcher], check=False).stdout)
    return answer


def tree(node: Node, *folders: str) -> str:
    there = [folder for folder in folders if node.run(["test", "-e", folder], check=False).status == 0]
    return node.run(["find", *there, "-xdev"]).stdout


RUNS = ("/var/lib/cnictl/journal", "/var/lib/cnictl/journal/000001.jsonl")
"""The runs that `cnictl history` lists."""


def test_install_fills_both_folders_and_its_test_leaves_nothing(node: Node) -> None:
    before = (node.run(["ip", "-j", "link"]).stdout, tree(node, "/var", "/etc"))
    assert "changed" in run(node, "install").stdout
    for launcher in LAUNCHERS:
        assert node.run(["stat", "-c", "%a %u", launcher]).stdout == "755 0\n"
        assert "1.1.0" in str(call(node, launcher)["supportedVersions"])
    # the list of folders that the install created, for their removal; no lease, record or log of the self-test
    noted = {"/var/lib/cnictl", "/var/lib/cnictl/folders.json", *RUNS}
    assert node.run(["ip", "-j", "link"]).stdout == before[0]
    assert set(tree(node, "/var", "/etc").splitlines()) - set(before[1].splitlines()) == noted
    assert run(node, "uninstall").status == 0
    left = set(tree(node, LIB, "/var", "/etc").splitlines()) - set(before[1].splitlines())
    assert left == {"/var/lib/cnictl", *RUNS, "/var/lib/cnictl/journal/000002.jsonl"}
    assert "cnictl" not in tree(node, "/opt", "/usr/lib/cni")


def test_a_second_install_changes_nothing(node: Node) -> None:
    run(node, "install")
    listing = ["sh", "-c", f"find {LIB} {' '.join(LAUNCHERS)} -printf '%p %T@ %i\\n' | sort"]
    before = node.run(listing).stdout
    assert "nothing to change" in run(node, "install").stderr
    assert node.run(listing).stdout == before


def test_a_dry_run_touches_nothing_and_shows_the_commands(node: Node) -> None:
    before = tree(node, "/usr/local/lib", "/opt", "/run/cnictl", "/var")
    shown = run(node, "install", "--dry-run").stdout
    assert shown.startswith("# would change (1; ")
    folders = " ".join(f"--bin-dir {os.path.dirname(launcher)}" for launcher in LAUNCHERS)
    assert shown.splitlines()[-1] == f"cnictl plugin install --no-pin {folders}"
    assert tree(node, "/usr/local/lib", "/opt", "/run/cnictl", "/var") == before


def test_the_plugin_runs_without_the_environment_that_installed_it(node: Node) -> None:
    run(node, "install")
    outside = sorted(folder for folder in (str(SOURCE), sys.prefix) if not folder.startswith("/usr"))
    hidden = [folder for folder in outside if not any(Path(above) in Path(folder).parents for above in outside)]
    hide = "".join(f"mount -t tmpfs none {folder}; " for folder in dict.fromkeys(hidden))
    answer = node.run(["unshare", "-m", "sh", "-ec", f"{hide} {CALL_VERSION} {LAUNCHERS[0]}"])
    assert "supportedVersions" in answer.stdout
    text = node.run(["cat", LAUNCHERS[0]]).stdout
    assert not any(folder in text for folder in hidden)


def test_bytecode_is_there_and_never_checked_against_its_source(node: Node) -> None:
    run(node, "install")
    look = (
        "import glob, sys\n"
        f"code = glob.glob('{LIB}/*/**/*.py', recursive=True)\n"
        f"pycs = glob.glob('{LIB}/*/**/__pycache__/*.pyc', recursive=True)\n"
        "assert len(pycs) >= len(code) > 10, (len(pycs), len(code))\n"
        "flags = {open(name, 'rb').read(8)[4:] for name in pycs}\n"
        "print(flags == {b'\\1\\0\\0\\0'})\n"  # PEP 552: hash-based, check_source clear
    )
    assert node.run([sys.executable, "-c", look]).stdout == "True\n"


def test_other_content_with_the_same_version_is_installed_beside_it(node: Node) -> None:
    run(node, "install")
    make_other(node)
    run_other(node, "install")
    installed = versions(node)
    assert len(installed) == 2
    other = next(name for name in installed if name != cnictl.__version__)
    assert re.fullmatch(re.escape(cnictl.__version__) + r"\+[0-9a-f]{8}", other)
    assert installed == {cnictl.__version__: False, other: True}
    run(node, "use", cnictl.__version__)
    assert versions(node) == {cnictl.__version__: True, other: False}
    refused = run(node, "uninstall", cnictl.__version__, check=False)
    assert (refused.status, "is the one in use" in refused.stderr) == (1, True)
    run(node, "uninstall", other)
    assert versions(node) == {cnictl.__version__: True}


def test_no_call_fails_while_versions_change(node: Node) -> None:
    run(node, "install")
    make_other(node)
    loop = f"while [ ! -e /tmp/stop ]; do {CALL_VERSION}{LAUNCHERS[0]} || exit 9; done"
    caller = node.popen(["sh", "-c", loop])
    try:
        run_other(node, "install")
        for _ in range(3):
            run(node, "install")
            run_other(node, "install")
    finally:
        node.run(["touch", "/tmp/stop"])
        said, complaints = caller.communicate(timeout=30)
    answers = said.replace("}{", "}\n{").splitlines()
    assert caller.returncode == 0, (answers[-1:], complaints)
    assert len(answers) > 10
    assert all("supportedVersions" in answer for answer in answers)


def test_a_build_that_fails_its_test_never_reaches_the_runtimes(node: Node) -> None:
    run(node, "install")
    before = tree(node, LIB)
    make_other(node, "echo 'raise OSError(1, \"broken\")' >> /tmp/other/cnictl_plugin/add.py")
    failed = run_other(node, "install", check=False)
    assert failed.status == 1
    assert "ADD" in failed.stderr
    assert tree(node, LIB) == before
    assert versions(node) == {cnictl.__version__: True}


def test_a_broken_version_is_shown_and_repaired(node: Node) -> None:
    run(node, "install")
    for file in ("cnictl/core/cidr.py", "bundles/*/ADD", "cnictl-bridge"):
        node.run(["sh", "-c", f"for one in {LIB}/*/{file}; do echo '# changed' >> $one; done"])
        broken = run(node, "list", check=False)
        assert broken.status == 1
        assert "broken" in broken.stdout
        assert "has changed since it was installed" in broken.stderr
        assert "changed" in run(node, "install").stdout
    node.run(["rm", LAUNCHERS[1]])
    missing = run(node, "list", check=False)
    assert missing.status == 1
    assert f"{LAUNCHERS[1]}: is missing" in missing.stderr
    run(node, "install")
    assert run(node, "list").status == 0


def test_the_launcher_uses_the_second_interpreter_or_reports_json(node: Node) -> None:
    run(node, "install")
    interpreter = json.loads(run(node, "list", "-o", "json").stdout)["items"][0]["interpreter"]
    text = node.run(["cat", LAUNCHERS[0]]).stdout
    other = text.replace(f"python={interpreter}\n", "python=/gone\n")
    node.run(["sh", "-c", "cat > /tmp/second; chmod 755 /tmp/second"], other)
    assert "supportedVersions" in call(node, "/tmp/second")
    hide = f"mount --bind /dev/null $(realpath /usr/bin/python3); mount --bind /dev/null {interpreter}; "
    bare = node.run(["unshare", "-m", "sh", "-c", f"{hide} {CALL_VERSION} {LAUNCHERS[0]}"], check=False)
    error = json.loads(bare.stdout)
    assert bare.status == 1
    assert error["code"] >= 100
    assert interpreter in error["msg"]
    node.run(["mv", LIB, "/tmp/moved"])
    assert "is gone" in str(call(node)["msg"])


@pytest.mark.parametrize(
    ("prepare", "words", "culprit"),
    [
        ("true", ["--lib-dir", "/tmp/lib"], "/tmp is writable by everyone"),
        ("chmod 777 /opt/cni", ["--bin-dir", "/opt/cni/bin"], "/opt/cni is writable by everyone"),
        ("mkdir /srv/a; chmod 777 /srv/a; ln -s /srv/a /opt/lib", ["--lib-dir", "/opt/lib"], "/srv/a is writable"),
    ],
)
def test_files_that_others_can_change_are_refused(node: Node, prepare: str, words: list[str], culprit: str) -> None:
    node.run(["sh", "-c", prepare])
    refused = run(node, "install", *words, check=False)
    assert refused.status == 1
    assert culprit in refused.stderr
    assert "cnictl-bridge" not in tree(node, "/opt", "/usr/lib/cni")


def test_a_version_with_an_interpreter_that_others_can_change_is_not_used(node: Node) -> None:
    run(node, "install")
    version = json.loads(run(node, "list", "-o", "json").stdout)["items"][0]
    node.run(["cp", "-a", version["library"], f"{LIB}/0.0.1"])
    node.run(["sh", "-c", f"cp -L {version['interpreter']} /srv/python; chmod 777 /srv/python"])
    node.run(["sed", "-i", f"s|{version['interpreter']}|/srv/python|", f"{LIB}/0.0.1/manifest.json"])
    refused = run(node, "use", "0.0.1", check=False)
    assert (refused.status, "/srv/python is writable by everyone" in refused.stderr) == (1, True)


def test_foreign_file_with_the_launchers_name_stays(node: Node) -> None:
    node.run(["sh", "-c", f"echo theirs > {LAUNCHERS[0]}"])
    refused = run(node, "install", check=False)
    assert (refused.status, "not cnictl's" in refused.stderr) == (1, True)
    assert node.run(["cat", LAUNCHERS[0]]).stdout == "theirs\n"
    assert node.run(["test", "-e", LAUNCHERS[1]], check=False).status == 1


def test_folders_that_the_operator_chose_are_remembered(node: Node) -> None:
    run(node, "install", "--lib-dir", "/opt/cnictl", "--bin-dir", "/opt/other/bin")
    assert "supportedVersions" in call(node, "/opt/other/bin/cnictl-bridge")
    assert "nothing to change" in run(node, "install", "--lib-dir", "/opt/cnictl", "--bin-dir", "/opt/other/bin").stderr
    run(node, "uninstall", "--bin-dir", "/opt/other/bin")
    assert node.run(["ls", "/opt"]).stdout == "cni\n"


def test_uninstall_refuses_while_a_pod_or_the_conf_needs_the_plugin(node: Node) -> None:
    run(node, "install")
    conf = {"cniVersion": "1.0.0", "name": "mynet", "type": "cnictl-bridge", "subnet": "10.244.0.0/24"}
    node.run(["ip", "netns", "add", "pod"])
    environment = "CNI_COMMAND={} CNI_CONTAINERID=c1 CNI_NETNS=/run/netns/pod CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin "
    node.run(["sh", "-c", environment.format("ADD") + LAUNCHERS[0]], json.dumps(conf))
    refused = run(node, "uninstall", check=False)
    assert refused.status == 1
    assert "1 live pod can't be deleted without the plugin" in refused.stderr
    assert "mynet c1" in refused.stderr
    node.run(["sh", "-c", environment.format("DEL") + LAUNCHERS[0]], json.dumps(conf))
    node.run(["touch", "/etc/cni/net.d/10-cnictl.conflist"])
    refused = run(node, "uninstall", check=False)
    assert (refused.status, "still makes runtimes call" in refused.stderr) == (1, True)
    assert run(node, "uninstall", "--force").status == 0


def test_command_without_root_says_that_it_needs_root() -> None:
    command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"] if os.geteuid() == 0 else []
    program = "import sys; sys.argv[0] = 'cnictl'; from cnictl.cli.main import main; main()"
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*command, sys.executable, "-c", program, "plugin", "use", "1"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "cnictl: cnictl plugin use needs root"
