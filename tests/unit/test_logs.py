"""`cnictl logs` shows the calls for pods; those of cnictl's own tests only if they are asked for."""

from pathlib import Path

import pytest

from cnictl.cli import main
from cnictl.node.host import plugin_log
from cnictl.node.spec import node_file
from cnictl.node.spec.pod_names import PROBE_PREFIX
from cnictl.probe import pods

LINE = "2026-11-30T11:50:16Z info ADD 73.0ms container=c1 ifname=eth0 pod={} address=10.244.0.2/24 outcome=ok\n"
PROBE = "cnictl/cnictl-probe-06656c2e"


@pytest.mark.parametrize(
    ("words", "shown"),
    [((), ["default/web"]), (("--probes",), ["default/web", PROBE]), ((PROBE,), [PROBE]), (("web",), ["default/web"])],
)
def test_probe_pods_are_left_out_unless_they_are_asked_for(
    words: tuple[str, ...],
    shown: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = tmp_path / "plugin.log"
    log.write_text(LINE.format("default/web") + LINE.format(PROBE))
    monkeypatch.setattr(node_file, "load", lambda: None)
    monkeypatch.setattr(plugin_log, "path_of", lambda _: str(log))
    monkeypatch.setattr("sys.argv", ["cnictl", "logs", *words, "-o", "name"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.splitlines() == shown


def test_pod_of_a_test_is_recognized_by_its_arguments() -> None:
    args = pods._attachment(f"{PROBE_PREFIX}x").args.split(";")
    namespace, name = (
        pair.partition("=")[2] for pair in args if pair.startswith(("K8S_POD_NAMESPACE", "K8S_POD_NAME="))
    )
    call = plugin_log.parse(LINE.format(f"{namespace}/{name}").strip())
    assert call is not None and call.of_probe
