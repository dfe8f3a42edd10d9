"""Write docs/commands.md from the command line's help, and the tables of docs/json.md from docs/schemas/.

Also write cnictl/cli/completion_words.py, what completion knows of the commands, so that a Tab need not load them.

`--check` compares the files and writes nothing.
"""

import html
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.core import TyperGroup
from typer.main import get_command

from cnictl.cli import help_text
from cnictl.cli import main as program
from cnictl.cli.groups import DEFAULTS
from cnictl.core.masquerade import backends
from cnictl.doctor import catalogue
from cnictl.node import preflight
from cnictl.probe.cells import names

Schema = dict[str, Any]

DOCS = Path(__file__).parent
WORDS = DOCS.parent / "cnictl" / "cli" / "completion_words.py"
MARK = "<!-- docs/generate.py writes what follows from docs/schemas/ -->\n"
_VERSION = {"$ref": "common.json#/$defs/version"}
"""Every document has this key. The first part of docs/json.md describes it."""


def reference() -> str:
    """Return the command reference that typer derives from the program, with its examples in fenced blocks."""
    done = subprocess.run(
        [sys.executable, "-m", "typer", "cnictl.cli.main", "utils", "docs", "--name", "cnictl", "--title", "Commands"],
        capture_output=True,
        text=True,
        check=True,
    )
    # typer replaces the \b that opens a help text's examples with an empty line, so two empty lines precede them
    return re.sub(r"\n\n\n((?:.+\n)+)", _fence, help_text.ranges_in_words(html.unescape(done.stdout)))


def _fence(examples: re.Match[str]) -> str:
    return f"\n\n```sh\n{textwrap.dedent(examples[1])}```\n"


_WORDS = '''\
"""The commands, options and fixed values that completion knows. docs/generate.py writes this file (`make docs`)."""

# ruff: noqa: E501
# fmt: off

Option = tuple[tuple[str, ...], str, bool, str]
"""Its names, the placeholder of its value (empty: it takes none), whether it can be repeated, and its help."""

PROGRAM: tuple[Option, ...] = (
{program})
"""The options of the program itself."""
GROUPS: dict[str, str] = {{
{groups}}}
"""The groups, and what each is for."""
DEFAULTS: dict[str, str] = {defaults!r}
"""The command of a group that runs if no command follows the group's name."""
COMMANDS: dict[str, tuple[str, tuple[Option, ...], tuple[str, ...]]] = {{
{commands}}}
"""The commands, each with its summary, its options, and the placeholders of its arguments."""
CHOICES: dict[str, tuple[str, ...]] = {{
{choices}}}
"""The values that a parameter can have, by its placeholder or by command and parameter."""
'''


def completion_words() -> str:
    """Return the module cnictl/cli/completion_words.py."""
    whole = get_command(program.app)
    assert isinstance(whole, TyperGroup)
    commands: dict[str, Any] = {}
    groups, choices = "", dict[str, tuple[str, ...]]()
    for name, command in whole.commands.items():
        inside = command.commands if isinstance(command, TyperGroup) else {"": command}
        commands |= {f"{name} {word}".strip(): each for word, each in inside.items() if not each.hidden}
        groups += f"    {name!r}: {command.short_help!r},\n" if isinstance(command, TyperGroup) else ""
    lines = ""
    for words, command in commands.items():
        placeholders = tuple(_placeholder(each) for each in command.params if each.param_type_name == "argument")
        lines += f"    {words!r}: ({command.short_help!r}, (\n{_options(command)}    ), {placeholders!r}),\n"
        for each in command.params:
            listed = (each.metavar or "").strip("[]").split("|")
            if values := listed if listed[1:] else getattr(each.type, "choices", None):
                choices[f"{words} {each.opts[0]}"] = tuple(map(str, values))
    choices |= {
        "CHECK": tuple(check.id for check in catalogue.CHECKS), "BACKEND": backends.BACKENDS,
        "VERB": ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"), "ROUTE": ("unreachable", "default-route"),
        "test-connectivity --only": names.ALL, "test-connectivity --skip": names.ALL,
        "init-node --ignore": (*preflight.IGNORABLE, "all"), "init-node --from": ("kubernetes",),
        "completion SHELL": ("bash", "zsh", "fish"),
    }  # fmt: skip
    fixed = "".join(f"    {place!r}: {values!r},\n" for place, values in choices.items())
    return _WORDS.format(program=_options(whole), groups=groups, defaults=DEFAULTS, commands=lines, choices=fixed)


