"""Follow the source of peers in a thread: judge each change, save it as the last good list, and wake the keeper."""

import contextlib
import os
import random
import threading
from collections.abc import Callable, Iterator

from cnictl.core.errors import Problem, UsageProblem
from cnictl.node.reach import learning, sources
from cnictl.node.reach.source import Source, SourceLost
from cnictl.node.spec.node_spec import NodeSpec, Reach
from cnictl.node.state import learned_peers

_FIRST_RETRY, _LAST_RETRY = 1.0, 30.0
"""Seconds to wait after the source was lost; doubled each time."""
_SPREAD = (0.5, 1.5)
"""Each wait is multiplied by a random number between these, so that not all nodes return at once after an outage."""

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
        """Clear the notification of changes; return whether there were any."""
        try:
            return bool(os.read(self._reader, 4096))
        except BlockingIOError:
            return False

    def check(self) -> None:
        """Note that the list is current, and read the source again if another command could not.

        The keeper calls this each minute, so that the noted age stays small while nothing changes.

        An API server checks tokens and permissions only when a watch begins, so a running watch does not notice that
        they were revoked or restored. If `apply`, which has to list, fails meanwhile, it marks the peers as stale.
        Without this check they would stay stale until a peer changes.
        """
        known = learned_peers.load()
        if not self._is_read or self._source is None or known is None:
            return
        if known.stale_since:
            self._source.close()
        elif self._source.confirmed_at > known.read_at:
            with contextlib.suppress(OSError):
                learned_peers.confirm(self._source.confirmed_at)

    def close(self) -> None:
        """End the thread. The learned peers are kept."""
        self._ended.set()
        if self._source is not None:
            self._source.close()
        self._thread.join(5.0)
        os.close(self._reader)
        os.close(self._writer)

    def _follow(self) -> None:
        waits = pauses()
        while not self._ended.is_set():
            try:
                self._source = sources.open_source(NodeSpec((), (), reach=self.reach))
                version = self._list(self._source)
                waits = pauses()
                for snapshot in self._source.watch(version):
                    spec = self._current()
                    if spec is not None and spec.reach == self.reach:
                        self._keep(learning.record_of(spec, self._source, snapshot))
                    if self._ended.is_set():
                        return
            except (SourceLost, UsageProblem, Problem, OSError) as error:
                self._lost(error)
            except Exception as error:  # a bug in a client must not end the repairs: report it and try again
                self._lost(Problem(f"{type(error).__name__}: {error}"))
            finally:
                if self._source is not None:
                    self._source.close()
            self._ended.wait(next(waits))

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

    def _lost(self, error: Exception) -> None:
        self._is_read = False
        self._say(f"warning: can't read the source of peers; the known peers are kept: {learning.in_words(error)}")
        spec = self._current()
        if spec is not None and spec.reach == self.reach and learned_peers.load() is not None:
            with contextlib.suppress(OSError):
                learned_peers.save(learning.lost_by(spec, spec.reach.source, error))

    def _say(self, words: str) -> None:
        """Report a problem once, not at every retry."""
        if words and words != self._last_words:
            self._tell(words)
        self._last_words = words

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._writer, b"!")


def pauses() -> Iterator[float]:
    """Yield the seconds to wait after each consecutive loss of the source, for ever."""
    usual = _FIRST_RETRY
    while True:
        yield usual * random.uniform(*_SPREAD)
        usual = min(2 * usual, _LAST_RETRY)
