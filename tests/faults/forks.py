"""Fork a loaded program for each call, which takes a tenth of the time that a new process takes.

It runs inside a host's namespaces in a bare interpreter. `tests.faults.inside` sends it requests over its stdin.
Requests and answers use marshal, not json, so that json is not already loaded for a plugin that does not import it.
"""

import marshal
import os
import posix
import sys

from tests.faults import traced

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def serve(program: "Callable[[], None]") -> None:
    """Answer requests of the form (environment, stdin, arguments, number of the system call to kill before)."""
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            request = marshal.load(asked)
        except EOFError:
            return
        marshal.dump(_run(program, *request), answers)
        answers.flush()


def _run(
    program: "Callable[[], None]", environment: "dict[bytes, bytes]", stdin: bytes, arguments: "list[str]", kill_at: int
) -> "tuple[int, bytes, bytes, int]":
    files = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
    try:
        with open(files[0], "wb", closefd=False) as request:
            request.write(stdin)
        os.lseek(files[0], 0, os.SEEK_SET)
        child = os.fork()
        if child == 0:
            _be(program, environment, arguments, files, bool(kill_at))
        status, calls = traced.run_until(child, kill_at) if kill_at else (os.waitpid(child, 0)[1], 0)
        return os.waitstatus_to_exitcode(status), _whole(files[1]), _whole(files[2]), calls
    finally:
        for file in files:
            os.close(file)


def _be(
    program: "Callable[[], None]",
    environment: "dict[bytes, bytes]",
    arguments: "list[str]",
    files: "list[int]",
    to_be_traced: bool,
) -> None:
    """Run the program in the child, and exit."""
    try:
        for number, file in enumerate(files):
            os.dup2(file, number)
        posix.environ.clear()
        posix.environ.update(environment)
        sys.argv = arguments
        if to_be_traced:
            traced.be_traced()
        program()
        sys.stdout.flush()
        os._exit(0)
    except SystemExit as end:
        sys.stdout.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(70)


def _whole(file: int) -> bytes:
    os.lseek(file, 0, os.SEEK_SET)
    with open(file, "rb", closefd=False) as written:
        return written.read()
