"""Collect the versions of the programs that work together on a node: cnictl, the plugin, the kernel, the runtimes."""

import os
import platform
import re
from typing import Any

import cnictl
from cnictl.core import programs, skipped_entries, untrusted_text
from cnictl.core.errors import Problem
from cnictl.core.process import run
from cnictl.node.plugin import versions

_RUNTIMES = ("containerd", "crio", "podman", "dockerd")
_NUMBER = re.compile(r"\d+(?:\.\d+)+[^\s,]*")
_SECONDS = 5.0


def collect() -> dict[str, Any]:
    """Return the versions, as docs/schemas/version.json documents them."""
    plugin = versions.listing("", ())
    return {
        "cnictl": cnictl.__version__,
        "python": platform.python_version(),
        "kernel": os.uname().release,
        "plugin": plugin["current"],
        "chosen": plugin["chosen"],
        "cnictl_is_newer": plugin["cnictl_is_newer"],
        "items": [{"name": name, "path": path, "version": _version_of(path)} for name, path in _installed()],
    }


def _installed() -> list[tuple[str, str]]:
    return [(name, path) for name in _RUNTIMES if (path := programs.find(name))]


def _version_of(path: str) -> str:
    """Return the version that a program prints; empty, with a note on stderr, if it prints none."""
    try:
        output = run([path, "--version"], timeout=_SECONDS).stdout
    except (Problem, OSError) as fault:
        skipped_entries.skip(path, f"does not print its version: {fault}")
        return ""
    number = _NUMBER.search(output)
    return untrusted_text.line(number[0]) if number is not None else ""
