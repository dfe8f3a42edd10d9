"""A syntax error in the node file is reported with its line, and its hint is valid TOML."""

from pathlib import Path

import pytest
import tomlkit

from cnictl.core.errors import UsageProblem
from cnictl.node.spec import node_file

_GOOD = 'subnet = "10.244.0.0/24"\nnetwork = "10.244.0.0/20"\n'


@pytest.mark.parametrize(
    ("line", "words", "hint"),
    [
        ("subnet = 10.244.0.0/24", "the value needs quotes", 'subnet = "10.244.0.0/24"'),
        ("subnet = 10.244.0.0/24  # ours", "the value needs quotes", 'subnet = "10.244.0.0/24"'),
        ("subnet = fd00:244::/64", "the value needs quotes", 'subnet = "fd00:244::/64"'),
        ("subnet = 10.244.0.0/24, fd00::/64", "the value needs quotes", 'subnet = ["10.244.0.0/24", "fd00::/64"]'),
        ('subnet = "10.244.0.0/24', "the quote after the value is missing", 'subnet = "10.244.0.0/24"'),
        ("subnet = '10.244.0.0/24", "the quote after the value is missing", 'subnet = "10.244.0.0/24"'),
        ('subnet = 10.244.0.0/24"', "the value needs quotes", 'subnet = "10.244.0.0/24"'),
        ('subnet "10.244.0.0/24"', "there is no '=' after the key", 'subnet = "10.244.0.0/24"'),
        ("subnet: 10.244.0.0/24", "use '=' instead of ':'", 'subnet = "10.244.0.0/24"'),
        ("subnet = “10.244.0.0/24”", "the quotes have to be straight", 'subnet = "10.244.0.0/24"'),
        ("nat = True", "a switch is true or false", "nat = true"),
        ("nat = yes", "a switch is true or false", "nat = true"),
        ("nat = OFF", "a switch is true or false", "nat = false"),
        ("nat =", "'nat' has no value", ""),
        ("nat", "'nat' has no value", ""),
        ("= 3", "", ""),
        ('subnet = ["10.244.0.0/24"', "a ']' is missing", 'subnet = ["10.244.0.0/24"]'),
        ('subnet = "10.244.0.0/24", "fd00::/64"', "several values need brackets",
         'subnet = ["10.244.0.0/24", "fd00::/64"]'),
        ("; ours", "comments begin with #", "# ours"),
        ("// ours", "comments begin with #", "# ours"),
        ('subnet = "10.244.0.0/24" ours', "unexpected text 'ours'", ""),
        ("[plugin", "its brackets don't match", "[plugin]"),
        ("[[peers]", "its brackets don't match", "[[peers]]"),
        ("plugin]", "", ""),
        ('peers = [{pod_cidr = "10.244.1.0/24", via = "10.0.10.51"}', "a ']' is missing",
         'peers = [{pod_cidr = "10.244.1.0/24", via = "10.0.10.51"}]'),
    ],
)  # fmt: skip
@pytest.mark.parametrize("after", ["", 'name = "x"\n'], ids=["last", "followed"])
def test_line_that_is_not_toml_is_shown_with_its_cause(line: str, words: str, hint: str, after: str) -> None:
    with pytest.raises(UsageProblem) as refused:
        node_file.parse(f"# ours\n\n{line}\n{after}")
    assert refused.value.message.startswith("/etc/cnictl/node.toml: line 3: ")
    assert refused.value.message.endswith(f": {line}")
    assert words in refused.value.message
    assert refused.value.hint == hint or not hint
    if hint:
        tomlkit.parse(hint)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (_GOOD + 'subnet = "10.244.1.0/24"\n', "line 3: 'subnet' is already on line 1"),
        (_GOOD + '[plugin]\nversion = "1"\n[plugin]\nlog_level = "info"\n', "table 'plugin' is already on line 3"),
        (_GOOD + '[peers]\nvia = "10.0.10.51"\n[peers]\nvia = "10.0.10.52"\n', "table 'peers' is already on line 3"),
        (_GOOD + '[[peers]]\nvia = "10.0.10.51"\nvia = "10.0.10.52"\n', "line 5: 'via' is already on line 4"),
        ('subnet = [\n  "10.244.0.0/24",\n', "line 1: a ']' is missing"),
    ],
)
def test_cause_on_another_line_is_found(text: str, words: str) -> None:
    with pytest.raises(UsageProblem) as refused:
        node_file.parse(text)
    assert words in refused.value.message


def test_toml_that_other_programs_accept_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    for contents in (b"\xef\xbb\xbf" + _GOOD.encode(), _GOOD.replace("\n", "\r\n").encode(), b"\t" + _GOOD.encode()):
        path.write_bytes(contents)
        spec = node_file.load(str(path))
        assert spec is not None
        assert spec.subnets == ("10.244.0.0/24",)
        assert node_file.merged(node_file.text_of_file(str(path)), spec) == node_file.text_of_file(str(path))
    path.write_bytes(_GOOD.encode("utf-16"))
    with pytest.raises(UsageProblem, match="is UTF-16"):
        node_file.load(str(path))
