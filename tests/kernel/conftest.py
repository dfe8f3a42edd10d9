"""Provide nodes to test on: labs of kernel namespaces, as root or not. Nothing on the machine itself changes."""

from collections.abc import Iterator

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.plugin.client import Host, new_host


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Yield two bare nodes and a host outside, for this test alone."""
    with Lab(nodes=2) as fresh:
        yield fresh


@pytest.fixture(scope="module")
def shared_lab() -> Iterator[Lab]:
    """Yield two bare nodes and a host outside, for all tests of a module that leave them unchanged."""
    with Lab(nodes=2) as fresh:
        yield fresh


@pytest.fixture
def node() -> Iterator[Node]:
    """Yield one bare node, for this test alone."""
    with Lab(nodes=1) as fresh:
        yield fresh.nodes[0]


@pytest.fixture(scope="module")
def shared_node() -> Iterator[Node]:
    """Yield one bare node, for all tests of a module that leave it unchanged."""
    with Lab(nodes=1) as fresh:
        yield fresh.nodes[0]


@pytest.fixture
def host() -> Iterator[Host]:
    """Yield one host without cnictl's setup, on which tests call the plugin as a runtime does."""
    with new_host() as fresh:
        yield fresh
