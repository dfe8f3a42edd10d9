"""Rebuild a module's shared fixtures after a failed test, so that its leftovers do not affect other tests.

These are pytest hooks for a conftest to import. After a failed test, everything with module scope (a lab, a node, the
world of doctor's tests) is torn down, and the next test gets a new one.
"""

from collections.abc import Generator

import pytest

_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Record that a test or one of its fixtures failed."""
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Tear down the module's shared fixtures if this test failed or its own teardown did."""
    module = item.getparent(pytest.Module)
    try:
        yield
    except BaseException:
        item.stash[_FAILED] = True
        raise
    finally:
        if item.stash.get(_FAILED, False) and module is not None and module.parent is not None:
            # `teardown_exact` tears down everything except what the given node needs, here the folders above the module
            item.session._setupstate.teardown_exact(module.parent)  # type: ignore[arg-type]
