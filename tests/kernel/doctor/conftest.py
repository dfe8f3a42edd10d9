"""The node that each module's faults are made on."""

from collections.abc import Iterator

import pytest

from .harness import World, new_world


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Two nodes that work, for all cases of a module: each leaves them so."""
    with new_world() as one:
        yield one
