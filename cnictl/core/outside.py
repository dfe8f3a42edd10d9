"""Text from outside: names of pods, containers and interfaces, and what other programs say.

Whoever chooses a name also chooses what a terminal does with it, and how long a line of a log gets. Each such text
passes here before it is stored, logged or shown. JSON documents have their own escapes and keep the exact value.
"""

LONGEST_NAME = 253
"""Characters of a name: those of a DNS subdomain, which is the longest that Kubernetes gives to an object."""
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_NAME = _LETTERS | frozenset("_.-")
LONGEST_TEXT = 1000
"""Characters of a message."""


def line(text: str, longest: int = LONGEST_TEXT) -> str:
    """Return a text as one printable line of at most `longest` characters.

    Control characters, line ends, half surrogate pairs and invisible characters (which can reverse the text around
    them) become escapes such as `\\x1b`. A text that is cut ends with `…`.
    """
    if len(text) <= longest and text.isprintable():
        return text
    return cut("".join(map(_escaped, text[: longest + 1])), longest)


def word(text: str, longest: int = LONGEST_NAME) -> str:
    """Return a text as one printable word of at most `longest` characters: blanks are escaped too."""
    shown = line(text, longest)
    return cut(shown.replace(" ", "\\x20"), longest) if " " in shown else shown


def is_name(text: str, longest: int = 200) -> bool:
    """Whether a text may name a network (CNI specification 1.1.0, section 1), of a length that is served."""
    return bool(text) and text[0] in _LETTERS and len(text) <= longest and _NAME.issuperset(text)


def cut(text: str, longest: int) -> str:
    """Return the start of a text where it has more than `longest` characters; `…` says so."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _escaped(letter: str) -> str:
    return letter if letter.isprintable() else repr(letter)[1:-1]
