"""Bundles contain each verb's modules in a working order, and nothing that the verb doesn't need."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cnictl_plugin import bundle

ROOT = Path(__file__).parents[2]


def _imported(sources: dict[str, str]) -> dict[str, list[str]]:
    return {name: bundle.imports(name, ast.parse(text)) for name, text in sources.items()}


def test_a_module_comes_after_what_it_imports() -> None:
    sources = {
        "top": "",
        "top.one": "from top import two\nfrom .three import name",
        "top.two": "import top.three",
        "top.three": "name = 1",
    }
    assert bundle.import_order(_imported(sources), ["top.one"]) == ["top", "top.three", "top.two", "top.one"]


def test_imports_in_a_function_or_condition_are_not_bundled() -> None:
    sources = {"late": "", "typed": "", "main": "def f():\n    import late\nif TYPE_CHECKING:\n    import typed"}
    assert bundle.import_order(_imported(sources), ["main"]) == ["main"]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin's code as installed, with bundles for the interpreter that runs the tests."""
    made = tmp_path_factory.mktemp("library")
    shutil.copytree(ROOT / "cnictl/core", made / "cnictl/core")
    shutil.copytree(ROOT / "plugin", made / "cnictl_plugin")
    shutil.copy(ROOT / "cnictl/__init__.py", made / "cnictl")
    bundle.write_bundles(str(made), str(made), str(made / "bundles"))
    return made


@pytest.mark.parametrize("verb", bundle.MODULES)
def test_a_bundle_has_all_top_level_imports_of_its_verb(library: Path, verb: str) -> None:
    program = (
        "import marshal, sys; library, verb, module = sys.argv[1:]\n"
        "start, *parts = marshal.loads(open(f'{library}/bundles/{verb}', 'rb').read())\n"
        "exec(start); load(library, *parts)\n"
        "before = set(sys.modules); __import__(module)\n"
        "assert set(sys.modules) == before, set(sys.modules) - before\n"
        "print(*(name for name, _, _ in parts[0]))"
    )
    done = subprocess.run(
        [sys.executable, "-IS", "-c", program, str(library), verb, bundle.MODULES[verb]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) >= {"cnictl_plugin.main", bundle.MODULES[verb]}


def test_del_does_not_load_what_only_add_needs(library: Path) -> None:
    imported = {name: module.imports for name, module in bundle.read_modules(str(library), str(library)).items()}
    order = bundle.import_order(imported, ["cnictl_plugin.main", "cnictl_plugin.delete"])
    assert not {"cnictl_plugin.add", "cnictl.core.masquerade.rule_set", "cnictl.core.bridge"} & set(order)


def test_an_interpreter_started_by_its_link_reads_utf8_and_finds_everything(tmp_path: Path) -> None:
    codec = str(ROOT / "plugin/codec.py")
    program = f"from cnictl_plugin.boot import write_boot; print(write_boot({codec!r}, {str(tmp_path / 'boot')!r}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    if done.stdout == "False\n":  # an interpreter with another name is started as usual
        assert not (tmp_path / "boot").exists()
        return
    said = subprocess.run(
        [
            str(tmp_path / "boot/python"),
            "-IS",
            "-X",
            "utf8",
            "-c",
            "import sys; sys.path.insert(0, '/nonexistent'); import ctypes, json, locale\n"
            "try:\n    b'x'.decode('unheard of')\nexcept LookupError:\n    print(locale.normalize('de_DE'), end=' ')\n"
            "print('\u00e4', 'x'.encode('idna'))",
        ],
        capture_output=True,
        check=True,
        env={"LC_ALL": "C", "PYTHONHOME": "/nonexistent"},
    )
    assert said.stdout.decode() == "de_DE.ISO8859-1 \u00e4 b'x'\n"