def _options(command: Any) -> str:
    """Return a command's options, a line for each."""
    lines = ""
    for each in command.params:
        if each.param_type_name == "option" and not each.hidden:
            value = "" if each.is_flag else _placeholder(each)
            option = (tuple(each.opts), value, each.multiple, _first_sentence(each.help))
            lines += f"        {option!r},\n"
            if each.secondary_opts:
                lines += f"        {(tuple(each.secondary_opts), '', False, f'The opposite of {each.opts[0]}')!r},\n"
    return lines + f"        {(('--help', '-h'), '', False, 'Show this message and exit')!r},\n"


def _placeholder(parameter: Any) -> str:
    """Return the placeholder of a value, such as POD; with dots if it can be repeated."""
    words = (parameter.metavar or parameter.name).strip("[]").split()[-1]
    return f"{words.removesuffix('...')}{'...' if parameter.nargs == -1 else ''}"


def _first_sentence(words: str) -> str:
    return re.split(r"(?<=\w)[.:] ", words or "", maxsplit=1)[0].rstrip(".")


def json_reference() -> str:
    """Return docs/json.md with the tables of its second part derived from the schemas."""
    schemas = {file.stem: json.loads(file.read_text()) for file in sorted((DOCS / "schemas").glob("*.json"))}
    common = schemas.pop("common")["$defs"]
    written, _, _ = (DOCS / "json.md").read_text().partition(MARK)
    parts = [written, MARK, "\n## Commands\n"]
    for name, schema in schemas.items():
        parts.append(f"\n### {schema['title']}\n\n{schema['description']} [Schema](schemas/{name}.json).")
        variants = schema.get("$defs")
        parts += (
            [f"\n\n**{one['title']}.**{_table(one)}" for one in variants.values()] if variants else [_table(schema)]
        )
        parts.append("\n")
    parts.append("\n## Shared objects\n")
    for name, schema in common.items():
        if "properties" in schema:
            parts.append(f"\n### {name}\n\n{schema['description']}{_table(schema)}\n")
    return "".join(parts)


def _table(schema: Schema) -> str:
    shared = f" The keys of {_type(schema)}" if "$ref" in schema else ""
    rows = "\n".join(_rows(schema))
    end = (", and:" if rows else ".") if shared else ""
    return f"{shared}{end}\n\n| key | type | meaning |\n|---|---|---|\n{rows}" if rows else shared + end


def _rows(schema: Schema, prefix: str = "") -> Iterator[str]:
    """Yield a row for each key, and for each key of the objects in it that are not shared."""
    for key, value in schema.get("properties", {}).items():
        if value == _VERSION or value.get("deprecated"):
            continue
        optional = "" if key in schema.get("required", ()) else ", optional"
        inner = value.get("items", value)
        values = ", ".join(f"`{one}`" for one in value.get("enum", ()) if one)
        meaning = f"{value['description']}{f': {values}' if values else ''}"
        yield f"| `{prefix}{key}` | {_type(value)}{optional} | {meaning} |"
        if "$ref" not in inner:
            yield from _rows(inner, f"{prefix}{key}{'[]' if inner is not value else ''}.")


def _type(schema: Schema) -> str:
    """Return a value's type in words, with a link if it is a shared object."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name})"
    if "anyOf" in schema:
        return " or ".join(map(_type, reversed(schema["anyOf"])))
    kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    if "array" in kinds:
        listed = _type(schema["items"])
        kinds = [f"list of {listed if listed.startswith('[') else f'{listed}s'}" if k == "array" else k for k in kinds]
    return " or ".join(kinds)


def main() -> int:
    """Return exit status 1 if `--check` finds a committed file out of date."""
    texts = {DOCS / "commands.md": reference(), DOCS / "json.md": json_reference(), WORDS: completion_words()}
    if "--check" in sys.argv:
        return int(any(file.read_text() != text for file, text in texts.items()))
    for file, text in texts.items():
        file.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
