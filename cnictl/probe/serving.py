"""Answer TCP and UDP on a port of a probe pod while requests are sent to it."""

import select
import threading
from types import TracebackType
from typing import Self

from cnictl.core.errors import Problem
from cnictl.probe.pods import CheckedPod
from cnictl.probe.ports import Listener

_LOOK = 0.1


class Serving:
    """Answers on one port of a pod, at all its addresses, within a context. Raises Problem if it can't listen."""

    def __init__(self, pod: CheckedPod, port: int) -> None:
        self._listeners: list[Listener] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        try:
            for address in pod.addresses:
                self._listeners.append(Listener(pod.netns, address, port))
        except OSError as error:
            self._close()
            raise Problem(f"probe pod {pod.name} can't listen on port {port}: {error.strerror}") from None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ending.set()
        self._thread.join()
        self._close()

    def _close(self) -> None:
        for listener in self._listeners:
            listener.close()

    def _run(self) -> None:
        by_socket = {end: listener for listener in self._listeners for end in (listener.tcp, listener.udp)}
        while not self._ending.is_set():
            for ready in select.select(list(by_socket), [], [], _LOOK)[0]:
                by_socket[ready].answer(ready)
