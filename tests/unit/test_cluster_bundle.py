"""Bundles: their content, that it is the same each time, and that a changed bundle is refused."""

import gzip
import importlib.util
import io
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import cnictl
from cnictl.cluster import bundle, wheels
from cnictl.core.errors import UsageProblem

CONF = Path(__file__).parents[2] / "conf"
FILES = {"cnictl/__init__.py": b"__version__ = '7.0.0'\n", "cnictl-6.dist-info/RECORD": b"old", "x/data.txt": b""}


@pytest.fixture(scope="module")
def small() -> bundle.Bundle:
    """A bundle with one wheel."""
    return bundle.assemble(dict([wheels.wheel("cnictl", "7.0.0", FILES, "Metadata-Version: 2.1\nName: cnictl\n")]))


@pytest.fixture(scope="module")
def installer() -> ModuleType:
    """Load conf/install.py as a module."""
    spec = importlib.util.spec_from_file_location("bundle_installer", CONF / "install.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def unpacked(made: bundle.Bundle, folder: Path) -> Path:
    with tarfile.open(fileobj=io.BytesIO(made.contents)) as archive:
        archive.extractall(folder)
    return folder / f"cnictl-{made.version}"


def repacked(made: bundle.Bundle, change: Callable[[str, bytes], bytes]) -> bytes:
    """Return the bundle with changed files but unchanged digests."""
    packed = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(made.contents)) as old,
        tarfile.open(fileobj=packed, mode="w:gz") as new,
    ):
        for member in old:
            source = old.extractfile(member)
            assert source is not None
            contents = change(member.name, source.read())
            member.size = len(contents)
            new.addfile(member, io.BytesIO(contents))
    return packed.getvalue()


def test_same_files_give_the_same_bundle(small: bundle.Bundle) -> None:
    again = bundle.assemble(dict([wheels.wheel("cnictl", "7.0.0", FILES, "Metadata-Version: 2.1\nName: cnictl\n")]))
    assert (again.contents, again.name) == (small.contents, small.name)
    assert small.version == "7.0.0" and not small.has_kubernetes


def test_bundle_of_the_running_cnictl_names_every_dependency() -> None:
    made = wheels.of_running()
    names = {name.split("-")[0].lower() for name in made}
    assert {"cnictl", "typer", "rich", "pyroute2", "netaddr", "tomlkit", "prometheus_client", "pygments"} <= names
    own = made[f"cnictl-{cnictl.__version__}-py3-none-any.whl"]
    with zipfile.ZipFile(io.BytesIO(own)) as archive:
        there = set(archive.namelist())
    assert {"cnictl/cli/main.py", "cnictl_plugin/launcher.sh", "cnictl_conf/install.sh"} <= there


