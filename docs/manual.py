"""Write the manual pages from the command line's help: `python docs/manual.py FOLDER`, one page for each command.

The date of the pages is that of SOURCE_DATE_EPOCH, so that a build can be repeated byte for byte.
"""

import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

import cnictl
from cnictl.cli.main import app
from cnictl.core import paths

_FILES = {
    paths.NODE_FILE: "Desired state of this node. Edit it, then run cnictl apply.",
    paths.CLUSTER_FILE: "All nodes of the cluster, if the node learns its peers from this file.",
    paths.LIB_DIR: "The installed versions of the plugin, and the copy of cnictl that units start.",
    paths.NETWORKS_DIR: "Leases: one file for each address.",
    paths.STATE_DIR: "Attachments, runs, and the state before cnictl.",
    paths.PLUGIN_LOG: "One line for each call of the plugin.",
}
_STATUS = (
    ("0", "Done, or healthy."),
    ("1", "Failed, unhealthy, drifted, or not known."),
    ("2", "The command line is wrong."),
)
_EXAMPLES_MARK = "\b"
"""Opens the examples at the end of a help text, and keeps typer from wrapping them."""


def pages() -> dict[str, str]:
    """Return the text of each page by its file's name."""
    program = typer.main.get_command(app)
    return {f"{'-'.join(words)}.1": _page(words, command, context) for words, command, context in _walk(program)}


def _walk(command: Any, words: tuple[str, ...] = ("cnictl",), above: Any = None) -> Iterator[tuple[Any, Any, Any]]:
    """Yield each visible command with its words and its context, a group before its commands."""
    context = command.context_class(command, info_name=words[-1], parent=above, **command.context_settings)
    yield words, command, context
    for name, inner in _inner(command):
        yield from _walk(inner, (*words, name), context)


def _inner(command: Any) -> list[tuple[str, Any]]:
    """Return the visible commands of a group with their names; an empty list for a command."""
    return [(name, inner) for name, inner in getattr(command, "commands", {}).items() if not inner.hidden]


def _page(words: tuple[str, ...], command: Any, context: Any) -> str:
    title = "-".join(words)
    date = time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))))
    text, _, examples = (command.help or "").partition(_EXAMPLES_MARK)
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]
    lines = [
        f'.TH "{_plain(title.upper())}" 1 "{date}" "cnictl {cnictl.__version__}" "cnictl"',
        ".nh",
        ".SH NAME",
        f"{_plain(title)} \\- {_plain(paragraphs[0].rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {_plain(' '.join(words))}",
        _plain(" ".join(command.collect_usage_pieces(context))),
        ".SH DESCRIPTION",
        *(line for paragraph in paragraphs for line in (".PP", _rich(paragraph))),
        *_commands(words, command),
        *_parameters(command, context),
    ]
    if examples.strip():
        lines += [".SH EXAMPLES", ".nf", *(_plain(line) for line in examples.strip("\n").splitlines()), ".fi"]
    lines += [".SH EXIT STATUS", *(line for status, meaning in _STATUS for line in (".TP", f".B {status}", meaning))]
    if len(words) == 1:
        lines += [".SH FILES"]
        lines += [line for path, meaning in _FILES.items() for line in (".TP", f".I {_plain(path)}", _rich(meaning))]
    related = [_reference(words[:-1])] if len(words) > 1 else []
    related += [
        _reference((*words, inner)) for inner, one in getattr(command, "commands", {}).items() if not one.hidden
    ]
    lines += [".SH SEE ALSO", ",\n".join(related)]
    return "\n".join(lines) + "\n"


def _reference(words: tuple[str, ...]) -> str:
    return f".BR {_plain('-'.join(words))} (1)"


def _commands(words: tuple[str, ...], command: Any) -> list[str]:
    lines = [".SH COMMANDS"] if _inner(command) else []
    for name, inner in _inner(command):
        summary = " ".join((inner.short_help or inner.help or "").split("\n\n")[0].split())
        lines += [".TP", f".B {_plain(' '.join((*words, name)))}", _rich(summary)]
    return lines


def _parameters(command: Any, context: Any) -> list[str]:
    """Return the sections of arguments and options."""
    sections: dict[str, list[str]] = {}
    for parameter in command.get_params(context):
        if getattr(parameter, "hidden", False):
            continue
        if parameter.param_type_name == "argument":
            title, name, text = "ARGUMENTS", parameter.metavar or parameter.name.upper(), parameter.help or ""
        else:
            name, text = parameter.get_help_record(context)
            title, text = "OPTIONS", parameter.help or text
        sections.setdefault(title, []).extend([".TP", f".B {_plain(name)}", _rich(" ".join(text.split()))])
    return [line for title, lines in sections.items() for line in (f".SH {title}", *lines)]


def _rich(text: str) -> str:
    """Return text in roff, with quoted code in bold."""
    return re.sub(r"`([^`]+)`", r"\\fB\1\\fR", _plain(text))


def _plain(text: str) -> str:
    """Return text in roff: nothing in it is a request, an escape or a typographic hyphen."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def main() -> None:
    """Write the pages to the folder named on the command line."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
