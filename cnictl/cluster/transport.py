"""Define how commands are started on the cluster's hosts. The transport can be OpenSSH or a lab."""

from collections.abc import Iterator, Sequence
from typing import Protocol


class Session(Protocol):
    """A command that runs on a host, with its stdin and stdout."""

    def send(self, text: str) -> None:
        """Write to the command's stdin. Raises Problem if the command no longer reads it."""

    def lines(self) -> Iterator[str]:
        """Yield each line of its stdout until it ends. A line that is too long is cut or refused.

        Raises Problem if the host can't be reached or the command fails. The message is the last line of the command's
        stderr, or ssh's own error.
        """

    def close(self) -> None:
        """End the command: close its stdin, wait a bounded time for its end, then kill it. May be called twice.

        It may be called from another thread than the one that reads `lines`, which then ends.
        """


class Transport(Protocol):
    """Starts commands on hosts."""

    def start(self, host: str, argv: Sequence[str]) -> Session:
        """Start `argv` on `host` as root and return immediately. Raises Problem; so may `Session.lines`."""
