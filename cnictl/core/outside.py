"""Text from outside: names of pods, containers and interfaces, and what other programs say.

Whoever chooses a name also chooses what a terminal does with it, and how long a line of a log gets. Each such text
passes here before it is stored, logged or shown. JSON documents have their own escapes and keep the exact value.
"""

LONGEST_NAME = 253
"""Characters of a name: those of a DNS subdomain, which is the longest that Kubernetes gives to an object."""
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
    them) become escapes such as `\\x1b`. A text that is cut ends with `…`.
    """
    if len(text) <= longest and text.isprintable():
        return text
    return cut("".join(map(_escaped, text[: longest + 1])), longest)


def word(text: str, longest: int = LONGEST_NAME) -> str:
    """Return a text as one printable word of at most `longest` characters: blanks are escaped too."""
    shown = line(text, longest)
    return cut(shown.replace(" ", "\\x20"), longest) if " " in shown else shown


def is_network_name(text: str) -> bool:
    """Return whether a text can name a network."""
    return text[:1] in NAME_STARTS and len(text) <= NETWORK_NAME_MAX and NAME_CHARACTERS.issuperset(text)


def cut(text: str, longest: int) -> str:
    """Return the start of a text where it has more than `longest` characters; `…` says so."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _escaped(letter: str) -> str:
    return letter if letter.isprintable() else repr(letter)[1:-1]
