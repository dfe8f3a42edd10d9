"""Write docs/commands.md from the command line's help, and the tables of docs/json.md from docs/schemas/.

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

Schema = dict[str, Any]

DOCS = Path(__file__).parent
MARK = "<!-- docs/generate.py writes what follows from docs/schemas/ -->\n"
_VERSION = {"$ref": "common.json#/$defs/version"}
"""Every document has it, and the first part of docs/json.md tells of it."""


def reference() -> str:
    """Return the command reference that typer derives from the program, with its examples in fenced blocks."""
    done = subprocess.run(
        [sys.executable, "-m", "typer", "cnictl.cli.main", "utils", "docs", "--name", "cnictl", "--title", "Commands"],
        capture_output=True,
        text=True,
        check=True,
    )
    # typer leaves an empty line in place of the \b that opens a help text's examples: two empty lines come before them
    return re.sub(r"\n\n\n((?:.+\n)+)", _fence, html.unescape(done.stdout))


def _fence(examples: re.Match[str]) -> str:
    return f"\n\n```sh\n{textwrap.dedent(examples[1])}```\n"


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
    """Yield a row for each key, and for each key of the objects in it that are no shared ones."""
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
    texts = {DOCS / "commands.md": reference(), DOCS / "json.md": json_reference()}
    if "--check" in sys.argv:
        return int(any(file.read_text() != text for file, text in texts.items()))
    for file, text in texts.items():
        file.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
