"""Bundles: each verb's modules in an order that works, and nothing in them that a verb doesn't need."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cnictl_plugin import bundle

ROOT = Path(__file__).parents[2]


def test_a_module_comes_after_what_it_imports() -> None:
    sources = {
        "top": "",
        "top.one": "from top import two\nfrom .three import name",
        "top.two": "import top.three",
        "top.three": "name = 1",
    }
    assert bundle.import_order(sources, ["top.one"]) == ["top", "top.three", "top.two", "top.one"]


def test_what_a_function_or_a_condition_imports_is_left_for_later() -> None:
    sources = {"late": "", "typed": "", "main": "def f():\n    import late\nif TYPE_CHECKING:\n    import typed"}
    assert bundle.import_order(sources, ["main"]) == ["main"]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin's code as it is installed, with bundles for the interpreter that runs the tests."""
    made = tmp_path_factory.mktemp("library")
    shutil.copytree(ROOT / "cnictl/core", made / "cnictl/core")
    shutil.copytree(ROOT / "plugin", made / "cnictl_plugin")
    shutil.copy(ROOT / "cnictl/__init__.py", made / "cnictl")
    bundle.write_bundles(str(made), str(made), str(made / "bundles"))
    return made


@pytest.mark.parametrize("verb", bundle.MODULES)
def test_a_bundle_holds_all_that_its_verb_imports_at_once(library: Path, verb: str) -> None:
    program = (
        "import marshal, sys; library, verb, module = sys.argv[1:]\n"
        "start, modules = marshal.loads(open(f'{library}/bundles/{verb}', 'rb').read())\n"
        "exec(start); load(library, modules)\n"
        "before = set(sys.modules); __import__(module)\n"
        "assert set(sys.modules) == before, set(sys.modules) - before\n"
        "print(*(name for name, _, _ in modules))"
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
    sources = {name: text for name, (_, text) in bundle.read_sources(str(library)).items()}
    order = bundle.import_order(sources, ["cnictl_plugin.main", "cnictl_plugin.delete"])
    assert not {"cnictl_plugin.add", "cnictl.core.masquerade", "cnictl.core.bridge"} & set(order)
