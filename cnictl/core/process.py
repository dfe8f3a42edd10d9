"""Run another program with an argument list and a time limit. Its own message is part of the error."""

import time
from _thread import _local
from posix import close, lseek, memfd_create, read, write

from cnictl.core import programs, untrusted_text
from cnictl.core.errors import MissingProgram, ProgramError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from subprocess import Popen

LARGEST_OUTPUT = 256 << 20
"""Bytes; a program that writes more is killed. All rules of a node as JSON have some ten million."""
_PAUSE = 0.0005
_LOOK = 0.05
"""Seconds between two checks whether a program that leaves a child has ended."""


class Finished:
    """A program that has ended: its exit status and output."""

    __slots__ = ("status", "stderr", "stdout")

    def __init__(self, status: int, stdout: str, stderr: str) -> None:
        self.status = status
        self.stdout = stdout
        self.stderr = stderr


shared: set[int] = set()
"""Descriptors that started programs inherit. If this process is killed, a lock on one lasts until they have ended."""


class _Reuse(_local):
    outputs: "dict[tuple[str, ...], Finished] | None" = None


reuse = _Reuse()
"""This thread's outputs of listing programs, reused while it reads the host (`cnictl.node.host.reading`).

None: run each program again.
"""


def run(
    argv: list[str],
    stdin: str = "",
    timeout: float = 30.0,
    check: bool = True,
    environment: dict[str, str] | None = None,
    purpose: str = "",
    most: int = LARGEST_OUTPUT,
    leaves_child: bool = False,
) -> Finished:
    """Run `argv` without a shell for at most `timeout` seconds, with `environment` in place of ours.

    The program is searched for as `programs.find` does, and gets a PATH with the same folders.

    Raises MissingProgram if it can't be started; ProgramError if it is still running at the time limit, or (with
    `check`) exits with a status other than 0. `purpose`: what the program is for, shown in the message. `most`: the
    bytes that it may write. `leaves_child`: the program leaves a process that may keep its outputs open, so reading
    stops when the program ends.
    """
    outputs = reuse.outputs
    if outputs is not None and check and not stdin and environment is None and tuple(argv) in outputs:
        return outputs[tuple(argv)]
    import os
    import subprocess  # costs the plugin several ms, and most of its calls start no program

    prefix = f"{purpose}: {argv[0]}" if purpose else argv[0]
    program = argv[0] if "/" in argv[0] else programs.find(argv[0])
    if not program:
        raise MissingProgram(f"{prefix}: command not found", f"install the package that provides {argv[0]}")
    deadline = time.monotonic() + timeout
    given = memfd_create("stdin")  # takes any length in one write; a pipe would fill up
    try:
        text = stdin.encode("utf-8", "surrogateescape")
        while text:
            text = text[write(given, text) :]
        lseek(given, 0, 0)
        started = subprocess.Popen(
            argv,
            executable=program,
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PATH": programs.path()} if environment is None else environment,
            pass_fds=tuple(shared),
        )
    except FileNotFoundError:
        raise MissingProgram(f"{prefix}: command not found", f"install the package that provides {argv[0]}") from None
    except OSError as error:
        # it isn't executable for us, or has another format, such as a script without `#!`
        hint = f"{program} can't be started: install its package again"
        raise MissingProgram(f"{prefix}: {error.strerror}", hint) from None
    finally:
        close(given)
    with started.stdout, started.stderr:  # type: ignore[union-attr]  # both are pipes
        fault, written = _collect(started, deadline, most, leaves_child)
    if fault:
        raise _failed([prefix, *argv[1:]], fault.format(timeout=timeout))
    done = Finished(started.returncode, *written)
    if check and done.status != 0:
        lines = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.status}").splitlines()
        # some programs name themselves in the first line, and the fault in the next
        words = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
        raise _failed([prefix, *argv[1:]], untrusted_text.line(words))
    if outputs is not None and done.status == 0 and not stdin and environment is None and _lists(argv):
        outputs[tuple(argv)] = done
    return done


def _failed(words: list[str], reason: str) -> ProgramError:
    return ProgramError(f"{' '.join(words)}: {reason}", reason=reason)


def _lists(argv: list[str]) -> bool:
    """Return whether a program only lists something."""
    name, words = argv[0].rpartition("/")[2], argv[1:]
    if name == "nft":
        return "list" in words[:3]
    if name.startswith(("iptables", "ip6tables")):
        return name.endswith("-save") or "-S" in words
    if name == "ip":
        return "-j" in words or "-json" in words
    return name == "containerd" and words[-2:] == ["config", "dump"]


def _collect(started: "Popen[bytes]", deadline: float, most: int, leaves_child: bool) -> tuple[str, list[str]]:
    """Read both outputs and wait for the program to end; return its fault (empty: none) and the outputs.

    A program that runs past the deadline, or writes too much, is killed.
    """
    from select import POLLIN, poll

    read_from = {pipe.fileno(): bytearray() for pipe in (started.stdout, started.stderr) if pipe is not None}
    waiting, watch = set(read_from), poll()
    for number in waiting:
        watch.register(number, POLLIN)
    fault = ""
    try:
        while waiting and not fault:
            left = deadline - time.monotonic()
            ended = leaves_child and started.poll() is not None
            bound = _LOOK if leaves_child else left
            ready = watch.poll(0 if ended else max(0.0, min(left, bound)) * 1000)
            if ended and not ready:
                break
            for number, _ in ready:
                piece = read(number, 1 << 16)
                read_from[number] += piece
                if not piece:
                    watch.unregister(number)
                    waiting.discard(number)
            if sum(map(len, read_from.values())) > most:
                fault = f"answered with over {most >> 20} MiB"
            elif waiting and left <= 0:
                fault = "still running after {timeout:g} s"
        while not fault and started.poll() is None:  # it has closed its outputs but still runs
            time.sleep(_PAUSE)
            if time.monotonic() > deadline:
                fault = "still running after {timeout:g} s"
    finally:
        if started.poll() is None:
            started.kill()
            started.wait()
    texts = [bytes(data).decode("utf-8", "replace") for data in read_from.values()]
    return fault, [text.replace("\r\n", "\n").replace("\r", "\n") for text in texts]
