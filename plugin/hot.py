"""Which functions each verb normally calls, and what those import: written by `python -m tests.bench.hot`.

A name that is missing here costs a little time when it is called; one that is no more costs nothing.
"""

FUNCTIONS: dict[str, dict[str, str]] = {}
"""By verb and module: names, qualified by their class, a space between."""

LATER: dict[str, tuple[str, ...]] = {}
"""By verb: what functions import on their way."""
