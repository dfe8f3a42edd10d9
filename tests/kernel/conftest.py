"""Nodes to test on: labs of real kernel namespaces, with or without root. Nothing of the machine is touched."""

from collections.abc import Iterator

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.plugin.client import Host, new_host


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Two bare nodes and a host outside, for this test alone."""
    with Lab(nodes=2) as fresh:
        yield fresh


@pytest.fixture(scope="module")
def shared_lab() -> Iterator[Lab]:
    """Two bare nodes and a host outside, for all tests of a module: for those that leave a node as it was."""
    with Lab(nodes=2) as fresh:
        yield fresh


@pytest.fixture
def node() -> Iterator[Node]:
    """One bare node, for this test alone."""
    with Lab(nodes=1) as fresh:
        yield fresh.nodes[0]


@pytest.fixture(scope="module")
def shared_node() -> Iterator[Node]:
    """One bare node, for all tests of a module: for those that leave it as it was."""
    with Lab(nodes=1) as fresh:
        yield fresh.nodes[0]


@pytest.fixture
def host() -> Iterator[Host]:
    """One host that knows nothing of cnictl, for calling the plugin as a runtime does."""
    with new_host() as one:
        yield one
