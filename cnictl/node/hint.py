"""Hints: what to do about a finding. A command that removes the finding is kept apart from advice for people.

A hint is the text that people read. It is one of three kinds, each with a function here:

- `command`: a shell line that removes the finding when it is run as printed. A test runs each and repeats the check.
- `option`: what to add to the command that was refused. A test adds each one and repeats the check.
- `advice`: what no command can do, with the reason.

`tests/kernel/hints.py` explains how to add a new hint to those tests.
"""


class Hint(str):
    """A hint as people read it, and its parts. It is shown and stored like any other string."""

    command: str = ""
    """A shell line that can be run as it is; empty if no command removes the finding."""
    option: str = ""
    """An option to add to the command that was refused."""
    advice: str = ""
    """The part for people, in words."""
    on: str = ""
    """The address of the host where the command runs; empty for this one."""


def command(line: str, note: str = "", on: str = "") -> Hint:
    """Return a hint whose `line` removes the finding, on the host at address `on` if one is named.

    `note` is shown as a shell comment, so that the whole text can be pasted into a shell.
    """
    text = f"{line}  # {note}" if note else line
    made = Hint(f"on {on}: {text}" if on else text)
    made.command, made.advice, made.on = line, note, on
    return made


def option(text: str, note: str = "") -> Hint:
    """Return a hint to add an option, such as `--subnet 10.244.1.0/24`, to the command that was refused."""
    made = Hint(f"add {text}" + (f"; {note}" if note else ""))
    made.option, made.advice = text, note
    return made


def advice(text: str, because: str) -> Hint:
    """Return a hint in words. `because` tells readers of the code why no command can do it."""
    assert because
    made = Hint(text)
    made.advice = text
    return made


def as_json(hint: str) -> dict[str, str] | None:
    """Return the value of the key `hint` in every command's JSON; None (null) if there is no hint.

    `text` is the whole hint as people read it. `command`, `option` and `on` are its parts; one that the hint does not
    have is an empty string.
    """
    if not hint:
        return None
    made = hint if isinstance(hint, Hint) else Hint(hint)
    return {"text": str(made), "command": made.command, "option": made.option, "on": made.on}


def from_json(form: dict[str, str] | None) -> Hint:
    """Return the hint that `as_json` turned into `form`. Raises KeyError if it is not one."""
    if form is None:
        return NONE
    made = Hint(form["text"])
    made.command, made.option, made.on = form["command"], form["option"], form["on"]
    return made


NONE = Hint("")
"""The hint if there is nothing to do."""


def sysctl_name(*names: str) -> str:
    """Return a kernel setting's name for `sysctl`: with slashes if a part, such as a VLAN link's name, has a dot."""
    return ("/" if any("." in name for name in names) else ".").join(names)
