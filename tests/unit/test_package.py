"""What packages are made of: the locked dependencies."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = ("conf/requirements.lock", "conf/requirements-kubernetes.lock")


def _locked(file: str) -> dict[str, tuple[str, str]]:
    """Return what a lock file pins: name to version and the lines that follow."""
    entries = re.split(r"\n(?=\S)", (ROOT / file).read_text().strip())
    pinned: dict[str, tuple[str, str]] = {}
    for entry in entries:
        match = re.fullmatch(r"([\w.-]+)==(\S+) \\\n(.+)", entry, re.DOTALL)
        assert match is not None, f"{file}: {entry}"
        pinned[canonicalize_name(match[1])] = (match[2], match[3])
    return pinned


@pytest.mark.parametrize("file", LOCKS)
def test_a_lock_pins_and_hashes_each_package_and_names_no_registry(file: str) -> None:
    pinned = _locked(file)
    assert len(pinned) > 5
    for name, (_, hashes) in pinned.items():
        assert re.fullmatch(r"( +--hash=sha256:[0-9a-f]{64}( \\\n)?)+", hashes), name


@pytest.mark.parametrize(("file", "extra"), zip(LOCKS, ("", "kubernetes"), strict=True))
def test_a_lock_has_what_the_project_depends_on(file: str, extra: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(project["optional-dependencies"][extra] if extra else ())]
    pinned = _locked(file)
    for requirement in map(Requirement, wanted):
        version, _ = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement}: {version}, run `make lock`"


def test_both_locks_pin_the_same_versions() -> None:
    plain, kubernetes = map(_locked, LOCKS)
    assert plain == {name: kubernetes[name] for name in plain}
