"""Say in words how a change of our accept rules differs from what was there: what is accepted, and what no longer is.

Pure.
"""

import re
from collections.abc import Sequence

_FROM = re.compile(r"-s (\S+?)(?:/32|/128)? -d \S+ -o \S+ -m comment ")
"""A rule that accepts what one source sends to pods, such as a peer."""


def changed_sources(old: Sequence[str], new: Sequence[str]) -> str:
    """Return in words which sources are accepted from now on and which no longer are.

    Empty if other rules differ too, or if nothing was accepted before.
    """
    added = [_FROM.match(rule) for rule in new if rule not in old]
    removed = [_FROM.match(rule) for rule in old if rule not in new]
    come, gone = (", ".join(match[1] for match in matches if match) for matches in (added, removed))
    if not old or not (added or removed) or not all([*added, *removed]):
        return ""
    if come and gone:
        return f"accept packets to pods from {come}, and no longer from {gone},"
    return f"accept packets to pods from {come}" if come else f"stop accepting packets to pods from {gone}"
