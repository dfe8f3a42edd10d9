"""Doing something in another network namespace: a thread that enters it, and ends. No child process.

A socket stays in the namespace it was made in.
"""

import threading
from collections.abc import Callable
from typing import TypeVar

from cnictl.core.netns import Netns

T = TypeVar("T")


def inside(netns: str, call: Callable[[], T]) -> T:
    """What `call` returns when a thread runs it in the network namespace at path `netns` (empty: our own)."""
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
