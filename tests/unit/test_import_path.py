"""A pod's start imports only the interpreter's C modules and our core, and nothing that costs milliseconds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

VERBS = ("main", "add", "delete", "check", "collect", "status", "environment", "log")

START = frozenset({
    "__main__", "_abc", "_codecs", "_frozen_importlib", "_frozen_importlib_external", "_imp", "_io", "_signal",
    "_thread", "_warnings", "_weakref", "abc", "builtins", "codecs", "encodings", "encodings.aliases",
    "encodings.utf_8", "io", "marshal", "posix", "sys", "time", "zipimport",
})  # fmt: skip
"""The modules that CPython 3.11 has loaded before the first line under `-IS`; later versions differ slightly."""

MAY_LOAD = frozenset({"_blake2", "_json", "_socket", "_struct", "errno", "fcntl"})
"""C modules. Before Python 3.12, `_ctypes` is added where setns(2) is called through it."""

COSTLY = (
    "typer", "rich", "netaddr", "pyroute2", "logging", "asyncio", "re", "typing", "dataclasses", "json", "socket",
    "subprocess", "collections", "enum", "os", "struct", "ctypes", "hashlib", "traceback", "pathlib", "tomllib",
    "functools", "contextlib", "threading", "selectors", "random", "datetime",
)  # fmt: skip

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin's files as `cnictl plugin install` lays them out: only core and the plugin."""
    folder = tmp_path_factory.mktemp("library")
    (folder / "cnictl").mkdir()
    (folder / "cnictl" / "__init__.py").symlink_to(REPOSITORY / "cnictl" / "__init__.py")
    (folder / "cnictl" / "core").symlink_to(REPOSITORY / "cnictl" / "core")
    (folder / "cnictl_plugin").symlink_to(REPOSITORY / "plugin")
    return folder


def bare(code: str, environment: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    """Run `code` as the launcher runs the plugin."""
    interpreter = os.path.realpath(sys.executable)
    return subprocess.run(
        [interpreter, "-IS", "-B", "-c", code],
        input="{}",
        capture_output=True,
        text=True,
        env=environment or {},
        timeout=30,
        check=False,
    )


def loaded(code: str) -> set[str]:
    done = bare(f"{code}\nimport sys; print(chr(10).join(sorted(sys.modules)))")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_loads_only_c_modules_and_our_own(library: Path, verb: str) -> None:
    at_start = loaded("import sys, time")
    modules = loaded(
        f"import sys; sys.path.insert(0, {str(library)!r}); import cnictl_plugin.main, cnictl_plugin.{verb}"
    )
    ours = {name for name in modules if name.split(".")[0] in ("cnictl", "cnictl_plugin")}
    brought = modules - ours - at_start
    print(f"{verb}: {' '.join(sorted(brought))} + {len(ours)} of our own")
    assert not modules & set(COSTLY)
    assert brought <= MAY_LOAD
    assert {name for name in ours if name.split(".")[0] == "cnictl" and not name.startswith("cnictl.core")} == {
        "cnictl"
    }


@pytest.mark.parametrize(
    "addresses",
    [
        {"network": "10.244.0.0/20", "subnet": "10.244.0.0/24"},
        {"isGateway": True, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": []}},
    ],
    ids=["the walk-through's", "host-local's"],
)
def test_a_plain_configuration_loads_no_reader_of_rare_keys(library: Path, addresses: dict[str, object]) -> None:
    conf = {"cniVersion": "1.0.0", "name": "mynet", "ipMasq": True, "hairpinMode": True, **addresses}
    parse = f"from cnictl.core.conf.network import parse_conf; parse_conf({conf!r})"
    modules = loaded(f"import sys; sys.path.insert(0, {str(library)!r}); {parse}")
    assert "cnictl.core.conf.network" in modules
    assert not modules & {
        "cnictl.core.conf.link",
        "cnictl.core.conf.resolv",
        "cnictl.core.netlink.rtnetlink",
        "cnictl.core.leases.lease_store",
    }


def test_the_interpreter_loads_nothing_costly_itself() -> None:
    modules = loaded("import sys, time")
    assert not modules & set(COSTLY)
    if sys.version_info[:2] == (3, 11):
        assert modules <= START


@pytest.mark.parametrize(
    "environment",
    [
        {"CNI_COMMAND": "VERSION"},
        {"CNI_COMMAND": "ADD"},
        {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c", "CNI_IFNAME": "eth0", "CNI_NETNS": "/nowhere"},
        {"CNI_COMMAND": "STATUS"},
        {},
    ],
    ids=lambda environment: " ".join(environment.values()) or "no environment",
)
def test_a_whole_call_loads_nothing_more(library: Path, environment: dict[str, str]) -> None:
    """The call runs to its end and then prints the loaded modules. Its log and lock are not written."""
    done = bare(
        f"import sys; sys.path.insert(0, {str(library)!r})\n"
        "from cnictl_plugin import main\n"
        "def leave(status): sys.stderr.write(chr(10).join(sys.modules)); sys.stderr.flush(); _exit(status)\n"
        "_exit, main._exit = main._exit, leave\n"
        "main.log_call = lambda *_: None\n"
        "main.main()\n",
        environment,
    )
    assert done.returncode in (0, 1)
    assert not set(done.stderr.split()) & set(COSTLY), done.stderr
    assert json.loads(done.stdout)["cniVersion"]


def test_read_only_commands_do_not_load_pyroute2() -> None:
    """Importing pyroute2 takes longer than most of these commands (docs/dev/decisions/0014)."""
    modules = (
        "cli.ipam",
        "node.addresses.lease_list",
        "views.status",
        "doctor.catalogue",
        "watch.keeper",
        "node.runs.reset",
    )
    code = "".join(f"import cnictl.{module}\n" for module in modules) + "import sys; print('pyroute2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"
