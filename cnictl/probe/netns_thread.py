"""Run a function in another network namespace: in a short-lived thread, without a child process.

A socket stays in the namespace in which it was created.
"""

import threading
from collections.abc import Callable
from typing import TypeVar

from cnictl.core.netns import Netns

T = TypeVar("T")


def inside(netns: str, call: Callable[[], T]) -> T:
    """Run `call` in the network namespace at path `netns` (empty: our own) and return its result."""
    if not netns:
        return call()
    answers: list[T] = []
    failures: list[BaseException] = []

    def enter_and_call() -> None:
        try:
            namespace = Netns(netns)
            try:
                namespace.enter()
            finally:
                namespace.close()
            answers.append(call())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=enter_and_call)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return answers[0]
