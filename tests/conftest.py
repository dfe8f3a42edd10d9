"""What holds for every test."""

import contextlib
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.machine import pytest_sessionfinish, pytest_sessionstart, pytest_terminal_summary
from tests.rebuilt import pytest_runtest_makereport, pytest_runtest_teardown
from tests.warm import commands

__all__ = [
    "pytest_runtest_makereport",
    "pytest_runtest_teardown",
    "pytest_sessionfinish",
    "pytest_sessionstart",
    "pytest_terminal_summary",
]

# a busy machine makes examples slow, which says nothing about the code
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture(scope="session", autouse=True)
def loaded_commands() -> Iterator[None]:
    """Commands on lab nodes don't start anew, unless that is asked for."""
    with contextlib.nullcontext() if os.environ.get(commands.COLD) else commands.loaded():
        yield
