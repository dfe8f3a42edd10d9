"""Send numbered packets between two pods and back, and count those that are lost."""

import json
import subprocess
from dataclasses import dataclass
from types import TracebackType

from tests.kernel.commands import Pod

INTERVAL = 0.02
"""Seconds between two packets."""

_ECHO = """
import socket
heard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
heard.bind(("", 7777))
print("ready", flush=True)
while True:
    packet, sender = heard.recvfrom(64)
    heard.sendto(packet, sender)
"""
_SEND = """
import json, select, socket, sys, time
to, interval = (sys.argv[1], 7777), float(sys.argv[2])
ways = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
back = set()

def hear(until, enough=lambda: False):
    while (left := until - time.monotonic()) > 0 and not enough():
        readable = select.select([ways, sys.stdin], [], [], left)[0]
        if ways in readable:
            back.add(int(ways.recv(64)))
        elif readable:
            return False
    return True

ways.sendto(b"-1", to)
assert hear(time.monotonic() + 5, lambda: back), "not even the first packet came back"
print("ready", flush=True)
sent, refused, due = 0, 0, time.monotonic()
while True:
    try:
        ways.sendto(b"%d" % sent, to)
    except OSError:
        refused += 1
    sent += 1
    due = max(due + interval, time.monotonic())
    if not hear(due):
        break
end = time.monotonic() + 3
while len(back) < sent + 1 and time.monotonic() < end:
    if select.select([ways], [], [], 0.1)[0]:
        back.add(int(ways.recv(64)))
print(json.dumps({"sent": sent, "refused": refused, "lost": sorted(set(range(sent)) - back)}))
"""


@dataclass(frozen=True)
class Counted:
    """The result of a stream."""

    sent: int
    refused: int
    """The number of packets that the sender's own kernel refused."""
    lost: list[int]
    """The numbers of the packets that did not come back."""


class Stream:
    """Packets from one pod to another and back, while the context lasts."""

    def __init__(self, sender: Pod, receiver: Pod) -> None:
        self._sender, self._receiver = sender, receiver
        self.counted = Counted(0, 0, [])
        """Set when the context ends."""

    def __enter__(self) -> "Stream":
        self._echo = self._receiver.popen(["python3", "-c", _ECHO])
        assert self._echo.stdout is not None
        assert self._echo.stdout.readline(), self._echo.communicate()[1]
        command = self._sender.command("python3", "-c", _SEND, self._receiver.address, str(INTERVAL))
        self._sending = self._sender.node.popen(command, stdin=subprocess.PIPE)
        assert self._sending.stdout is not None
        if not self._sending.stdout.readline():
            self._echo.kill()
            raise AssertionError(self._sending.communicate()[1])
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        said, told = self._sending.communicate(timeout=30)  # closing its stdin ends the sender
        self._echo.kill()
        self._echo.communicate(timeout=30)
        if kind is None:
            assert said, told
            self.counted = Counted(**json.loads(said))
