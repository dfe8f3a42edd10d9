"""List the program's commands, and check the JSON that they print against docs/schemas/."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from referencing import Registry
from referencing.jsonschema import DRAFT202012
from typer.core import TyperGroup
from typer.main import get_command

from cnictl.cli import main
from cnictl.cli.groups import Command

FOLDER = Path(__file__).parents[1] / "docs" / "schemas"


def commands() -> dict[str, Command]:
    """Return every command by its words on the command line."""
    program = get_command(main.app)
    assert isinstance(program, TyperGroup)
    known: dict[str, Command] = {}
    for name, command in program.commands.items():
        inner = command.commands if isinstance(command, TyperGroup) else {"": command}
        known |= {f"{name} {word}".strip(): each for word, each in inner.items() if isinstance(each, Command)}
    return known


def commands_with_json() -> list[str]:
    """Return the commands that accept `-o json`."""
    return [words for words, command in commands().items() if any("-o" in option.opts for option in command.params)]


@cache
def schemas() -> dict[str, Any]:
    """Return every schema by the name of its file."""
    return {file.stem: json.loads(file.read_text()) for file in FOLDER.glob("*.json")}


@cache
def _validator(command: str) -> Draft202012Validator:
    known = schemas()
    registry: Registry[Any] = Registry().with_resource("common.json", DRAFT202012.create_resource(known["common"]))
    return Draft202012Validator(known[command.replace(" ", "-")], registry=registry)


def checked(command: str, text: str) -> Any:
    """Check the JSON that a command printed against the command's schema, and return the parsed document."""
    document = json.loads(text)
    fault = best_match(_validator(command).iter_errors(document))
    assert fault is None, f"cnictl {command}: {fault.json_path}: {fault.message}\n{text}"
    return document
