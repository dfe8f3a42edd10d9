"""Define labs with sshd for the tests of `cnictl cluster`."""

from collections.abc import Iterator

import pytest

from tests.cluster.world import World, world


@pytest.fixture(scope="module")
def bare() -> Iterator[World]:
    """Yield six hosts that are not nodes yet, and an operator without a cluster file."""
    with world(6) as made:
        yield made


@pytest.fixture(scope="module")
def three() -> Iterator[World]:
    """Yield three nodes that one `cluster apply` set up. Each test leaves them unchanged."""
    with world(3) as made:
        made.write(made.text(made.nodes, with_cidrs=True))
        made.cluster("apply")
        yield made