def test_bundle_is_read_back_unchanged(small: bundle.Bundle, tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar.gz"
    path.write_bytes(small.contents)
    assert bundle.load(str(path)) == small


def test_wheels_of_a_folder_become_one_file_and_its_digest(
    small: bundle.Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, contents = wheels.wheel("cnictl", "7.0.0", FILES, "Metadata-Version: 2.1\nName: cnictl\n")
    (tmp_path / name).write_bytes(contents)
    bundle.main(str(tmp_path), str(tmp_path / "dist"))
    path = Path(capsys.readouterr().out.strip())
    assert (path.name, path.read_bytes()) == ("cnictl-7.0.0-bundle.tar.gz", small.contents)
    assert Path(f"{path}.sha256").read_text() == f"{small.sha256}  {path.name}\n"


@pytest.mark.parametrize(
    "contents",
    [
        lambda made: made.contents[:-100],
        lambda _: b"no archive",
        lambda _: gzip.compress(b"no archive"),
        lambda made: repacked(made, lambda name, old: old + b"x" if name.endswith(".whl") else old),
        lambda made: repacked(made, lambda name, old: b"" if name.endswith("SHA256SUMS") else old),
        lambda made: repacked(made, lambda name, old: old + b"\n" if name.endswith("install.sh") else old),
    ],
)
def test_changed_bundle_is_refused(small: bundle.Bundle, contents: Callable[[bundle.Bundle], bytes]) -> None:
    with pytest.raises(UsageProblem, match=r"^a\.tar\.gz"):
        bundle.parse(contents(small), "a.tar.gz")


def test_path_that_leads_out_of_a_bundle_is_refused() -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("cnictl-1/../../etc/passwd"))
    with pytest.raises(UsageProblem, match="is not a bundle"):
        bundle.parse(packed.getvalue(), "a.tar.gz")


def test_installer_and_operator_give_a_version_the_same_name(
    small: bundle.Bundle, installer: ModuleType, tmp_path: Path
) -> None:
    assert installer.verify(str(unpacked(small, tmp_path))) == small.name


@pytest.mark.parametrize("file", ["wheels/cnictl-7.0.0-py3-none-any.whl", "install.py", "requirements.txt"])
def test_installer_refuses_a_file_that_differs(
    small: bundle.Bundle, installer: ModuleType, tmp_path: Path, file: str
) -> None:
    folder = unpacked(small, tmp_path)
    path = folder / file
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(installer.InstallError, match=f"{path.name} does not match its SHA-256"):
        installer.verify(str(folder))


def test_installer_refuses_a_wheel_that_is_not_listed(
    small: bundle.Bundle, installer: ModuleType, tmp_path: Path
) -> None:
    folder = unpacked(small, tmp_path)
    (folder / "wheels" / "more-1-py3-none-any.whl").write_bytes(b"")
    with pytest.raises(installer.InstallError, match="not a file of this bundle"):
        installer.verify(str(folder))


def test_installer_takes_only_wheels_for_this_python_and_machine(installer: ModuleType) -> None:
    minor, machine = sys.version_info[1], installer.platform.machine()
    assert installer.suits("a-1-py2.py3-none-any.whl")
    assert installer.suits(f"a-1-cp3{minor}-cp3{minor}-manylinux_2_17_{machine}.manylinux2014_{machine}.whl")
    assert installer.suits(f"a-1-cp39-abi3-manylinux_2_17_{machine}.whl")
    assert not installer.suits(f"a-1-cp3{minor + 1}-cp3{minor + 1}-manylinux_2_17_{machine}.whl")
    assert not installer.suits(f"a-1-cp3{minor}-cp3{minor}-manylinux_2_17_s390x.whl")
    assert not installer.suits(f"a-1-cp3{minor}-cp3{minor}-macosx_11_0_{machine}.whl")


def test_installer_without_root_says_so(
    small: bundle.Bundle, installer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(installer.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(installer, "HERE", str(unpacked(small, tmp_path)))
    monkeypatch.setattr(sys, "argv", ["install.sh"])
    assert installer.main() == 1
    said = capsys.readouterr().err
    assert "install needs root: it writes /usr/local/lib/cnictl-cli and /usr/local/bin/cnictl" in said
    assert f"hint: sudo sh {installer.HERE}/install.sh" in said


def installed_in(
    installer: ModuleType, folder: Path, made: bundle.Bundle, monkeypatch: pytest.MonkeyPatch, *words: str,
    self_test: str = "",
) -> int:  # fmt: skip
    """Run the installer as root, with its paths under `folder`; by default its self-test does nothing."""
    unpacked_to = unpacked(made, folder / made.name)
    for name, value in (
        ("HERE", str(unpacked_to)), ("HOME", f"{folder}/lib/cnictl-cli"), ("COMMAND", f"{folder}/bin/cnictl"),
        ("KEPT", f"{folder}/bin/cnictl.before-bundle"), ("PACKAGED", f"{folder}/usr-bin/cnictl"),
        ("_SELF_TEST", self_test), ("LOCK", f"{folder}/lock"),
    ):  # fmt: skip
        monkeypatch.setattr(installer, name, value)
    monkeypatch.setattr(installer.os, "geteuid", lambda: 0)
    monkeypatch.setattr(installer, "_require_trusted", lambda: None)
    monkeypatch.setattr(sys, "argv", ["install.sh", *words])
    return int(installer.main())


def test_versions_are_installed_side_by_side_and_the_former_command_is_restored(
    small: bundle.Bundle, installer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, home = tmp_path / "bin" / "cnictl", tmp_path / "lib" / "cnictl-cli"
    command.parent.mkdir()
    command.write_text("by hand")
    newer = bundle.assemble(dict([wheels.wheel("cnictl", "7.1.0", FILES, "Name: cnictl\n")]))
    third = bundle.assemble(dict([wheels.wheel("cnictl", "7.2.0", FILES, "Name: cnictl\n")]))
    for made in (small, small, newer):
        assert installed_in(installer, tmp_path, made, monkeypatch) == 0
        assert command.resolve() == home / made.name / "cnictl"
    assert installer.versions() == sorted([small.name, newer.name])
    assert installed_in(installer, tmp_path, newer, monkeypatch, "use", small.name) == 0
    assert command.resolve() == home / small.name / "cnictl"
    assert installed_in(installer, tmp_path, third, monkeypatch) == 0
    assert installer.versions() == sorted([small.name, third.name])
    assert installed_in(installer, tmp_path, third, monkeypatch, "use", "before-bundle") == 0
    assert command.read_text() == "by hand"
    assert installed_in(installer, tmp_path, third, monkeypatch) == 0
    assert installed_in(installer, tmp_path, third, monkeypatch, "uninstall", third.name) == 1
    assert installed_in(installer, tmp_path, third, monkeypatch, "uninstall") == 0
    assert command.read_text() == "by hand"
    assert not home.exists() and not (tmp_path / "bin" / "cnictl.before-bundle").exists()


def test_version_that_does_not_start_is_not_installed(
    small: bundle.Bundle, installer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert installed_in(installer, tmp_path, small, monkeypatch) == 0
    newer = bundle.assemble(dict([wheels.wheel("cnictl", "7.1.0", FILES, "Name: cnictl\n")]))
    assert installed_in(installer, tmp_path, newer, monkeypatch, self_test="raise RuntimeError('no start')") == 1
    assert "the new version does not start, and is not installed: RuntimeError: no start" in capsys.readouterr().err
    assert (installer.current(), installer.versions()) == (small.name, [small.name])


def test_host_with_a_package_is_left_to_its_package_manager(
    small: bundle.Bundle, installer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "usr-bin").mkdir()
    (tmp_path / "usr-bin" / "cnictl").write_text("")
    assert installed_in(installer, tmp_path, small, monkeypatch) == 1
    assert "belongs to a package" in capsys.readouterr().err
