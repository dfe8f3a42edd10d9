"""Print completions of a command line for a shell: commands, options, and names that exist on this host.

Each Tab starts this program, so it loads neither typer nor rich: `completion_words` lists the commands and options. The
shell passes the words in environment variables, never as arguments: a wrapper that drops the variables, as sudo does,
must not run the command that is being typed.
"""

from collections.abc import Callable, Mapping, Sequence

from cnictl.cli import completion_scripts
from cnictl.cli.completion_words import CHOICES, COMMANDS, DEFAULTS, GROUPS, PROGRAM, Option
from cnictl.views import live_names

Words = list[tuple[str, str]]
"""Completions, each with a description."""

NO_FILES, FILES, FOLDERS = 0, 3, 4
"""Exit status: there are no other completions, or the shell adds files or folders."""
_BREAKS = frozenset(":=")
"""Characters at which bash splits a word (COMP_WORDBREAKS)."""
_MOST = 2000
"""The number of live names that are printed."""
_HARMLESS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._/:-@%+,=")
"""Names with other characters are not offered: a shell would have to quote them, and some come from other hosts."""

_LIVE: dict[str, tuple[Callable[[], live_names.Names], ...]] = {
    "POD": (live_names.pods, live_names.addresses),
    "ADDRESS": (live_names.addresses,),
    "CIDR": (live_names.peer_cidrs,),
    "PEER": (live_names.peers,),
    "RUN": (live_names.runs,),
    "LINK": (live_names.links_to_others,),
    "init-node --bridge": (live_names.bridges,),
    "bridge up --bridge": (live_names.bridges,),
    "NAME": (live_names.networks,),
    "VERSION": (live_names.versions,),
    "NODE": (live_names.nodes,),
    "NAMES": (live_names.nodes,),
    "FROM": (live_names.ends, live_names.pods, live_names.addresses),
    "TO": (live_names.ends, live_names.targets, live_names.pods, live_names.addresses),
    "lab exec NODE": (live_names.machines,),
    "lab pod NODE": (live_names.machines,),
    "lab exec --lab": (live_names.labs,),
    "lab pod --lab": (live_names.labs,),
    "lab down --lab": (live_names.labs,),
    "lab status --lab": (live_names.labs,),
}
"""The names for a value, by its placeholder in the help; by command and parameter if the placeholder is ambiguous."""
_NEW = frozenset(
    (
        "init-node --subnet", "init-node --network", "init-node --peer", "init-node --name", "init-node --external",
        "bridge up --subnet", "bridge up --network", "route add-peer PEER", "test-connectivity --external",
        "cluster test --external", "kubernetes kubeconfig --server", "lab up --lab", "lab pod NAME",
    )
)  # fmt: skip
"""Parameters whose values name nothing on this host."""
_PATHS = {"FILE": FILES, "FOLDER": FOLDERS, "COMMAND": FILES}


def main(environ: Mapping[str, str]) -> int:
    """Print the completions of a command line; return the exit status for the shell."""
    asked = environ["_CNICTL_COMPLETE"]
    if asked == "complete_zsh":
        # the completion script of cnictl 0.1 evaluates the output, so print the new script
        print(completion_scripts.ZSH, end="")
        return 0
    script = completion_scripts.SCRIPTS.get(asked.removeprefix("source_"))
    if script is not None:
        print(script, end="")
        return 0
    typed = environ.get("COMP_WORDS", "").split("\n")
    at = int(environ.get("COMP_CWORD", "") or len(typed) - 1)
    typed = (typed + [""] * (at + 1))[: at + 1]
    if asked == "complete_bash":
        words, kept = _joined(typed)
        status, completions = answer(words)
        print("\n".join(word[kept:] for word, _ in completions), end="\n" if completions else "")
    elif asked in ("words_zsh", "words_fish"):
        status, completions = answer(typed)
        print("\n".join(f"{word}\t{about}" for word, about in completions), end="\n" if completions else "")
    else:
        return FILES
    return status


