"""The one way to start another program: argument list, bound on time, its own words in the error."""

from cnictl.core import outside
from cnictl.core.errors import Problem


class Finished:
    """A program that ended: exit status and what it wrote."""

    __slots__ = ("status", "stderr", "stdout")

    def __init__(self, status: int, stdout: str, stderr: str) -> None:
        self.status = status
        self.stdout = stdout
        self.stderr = stderr


shared: set[int] = set()
"""Descriptors that programs hold open as well, which are started while they are in here.

A lock on one then outlasts this process, if that is killed, until the last of them has ended: whoever takes the lock
meets nobody still at work.
"""


def run(
    argv: list[str],
    stdin: str = "",
    timeout: float = 30.0,
    check: bool = True,
    environment: dict[str, str] | None = None,
) -> Finished:
    """Run `argv` (never through a shell) for at most `timeout` seconds, with `environment` in place of our own.

    Raises Problem if the program is missing, is still running at the bound, or (with `check`) exits non-zero.
    """
    import subprocess  # costs the plugin several ms, and most of its calls start no program

    try:
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            errors="replace",
            env=environment,
            pass_fds=tuple(shared),
        )
    except FileNotFoundError:
        raise Problem(f"{argv[0]}: command not found", f"install the package that provides {argv[0]}") from None
    except PermissionError as error:
        raise Problem(f"{argv[0]}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise Problem(f"{' '.join(argv)}: still running after {timeout:g} s") from None
    if check and done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()
        # some say who they are in a line of its own, and what is wrong in the next
        told = " ".join(said[:2]) if said[0].endswith(":") else said[0]
        raise Problem(f"{' '.join(argv)}: {outside.line(told)}")
    return Finished(done.returncode, done.stdout, done.stderr)
