"""Decide which release of the plugin is newer."""

from pathlib import Path

import pytest

import cnictl
from cnictl.node.plugin import plugin_version, versions


@pytest.mark.parametrize(
    ("own", "in_use", "newer"),
    [
        ("0.2.0", "0.1.0", True),
        ("0.10.0", "0.9.0", True),
        ("0.1.0", "0.2.0", False),
        ("0.2.0", "0.2.0", False),
        ("0.2.0.dev0", "0.1.0", True),
        ("0.2.0", "0.2.0.dev0", True),
        ("0.2.0.dev0", "0.2.0", False),
        ("0.2.0", "", False),
    ],
)
def test_release_is_newer_than_the_one_in_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own: str, in_use: str, newer: bool
) -> None:
    monkeypatch.setattr(cnictl, "__version__", own)
    monkeypatch.setattr(plugin_version, "noted", lambda _folder, _key: in_use)
    assert versions.newer_than_in_use(str(tmp_path), "any") == newer
