"""Which functions each verb normally calls, and what those import: written by `python -m tests.bench.hot`.

A name that is missing here costs a little time when it is called; one that is no more costs nothing.
"""

FUNCTIONS: dict[str, tuple[str, ...]] = {}
LATER: dict[str, tuple[str, ...]] = {}
