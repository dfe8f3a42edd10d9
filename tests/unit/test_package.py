"""The sources of packages: the locked dependencies, the manual pages, the completions, and Debian's files."""

import os
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cnictl.cli.groups import _COMMANDS, _GROUPS, _HIDDEN

ROOT = Path(__file__).parents[2]
DEBIAN = ROOT / "conf/debian"
LOCKS = ("conf/requirements.lock", "conf/requirements-kubernetes.lock")


def _locked(file: str) -> dict[str, tuple[str, str]]:
    """Return the version and the remaining lines of each package in a lock file, by name."""
    entries = re.split(r"\n(?=\S)", (ROOT / file).read_text().strip())
    pinned: dict[str, tuple[str, str]] = {}
    for entry in entries:
        match = re.fullmatch(r"([\w.-]+)==(\S+) \\\n(.+)", entry, re.DOTALL)
        assert match is not None, f"{file}: {entry}"
        pinned[canonicalize_name(match[1])] = (match[2], match[3])
    return pinned


@pytest.mark.parametrize("file", LOCKS)
def test_a_lock_file_pins_and_hashes_each_package_and_names_no_registry(file: str) -> None:
    pinned = _locked(file)
    assert len(pinned) > 5
    for name, (_, hashes) in pinned.items():
        assert re.fullmatch(r"( +--hash=sha256:[0-9a-f]{64}( \\\n)?)+", hashes), name


@pytest.mark.parametrize(("file", "extra"), [(LOCKS[0], ""), (LOCKS[1], "kubernetes")])
def test_a_lock_file_has_the_projects_dependencies(file: str, extra: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(project["optional-dependencies"][extra] if extra else ())]
    pinned = _locked(file)
    for requirement in map(Requirement, wanted):
        version, _ = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement}: {version}, run `make lock`"


def test_both_lock_files_pin_the_same_versions() -> None:
    plain, kubernetes = map(_locked, LOCKS)
    assert plain == {name: kubernetes[name] for name in plain}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("man")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SOURCE_DATE_EPOCH": "1700000000"}
    subprocess.run([sys.executable, "docs/manual.py", str(folder)], cwd=ROOT, env=environment, check=True)
    yield folder


def test_each_command_has_a_manual_page(pages: Path) -> None:
    commands = {words for words in (*_COMMANDS, *_GROUPS) if words not in _HIDDEN}
    names = {"cnictl", *(f"cnictl-{words.replace(' ', '-')}" for words in commands)}
    assert {file.name for file in pages.iterdir()} == {f"{name}.1" for name in names}


def test_a_page_has_what_the_commands_help_says(pages: Path) -> None:
    page = (pages / "cnictl-init-node.1").read_text(encoding="utf-8")
    assert page.startswith('.TH "CNICTL\\-INIT\\-NODE" 1 "2023-11-14"')
    for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES", "EXIT STATUS", "SEE ALSO"):
        assert f"\n.SH {section}\n" in page
    reference = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    section = reference.partition("## `cnictl init-node`")[2].partition("\n## ")[0]
    options = re.findall(r"^\* `(?:-\w, )?(--[\w-]+)", section, re.MULTILINE)
    assert len(options) > 10
    for option in options:
        assert option.replace("-", "\\-") in page, option


def test_no_line_of_a_page_is_read_as_a_roff_request(pages: Path) -> None:
    known = {".TH", ".nh", ".SH", ".B", ".PP", ".TP", ".I", ".BR", ".nf", ".fi"}
    for file in pages.iterdir():
        for line in file.read_text(encoding="utf-8").splitlines():
            assert not line.startswith("'"), line
            assert not line.startswith(".") or line.split()[0] in known, line
            assert not re.search(r"(?<!\\)-", re.sub(r"^\.TH .*", "", line)), line


def test_the_package_has_the_completions_that_the_program_prints(tmp_path: Path) -> None:
    for place in (ROOT / "cnictl", *Path(typer.__file__).parents[1].iterdir()):
        (tmp_path / place.name).symlink_to(place)
    completion = runpy.run_path(str(DEBIAN / "derive.py"))["completion"]
    (tmp_path / "bash").write_text(completion(tmp_path, "bash"))
    typed = "COMP_WORDS=(cnictl plug); COMP_CWORD=1; _cnictl $1; echo ${COMPREPLY[*]}"
    bash = ["bash", "-c", f". {tmp_path}/bash; {typed}", "bash", str(Path(sys.executable).with_name("cnictl"))]
    assert subprocess.run(bash, capture_output=True, text=True, check=True).stdout == "plugin\n"
    zsh = completion(tmp_path, "zsh").splitlines()
    assert zsh[0] == "#compdef cnictl"
    assert '    _cnictl "$@"' in zsh  # zsh loads the file as a function and expects words from its first call


def _fields(paragraph: str) -> dict[str, str]:
    parts = re.findall(r"^([\w-]+):((?:.*\n?)(?: .*\n?)*)", paragraph, re.MULTILINE)
    return {name: " ".join(value.split()) for name, value in parts}


def test_the_packages_control_fields_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    source, plain, kubernetes = map(_fields, (DEBIAN / "control").read_text().split("\n\n"))
    assert (source["Source"], plain["Package"], kubernetes["Package"]) == ("cnictl", "cnictl", "cnictl-kubernetes")
    depends = [dependency.strip() for dependency in plain["Depends"].split(",")]
    assert f"python3 ({project['requires-python'].replace('>=', '>= ')})" in depends
    assert {"nftables | iptables", "iproute2"} <= set(depends)
    assert not any(name in plain["Depends"] for name in ("typer", "python3-rich"))
    assert plain["Architecture"] == "all"
    assert "cnictl (= ${source:Version})" in kubernetes["Depends"]


@pytest.mark.parametrize("script", ["cnictl.postinst", "cnictl.prerm", "cnictl.postrm"])
def test_a_maintainer_script_asks_nothing_and_is_valid_sh(script: str) -> None:
    text = (DEBIAN / script).read_text()
    assert "#DEBHELPER#" in text
    assert "debconf" not in text
    subprocess.run(["sh", "-n", str(DEBIAN / script)], check=True)


@pytest.mark.parametrize("call", [("configure",), ("configure", "0.1.0"), ("abort-upgrade", "0.2.0")])
def test_the_postinst_starts_no_program_but_rm_and_echo(call: tuple[str, ...], tmp_path: Path) -> None:
    """It changes no network: its PATH has no other program."""
    (tmp_path / "rm").symlink_to("/bin/true")
    script = (DEBIAN / "cnictl.postinst").read_text().replace("/etc/cnictl/node.toml", "/")
    done = subprocess.run(
        ["/bin/sh", "-c", script, "postinst", *call],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert ("cnictl plugin install" in done.stdout) is (call[0] == "configure")
