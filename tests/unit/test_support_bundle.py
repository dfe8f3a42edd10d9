"""A support bundle contains no secrets, and a part that fails leaves the others complete."""

import tarfile
from pathlib import Path

import pytest

from cnictl.views import harmless, support_bundle
from cnictl.views.support_bundle import Part


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("token: abc123 x", "token: (left out) x"),
        ('"api_key": "abc", "a": 1', '"api_key": "(left out)", "a": 1'),
        ("https://me:pass@host/x", "https://(left out)@host/x"),
        ("-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----", "(left out)"),
        ("AWS_SECRET_ACCESS_KEY=x", "AWS_SECRET_ACCESS_KEY=(left out)"),
        ('password = "two words" a', 'password = "(left out)" a'),
        ("Authorization: Bearer x", "Authorization: (left out)"),
        ("https://me:a/b@h/", "https://(left out)@h/"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc", "(left out)"),
        ("netns=/x args={'A': {'b': 'c'}} outcome=ok", "netns=/x args=(left out) outcome=ok"),
        ("run --password hunter2 --x", "run --password (left out) --x"),
        ("--registry-token abc", "--registry-token (left out)"),
        ("header Bearer abc.def", "header Bearer (left out)"),
        ("--token-ttl --verbose", "--token-ttl --verbose"),
        ("pod web-secret-x runs", "pod web-secret-x runs"),
        ("masquerade to 10.244.0.0/24", "masquerade to 10.244.0.0/24"),
    ],
)
def test_values_of_options_for_secrets_are_omitted(text: str, left: str) -> None:
    assert harmless.without_secrets(text) == left


def test_failed_part_is_named_and_affects_no_other(tmp_path: Path) -> None:
    def broken(_: harmless.Words) -> str:
        raise KeyError("x")

    wanted = [Part("one.txt", "", broken), Part("two.txt", "", lambda _: "text")]
    listed = support_bundle.write(str(tmp_path / "b.tar.gz"), wanted)
    assert [(part["name"], part["failed"]) for part in listed] == [("one.txt", "KeyError: 'x'"), ("two.txt", "")]
    with tarfile.open(tmp_path / "b.tar.gz") as archive:
        assert archive.getnames() == ["cnictl-support/two.txt", "cnictl-support/MANIFEST.json"]
