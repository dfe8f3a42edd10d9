"""Suggest the command or option that a mistyped one probably means."""

import shlex
from collections.abc import Collection
from difflib import get_close_matches
from typing import Any

_THIS_HOST = "host"
_NEAR = 0.65
"""The required similarity of two words (difflib)."""


def command(typed: str, group: str, known: Collection[str]) -> str:
    """Return the words of the command that `typed` may mean in a group (empty: the program); empty if none is near.

    `known` has the words of every command. A word of another group counts only if it is the same: `gc` means `ipam gc`.
    """
    before = f"{group} " if group else ""
    inside = {words.removeprefix(before).split(" ")[0] for words in known if words.startswith(before)}
    near = get_close_matches(typed, sorted(inside), 1, _NEAR)
    if near:
        return f"{before}{near[0]}"
    return next((words for words in known if typed in words.split(" ")), "")


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
