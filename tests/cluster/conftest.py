"""Worlds with sshd for the tests of `cnictl cluster`."""

from collections.abc import Iterator

import pytest

from tests.cluster.world import World, world


@pytest.fixture(scope="module")
def bare() -> Iterator[World]:
    """Six hosts that are no nodes yet, and an operator without a cluster file."""
    with world(6) as made:
        yield made


@pytest.fixture(scope="module")
def three() -> Iterator[World]:
    """Three nodes that one `cluster apply` set up; a test leaves them as they were."""
    with world(3) as made:
        made.write(made.text(made.nodes, with_cidrs=True))
        made.cluster("apply")
        yield made
