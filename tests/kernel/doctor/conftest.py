"""Provide the node on which each module causes its faults."""

from collections.abc import Iterator

import pytest

from .harness import World, new_world


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Yield two working nodes for all cases of a module. Each case leaves them working."""
    with new_world() as fresh:
        yield fresh
