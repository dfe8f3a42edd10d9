"""How commands are started on the cluster's hosts, whatever carries them: OpenSSH, or a lab."""

from collections.abc import Iterator, Sequence
from typing import Protocol


class Session(Protocol):
    """A command that runs on a host, with its stdin and stdout."""

    def send(self, text: str) -> None:
        """Write to the command's stdin. Raises Problem if it reads no more."""

    def lines(self) -> Iterator[str]:
        """Yield each line of its stdout, as it comes, until it ends; a line of unbounded length is cut or refused.

        Raises Problem if the host can't be reached or the command fails; the message says why in one line: the last
        line of its stderr, or ssh's own words.
        """

    def close(self) -> None:
        """End the command: close its stdin, wait a bounded time for its end, then kill it. May be called twice.

        It may be called from another thread than the one that reads `lines`, which then ends.
        """


class Transport(Protocol):
    """Starts commands on hosts."""

    def start(self, host: str, argv: Sequence[str]) -> Session:
        """Start `argv` on `host` as root and return at once. Raises Problem; so may `Session.lines`."""
