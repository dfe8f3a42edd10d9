"""What the lab's commands say and plan, without a lab."""

from types import SimpleNamespace

import pytest

from cnictl.cli import cluster_test, lab_demo
from cnictl.cli.output import Format, say
from cnictl.cluster import lab_cluster, lab_pod
from cnictl.core.errors import UsageProblem
from cnictl.lab import plan
from cnictl.node.host import pod_routes


def test_outside_has_the_addresses_that_are_pinged_by_default() -> None:
    assert tuple(text.partition("/")[0] for text in (plan.OUTSIDE_ALSO, plan.OUTSIDE_ALSO6)) == pod_routes.OUTSIDE


def test_demo_of_a_cluster_ends_with_one_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lab_cluster, "run_cluster_demo", lambda *_: ("", SimpleNamespace(passed=True)))
    monkeypatch.setattr(cluster_test, "show", lambda *_: say("the verdict"))
    lab_demo._cluster(3, False, Format.TABLE)
    assert capsys.readouterr().err == "the verdict\n"


@pytest.mark.parametrize(("text", "name"), [("web", "default/web"), ("kube-system/dns-1", "kube-system/dns-1")])
def test_pod_without_a_namespace_is_in_the_default_one(text: str, name: str) -> None:
    assert lab_pod.full_name(text) == name


@pytest.mark.parametrize("text", ["", "Web", "a/b/c", "/web", "web/", "../x", "a_b", "-a", "x" * 64])
def test_name_that_is_no_pods_is_refused(text: str) -> None:
    with pytest.raises(UsageProblem, match="use NAME or NAMESPACE/NAME"):
        lab_pod.full_name(text)
