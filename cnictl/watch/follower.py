"""Follow the source of peers in a thread: judge each change, save it as the last good list, and wake the keeper."""

import contextlib
import os
import threading
from collections.abc import Callable

from cnictl.core.errors import Problem, UsageProblem
from cnictl.node.reach import learning, sources
from cnictl.node.reach.source import Source, SourceLost
from cnictl.node.spec.node_spec import NodeSpec, Reach
from cnictl.node.state import learned_peers

_FIRST_RETRY, _LAST_RETRY = 1.0, 30.0
"""Seconds to wait after the source was lost; doubled each time."""

Tell = Callable[[str], None]


class Follower:
    """Keeps one source's list up to date until `close`."""

    def __init__(self, current: Callable[[], NodeSpec | None], reach: Reach, tell: Tell) -> None:
        """`current` returns the node's present spec."""
        self.reach = reach
        self._current, self._tell = current, tell
        self._ended = threading.Event()
        self._source: Source | None = None
        self._last_words = ""
        self._is_read = False
        """Whether the source could be read at the last try."""
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._follow, name="source", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        """Return a descriptor that is readable after a change, until `seen`."""
        return self._reader

    def seen(self) -> bool:
        """Take note of the changes so far; return whether there are any."""
        try:
            return bool(os.read(self._reader, 4096))
        except BlockingIOError:
            return False

    def check(self) -> None:
        """Read the source again if another command could not, though the watch here goes on.

        An API server looks at tokens and rights only when a watch begins. So a watch notices neither that they are
        gone nor that they are back, and `apply`, which has to list, would leave the peers stale until one changes.
        """
        known = learned_peers.load()
        if self._is_read and self._source is not None and known is not None and known.stale_since:
            self._source.close()

    def close(self) -> None:
        """End the thread. What it learned stays."""
        self._ended.set()
        if self._source is not None:
            self._source.close()
        self._thread.join(5.0)
        os.close(self._reader)
        os.close(self._writer)

    def _follow(self) -> None:
        retry = _FIRST_RETRY
        while not self._ended.is_set():
            try:
                self._source = sources.opened(NodeSpec((), (), reach=self.reach))
                version = self._list(self._source)
                retry = _FIRST_RETRY
                for snapshot in self._source.watch(version):
                    spec = self._current()
                    if spec is not None and spec.reach == self.reach:
                        self._keep(learning.record_of(spec, self._source, snapshot))
                    if self._ended.is_set():
                        return
            except (SourceLost, UsageProblem, Problem, OSError) as error:
                self._lost(learning.in_words(error))
            except Exception as error:  # a bug in a client must not end the repairs: report it and try again
                self._lost(f"{type(error).__name__}: {error}")
            finally:
                if self._source is not None:
                    self._source.close()
            self._ended.wait(retry)
            retry = min(2 * retry, _LAST_RETRY)

    def _list(self, source: Source) -> str:
        spec = self._current()
        snapshot = source.list()
        self._is_read = True
        if spec is not None and spec.reach == self.reach:
            self._keep(learning.record_of(spec, source, snapshot))
        return snapshot.version

    def _keep(self, learned: learned_peers.Learned) -> None:
        before = learned_peers.load()
        learned_peers.save(learned)
        if learned.trouble:
            self._say(f"warning: {learned.source}: {learned.trouble}")
        elif self._last_words:
            self._say("")
            self._tell(f"{learned.source} is readable again")
        if learned.conflict:
            self._tell(f"error: {learned.conflict}")
        if before is None or before.peers != learned.peers:
            self._wake()

    def _lost(self, why: str) -> None:
        self._is_read = False
        self._say(f"warning: can't read the source of peers; the known peers stay: {why}")
        spec = self._current()
        if spec is not None and spec.reach == self.reach and learned_peers.load() is not None:
            with contextlib.suppress(OSError):
                learned_peers.save(learning.stale(spec, spec.reach.source, why))

    def _say(self, words: str) -> None:
        """Report a problem once, not at every retry."""
        if words and words != self._last_words:
            self._tell(words)
        self._last_words = words

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._writer, b"!")
