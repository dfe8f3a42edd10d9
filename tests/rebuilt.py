"""Rebuild a module's shared fixtures after a failed test, so that other tests don't meet its leftovers.

Hooks of pytest, for a conftest to import: whatever has the module's scope (a lab, a node, a world of doctor's) is ended
with the test that failed, and made anew for the next one.
"""

from collections.abc import Generator

import pytest

_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note that a test, or what it needs, failed."""
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """End what the module's tests share if this one failed, or left something that can't be taken away."""
    module = item.getparent(pytest.Module)
    try:
        yield
    except BaseException:
        item.stash[_FAILED] = True
        raise
    finally:
        if item.stash.get(_FAILED, False) and module is not None and module.parent is not None:
            # `teardown_exact` ends all but what the given node needs: the folders above the module
            item.session._setupstate.teardown_exact(module.parent)  # type: ignore[arg-type]