def answer(typed: Sequence[str]) -> tuple[int, Words]:
    """Return the exit status and the completions of the last typed word. The first word is the program."""
    *before, begun = typed[1:]
    path = ""
    while before and not path:
        word = before.pop(0)
        if word.startswith("-"):
            continue
        if word in GROUPS and before:
            left_out = word in DEFAULTS and f"{word} {before[0]}" not in COMMANDS
            word = f"{word} {DEFAULTS[word] if left_out else before.pop(0)}"
        if word not in COMMANDS and word not in GROUPS:
            return NO_FILES, []
        path = word
    if path in COMMANDS:
        status, completions = _in_command(path, before, begun)
    else:
        status, completions = NO_FILES, _commands(path, begun)
        if path in DEFAULTS:
            status, values = _in_command(f"{path} {DEFAULTS[path]}", [], begun)
            completions = list(dict([*completions, *values]).items())
    return status, [(word, about) for word, about in completions if word.startswith(begun)]


def _commands(group: str, begun: str) -> Words:
    if begun.startswith("-"):
        return [(name, about) for names, _, _, about in PROGRAM if not group or "--help" in names for name in names]
    prefix = f"{group} " if group else ""
    inside = [(name, about) for name, (about, _, _) in COMMANDS.items() if name.startswith(prefix)]
    return [(name.removeprefix(prefix), about) for name, about in [*inside, *([] if group else GROUPS.items())]
            if " " not in name.removeprefix(prefix)]  # fmt: skip


def _in_command(path: str, before: list[str], begun: str) -> tuple[int, Words]:
    _, options, arguments = COMMANDS[path]
    by_name = {name: option for option in options for name in option[0]}
    used: set[str] = set()
    positions, ended = 0, False
    awaiting: Option | None = None
    for word in before:
        if awaiting is not None:
            awaiting = None
        elif word == "--" and not ended:
            ended = True
        elif word.startswith("-") and len(word) > 1 and not ended:
            name, equals, _ = word.partition("=")
            option = by_name.get(name)
            if option is not None:
                used.update(() if option[2] else option[0])
                awaiting = option if option[1] and not equals else None
        else:
            positions += 1
            ended = ended or path == "lab exec"  # the rest is a command of the node
    if awaiting is not None:
        return _values(f"{path} {awaiting[0][0]}", awaiting[1], begun)
    if begun.startswith("-") and not ended:
        name, equals, value = begun.partition("=")
        if equals and name in by_name and by_name[name][1]:
            status, completions = _values(f"{path} {name}", by_name[name][1], value)
            return status, [(f"{name}={word}", about) for word, about in completions]
        return NO_FILES, _options(options, used)
    if arguments and (positions < len(arguments) or arguments[-1].endswith("...")):
        metavar = arguments[min(positions, len(arguments) - 1)].removesuffix("...")
        return _values(f"{path} {metavar}", metavar, begun)
    return NO_FILES, _options(options, used)


def _options(options: Sequence[Option], used: set[str]) -> Words:
    return [(name, about) for names, _, _, about in options for name in names
            if name.startswith("--") and name not in used]  # fmt: skip


def _values(place: str, metavar: str, begun: str) -> tuple[int, Words]:
    """Return the exit status and the words for a value, by its place (command and parameter) or placeholder."""
    if place in _NEW:
        return NO_FILES, []
    choices = CHOICES.get(place) or CHOICES.get(metavar)
    if choices is not None:
        return _PATHS.get(metavar, NO_FILES), [(word, "") for word in choices]
    if metavar in _PATHS:
        return _PATHS[metavar], []
    head = f"{begun.rpartition(',')[0]}," if metavar == "NAMES" and "," in begun else ""
    named = head.split(",")
    values: dict[str, str] = {}
    for names in _LIVE.get(place) or _LIVE.get(metavar) or ():
        try:
            for name, about in names():
                if (
                    name not in named
                    and f"{head}{name}".startswith(begun)
                    and _HARMLESS.issuperset(name)
                    and len(values) < _MOST
                ):
                    values.setdefault(f"{head}{name}", about if about.isprintable() else "")
        except Exception:  # skip a list that can't be read, because a shell can't show its error
            continue
    return NO_FILES, list(values.items())


def _joined(typed: list[str]) -> tuple[list[str], int]:
    """Return the words that bash split, joined again, and how many letters of the last one bash keeps itself."""
    words: list[str] = []
    joins = False
    for word in typed:
        breaks = bool(word) and _BREAKS.issuperset(word)
        if words[1:] and (breaks or joins):
            words[-1] += word
        else:
            words.append(word)
        joins = breaks
    ours = "" if joins else typed[-1]
    return words, len(words[-1]) - len(ours)
