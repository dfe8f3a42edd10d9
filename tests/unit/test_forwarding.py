"""Enable a family's forwarding: changed settings are recorded even if the last one is refused."""

from typing import Any

import pytest
from cnictl_plugin import forwarding

from cnictl.core import sysctl
from cnictl.core.errors import CniError


def test_settings_changed_before_a_refused_one_can_be_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    host: Any = None
    monkeypatch.setattr(forwarding, "_uplinks", lambda _: ["uplink"])
    monkeypatch.setattr(sysctl, "read", lambda _: "1")
    monkeypatch.setattr(sysctl, "put", lambda path, _: path.endswith("accept_ra"))
    switched: list[tuple[str, str]] = []
    with pytest.raises(CniError) as refused:
        forwarding.open_forwarding(host, 16, switched)
    assert refused.value.code == 103
    assert switched == [("net/ipv6/conf/uplink/accept_ra", "1")]
