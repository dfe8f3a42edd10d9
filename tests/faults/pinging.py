"""Check that pods which ping each other during a test lose no packet."""

import re
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.waiting import wait_for


@contextmanager
def pinging(enter: Callable[[int], Sequence[str]], targets: Sequence[str], least: int = 10) -> Iterator[None]:
    """Let pod n ping `targets[n]` five times a second. `enter(n)` is the command prefix that runs in pod n.

    At the end, at least `least` requests of each pod must be answered, and only the last may be unanswered.
    """
    with tempfile.TemporaryDirectory() as folder:
        told = [Path(folder, str(place)) for place, _ in enumerate(targets)]
        running = []
        for place, target in enumerate(targets):
            command = [*enter(place), "ping", "-n", "-i", "0.2", target]
            with told[place].open("w") as output:
                running.append(subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT))
        try:
            yield
            wait_for(lambda: all(len(_answered(file.read_text())) >= least for file in told), "enough answers", 60)
        finally:
            for ping in running:
                ping.send_signal(signal.SIGINT)
                ping.wait(30)
        for file in told:
            _judge(file.read_text())


def _answered(said: str) -> list[int]:
    return [int(number) for number in re.findall(r"bytes from .* icmp_seq=(\d+) ", said)]


def _judge(said: str) -> None:
    answered = _answered(said)
    sent = re.search(r"(\d+) packets transmitted", said)
    assert answered == list(range(1, len(answered) + 1)), said
    assert sent is not None and int(sent[1]) - len(answered) <= 1, said
