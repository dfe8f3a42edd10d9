"""Bound and escape text from outside: names of pods, containers and interfaces, and messages of other programs.

Whoever chooses a name could otherwise control the terminal that shows it, or fill a log. All such text passes through
this module before it is stored, logged or shown. JSON documents have their own escapes and keep the exact value.
"""

LONGEST_NAME = 253
"""Characters of a name: as many as a DNS subdomain has, the longest name of a Kubernetes object."""
NAME_STARTS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
NAME_CHARACTERS = NAME_STARTS | frozenset("_.-")
"""Of a network's and a container's name (CNI specification 1.1.0, sections 1 and 2): the first, and all."""
NETWORK_NAME_MAX = 200
"""Characters of a network's name: with a prefix it has to fit a link's alias (255 bytes) and a file's name."""
LONGEST_TEXT = 1000
"""Characters of a message."""


def line(text: str, longest: int = LONGEST_TEXT) -> str:
    """Return a text as one printable line of at most `longest` characters.

    Control characters, line ends, half surrogate pairs and invisible characters (which can reverse the text around
    them) become escapes such as `\\x1b`. A text that was cut ends with `…`.
    """
    if len(text) <= longest and text.isprintable():
        return text
    return cut("".join(map(_escaped, text[: longest + 1])), longest)


def word(text: str, longest: int = LONGEST_NAME) -> str:
    """Return a text as one printable word of at most `longest` characters: like `line`, with blanks escaped too."""
    shown = line(text, longest)
    return cut(shown.replace(" ", "\\x20"), longest) if " " in shown else shown


def is_network_name(text: str) -> bool:
    """Return whether a text can name a network."""
    return text[:1] in NAME_STARTS and len(text) <= NETWORK_NAME_MAX and NAME_CHARACTERS.issuperset(text)


def cut(text: str, longest: int) -> str:
    """Return a text, cut to `longest` characters; then it ends with `…`."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _escaped(letter: str) -> str:
    return letter if letter.isprintable() else repr(letter)[1:-1]
