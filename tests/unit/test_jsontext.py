"""The plugin's JSON parser returns the same values as the json module, and explains every refusal."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnictl.core.jsontext import JsonError, dumps, loads

REPOSITORY = Path(__file__).parents[2]

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(VALUES)
def test_text_written_by_json_is_read(value: Any) -> None:
    for ascii_only in (True, False):
        text = json.dumps(value, ensure_ascii=ascii_only, indent=2)
        try:
            raw = text.encode()
        except UnicodeEncodeError:
            continue  # a lone surrogate can't be encoded as UTF-8
        assert loads(raw) == value


@given(VALUES)
def test_written_text_is_read_by_json(value: Any) -> None:
    text = dumps(value)
    assert json.loads(text) == value
    assert text.isascii() and "\n" not in text


@given(st.binary(max_size=40))
def test_any_bytes_give_json_s_answer_or_a_json_error(raw: bytes) -> None:
    try:
        value = loads(raw)
    except JsonError:
        with pytest.raises((ValueError, RecursionError)):
            json.loads(raw.decode(), parse_constant=_refuse)
        return
    assert value == json.loads(raw.decode())


def _refuse(name: str) -> object:
    raise ValueError(name)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "it is empty"),
        (b" \n\t\r ", "it is empty"),
        (b"{", "line 1 column 2"),
        (b'{"a": 1,}', "double quotes"),
        (b"{'a': 1}", "double quotes"),
        (b"[1, 2", "delimiter"),
        (b'"abc', "Unterminated string"),
        (b'"a\nb"', "Invalid control character"),
        (b"nul", "no JSON value at character 0"),
        (b"{} {}", "something follows the document at character 3"),
        (b"1 2", "something follows the document at character 2"),
        (b"NaN", "NaN is not a JSON value"),
        (b'{"mtu": Infinity}', "Infinity is not a JSON value"),
        (b"[-Infinity]", "-Infinity is not a JSON value"),
        (b"\xef\xbb\xbf{}", "no JSON value at character 0"),
        (b'{"a": "\xff"}', "byte 7 is not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "byte 0 is not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a":' * 101 + b"1" + b"}" * 101, "nested too deeply"),
        (b"1" * 5000, "Exceeds the limit"),
        (b'{"mtu": 1e999}', "1e999 is too large a number"),
        (b'{"bridge": "\\ud800"}', "half a surrogate pair"),
        (b'{"\\udfff": 1}', "half a surrogate pair"),
    ],
)
def test_malformed_json_is_refused_with_position_and_reason(raw: bytes, said: str) -> None:
    with pytest.raises(JsonError) as refused:
        loads(raw)
    assert said in str(refused.value)


def test_the_plugin_s_interpreter_refuses_the_same_text_with_the_same_message() -> None:
    """The C scanner creates no error message of its own if the public module was never loaded, as in the plugin."""
    documents = [b"{", b'{"a": 1,}', b"{'a': 1}", b"[1, 2", b'"abc', b'"a\nb"', b"nul", b"NaN", b"", b"[" * 100_000]
    script = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from cnictl.core.jsontext import JsonError, loads\n"
        "assert 'json' not in sys.modules\n"
        f"for raw in {documents!r}:\n"
        "    try: loads(raw)\n"
        "    except JsonError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-IS", "-B", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [refusal(raw) for raw in documents]


def refusal(raw: bytes) -> str:
    with pytest.raises(JsonError) as refused:
        loads(raw)
    return str(refused.value)


@pytest.mark.parametrize(
    "raw", [b'"\\ud83d\\ude00"', b'"\\udc80"', b"[" * 100 + b"]" * 100, b"[" + b"[1]," * 500 + b"2]"]
)
def test_valid_escaped_or_long_text_is_accepted(raw: bytes) -> None:
    assert loads(raw) == json.loads(raw)


def test_next_document_after_a_refused_one_is_read() -> None:
    with pytest.raises(JsonError):
        loads(b"[" * 100_000)
    assert loads(b'{"name": "mynet"}') == {"name": "mynet"}


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": {1, 2}}, b"raw", object()])
def test_value_without_a_json_form_is_not_written(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        dumps(value)
