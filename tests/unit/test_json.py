"""Each JSON output has a schema that docs/json.md shows, and always contains its version."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from cnictl.cli import output
from tests.schemas import checked, commands_with_json, schemas

ROOT = Path(__file__).parents[2]


def test_every_command_with_json_has_a_documented_schema() -> None:
    named = {name: schema["title"] for name, schema in schemas().items() if name != "common"}
    assert named == {words.replace(" ", "-"): f"cnictl {words}" for words in commands_with_json()}
    headings = re.findall(r"^### (cnictl .+)$", (ROOT / "docs/json.md").read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(named.values())


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield each schema of an object within a schema."""
    if isinstance(schema, dict):
        if "properties" in schema:
            yield schema
        for value in schema.values():
            yield from objects(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from objects(value)


@pytest.mark.parametrize("name", schemas())
def test_schema_is_valid_and_describes_each_key(name: str) -> None:
    schema = schemas()[name]
    Draft202012Validator.check_schema(schema)
    for form in objects(schema):
        assert set(form.get("required", ())) <= set(form["properties"]), form
        for key, value in form["properties"].items():
            assert "description" in value or value == {"$ref": "common.json#/$defs/version"}, (name, key)


def test_only_one_module_prints_json() -> None:
    printing = [file.name for file in (ROOT / "cnictl/cli").glob("*.py") if "json.dump" in file.read_text()]
    assert printing == ["output.py"]


def test_list_is_an_object_with_a_version(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_items(({"name": name} for name in ("a", "b")), {"file": None})
    assert json.loads(capsys.readouterr().out) == {
        "version": output.JSON_VERSION,
        "file": None,
        "items": [{"name": "a"}, {"name": "b"}],
    }
    output.print_items(())
    assert json.loads(capsys.readouterr().out) == {"version": output.JSON_VERSION, "items": []}


def test_document_of_a_stream_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json_line({"text": "two\nlines"})
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {"version": output.JSON_VERSION, "text": "two\nlines"}


@pytest.mark.parametrize(
    ("command", "document"),
    [
        ("support-bundle", {"file": None, "items": []}),
        ("support-bundle", {"version": 2, "file": None, "items": []}),
        ("support-bundle", {"version": 1, "items": []}),
        ("support-bundle", {"version": 1, "file": None, "items": [], "parts": []}),
        ("support-bundle", {"version": 1, "file": None, "items": [{"name": "a", "holds": "b", "size": 3}]}),
        ("plan", {"version": 1, "steps": []}),
        ("plan", {"version": 1, "would_change": 0, "steps": [], "more": 1}),
        ("plan", {"version": 1, "would_change": 1, "steps": [{"resource": "a/b", "outcome": "odd", "summary": ""}]}),
        ("history", {"version": 1, "items": [{"run": 1}]}),
    ],
)
def test_schema_refuses_a_key_that_is_missing_renamed_or_unknown(command: str, document: dict[str, Any]) -> None:
    with pytest.raises(AssertionError, match=f"cnictl {command}: "):
        checked(command, json.dumps(document))
