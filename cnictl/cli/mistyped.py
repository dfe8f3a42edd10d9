"""Suggest the command or option that a mistyped one probably means."""

import shlex
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import Any

_THIS_HOST = "host"
_NEAR = 0.65
"""The required similarity of two words (difflib)."""
_REMOVE = ("remove", "del-peer", "release", "uninstall", "down", "disable")
_CREATE = ("add-peer", "up", "install", "enable")
_USUAL: dict[str, tuple[str, ...]] = {
    "ls": ("list", "status"), "list": ("list", "status"), "get": ("list", "show", "status"),
    "describe": ("show", "status"), "info": ("show", "status"), "add": _CREATE, "create": _CREATE, "new": _CREATE,
    "on": ("enable", "up"), "start": ("up", "enable"), "off": ("disable", "down"), "stop": ("down", "disable"),
    "rm": _REMOVE, "del": _REMOVE, "delete": _REMOVE, "remove": _REMOVE, "free": ("release",),
    "rollback": ("undo",), "revert": ("undo",),
}  # fmt: skip
"""Other programs' words for a command, each with the commands that it may mean, the likeliest first."""
_VERBS = frozenset(("get", "list", "ls", "show", "describe"))
_NOUNS = {"lease": "ipam", "address": "ipam", "peer": "route"}
"""Other words for a group, in the singular."""


def command(typed: Sequence[str], group: str, known: Collection[str]) -> str:
    """Return the words of the command that `typed` may mean in a group (empty: the program); empty if none is near.

    `known` has the words of every command. A word of another group counts only if it is the same: `gc` means `ipam gc`.
    """
    before = f"{group} " if group else ""
    inside = sorted({words.removeprefix(before).split(" ")[0] for words in known if words.startswith(before)})
    word, others = typed[0], [each for each in typed[1:] if not each.startswith("-")]
    if word == "help":
        return f"{before}{_longest(others, before, known)}--help"
    if not group and word in _VERBS and others:
        noun = others[0].removesuffix("es") if others[0].endswith("sses") else others[0].removesuffix("s")
        listing = f"{_NOUNS.get(noun, noun)} list"
        if listing in known:
            return listing
    usual = [each for each in _USUAL.get(word, ()) if each in inside]
    begun = [each for each in inside if len(word) > 1 and each.startswith(word)]
    near = usual or begun or get_close_matches(word, inside, 1, _NEAR)
    if near:
        return f"{before}{near[0]}"
    return next((words for words in sorted(known) if word in words.split(" ")), "")


def is_usual(word: str) -> bool:
    """Return whether a word is likelier an attempt at a command than a name."""
    return word in _USUAL or word == "help"


def _longest(words: Sequence[str], before: str, known: Collection[str]) -> str:
    """Return the command or group of `known` at the beginning of `words`, with a space behind; empty if none is."""
    for count in (2, 1):
        named = " ".join(words[:count])
        if named and any(f"{each} ".startswith(f"{before}{named} ") for each in known):
            return f"{named} "
    return ""


def argument(missing: str, context: Any) -> str:
    """Return the command that was meant if an argument is missing: `ping TO` is from this host. Empty if unknown."""
    given = context.params.get("source")
    if (context.info_name, missing) != ("ping", "to") or given in (None, _THIS_HOST):
        return ""
    return f"{context.command_path} {_THIS_HOST} {shlex.quote(given)}"


def option(typed: str, context: Any) -> str:
    """Return the option of the context's command that `typed` may mean; empty if none is near."""
    options = [
        name
        for each in context.command.get_params(context)
        if not getattr(each, "hidden", False) and each.param_type_name == "option"
        for name in (*each.opts, *each.secondary_opts)
    ]
    begun = [name for name in options if len(typed) > 3 and name.startswith(typed)]
    return next(iter(begun or get_close_matches(typed, options, 1)), "")
