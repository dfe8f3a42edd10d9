"""Run commands on hosts through the installed OpenSSH, with the operator's configuration, agent, and known_hosts.

All commands of a host share one connection. ssh alone checks host keys: an unknown or changed key is an error. ssh
never asks at the terminal.
"""

import contextlib
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from cnictl.cluster.hosts import Answer, Command
from cnictl.core import programs, untrusted_text
from cnictl.core.errors import Problem, ProgramError, UsageProblem
from cnictl.core.process import run

CONNECT_SECONDS = 10
_SILENT_SECONDS, _SILENT_TIMES = 5, 3
"""ssh closes a connection that is silent for the product of the two numbers, in seconds."""
_LARGEST_ANSWER = 32 << 20
"""Bytes. `status -o json` of a node with 5,000 peers has about three million."""
_LONGEST_LINE = 4 << 20
_AT_ONCE = 32
_CONNECTS_AT_ONCE = 8
"""sshd, also on a jump host, drops connections while over ten are unauthenticated (sshd_config(5), MaxStartups)."""
_END_SECONDS = 5.0

_DESTINATION = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_.-]{0,63}@)?[A-Za-z0-9_:][A-Za-z0-9_.:-]{0,252}\Z")
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9/_.-]{1,50}\Z")
"""A path that ssh does not expand, and that is short enough for a socket in that folder (unix(7): 107 bytes)."""

_BEGINS = "cnictl: command output follows"
_AS_ROOT = f"""\
echo "{_BEGINS}"; echo "{_BEGINS}" >&2
PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
if [ "$(id -u)" = 0 ]; then exec "$@"; fi
program=$(command -v "$1") || {{ echo "$1: not found" >&2; exit 127; }}
shift
exec sudo -n -- "$program" "$@"
"""
"""Runs its arguments as root. sudo gets the full path, because it searches other folders than the user's shell does.

Output before the first line does not come from the command: a login shell reads files that may print a greeting.
"""
_REFUSED = re.compile(
    r"sudo: (?!unable to resolve host )|Sorry, user |.* is not in the sudoers file|.* may not run sudo"
)
"""The beginnings of sudo's refusals. If it can't resolve the host's own name, it only warns, and runs the command."""
_END_ON_THE_WAY = "UNKNOWN port 65535"
"""How ssh names the other end if a ProxyCommand has ended."""
_CHANGED_KEY = re.compile(r"Host key for (\S+) has changed")
_OFFENDING = re.compile(r"Offending .*key in (\S+):\d+")
_NO_CNICTL = ("cnictl is not installed there", "cnictl cluster install installs it there, into /usr/local/bin")
VERSION = Command(("cnictl", "--version"))


@dataclass
class _Host:
    name: str
    destination: str
    control: str
    lock: threading.Lock = field(default_factory=threading.Lock)
    first: Answer | None = None
    """The answer of the connection's first command; None until it has answered."""


class Ssh:
    """Hosts reached by ssh, as `Hosts` and `Transport`. As a context manager, it closes its connections."""

    def __init__(self, destinations: Mapping[str, str], first: Command = VERSION) -> None:
        """`destinations`: by name, a host or `user@host`. Raises UsageProblem for a destination of another form.

        `first`: the first command on each connection. If it can't be run on a host, no other command is.
        """
        self._first = first
        for name, destination in destinations.items():
            if not _DESTINATION.match(destination):
                raise UsageProblem(f"{name}: {untrusted_text.line(repr(destination))} is not a host or user@host")
        self._folder = ""
        self._previous_handlers: dict[int, Any] = {}
        """The previous handlers of signals that end this command; replaced so that no connection is left behind."""
        self._destinations = dict(destinations)
        self._hosts: dict[str, _Host] = {}
        self._connecting = threading.Semaphore(_CONNECTS_AT_ONCE)

    @property
    def names(self) -> tuple[str, ...]:
        """The hosts' names."""
        return tuple(self._destinations)

    def __enter__(self) -> Self:
        if not programs.find("ssh"):
            raise Problem("ssh: command not found", "install OpenSSH's client (Debian: openssh-client)")
        self._previous_handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
        for number, handler in self._previous_handlers.items():
            if handler == signal.SIG_DFL:  # otherwise it is ignored (nohup), or has another handler
                signal.signal(number, signal.default_int_handler)
        self._folder = tempfile.mkdtemp(prefix="cnictl-", dir=_runtime_folder())  # mode 0700
        self._hosts = {
            name: _Host(name, destination, f"{self._folder}/{number}")
            for number, (name, destination) in enumerate(self._destinations.items())
        }
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        connected = [host for host in self._hosts.values() if os.path.lexists(host.control)]
        try:
            if connected:
                with ThreadPoolExecutor(_AT_ONCE) as pool:
                    list(pool.map(self._disconnect, connected))
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
            for number, handler in self._previous_handlers.items():
                signal.signal(number, handler)

    def connect(self, on_answer: Callable[[Answer], None] = lambda _: None) -> dict[str, Answer]:
        """Return each host's answer to the first command, which is `cnictl --version` unless another was given."""
        return self._each(self.names, self._connected, on_answer)

    def run(
        self,
        commands: Mapping[str, Command],
        timeout: float,
        on_answer: Callable[[Answer], None] = lambda _: None,
    ) -> dict[str, Answer]:
        """Run a command on each of some hosts as root, all at the same time; see `Hosts.run`."""
        return self._each(commands, lambda name: self._run_on(name, commands[name], timeout), on_answer)

    def reconnect(self, names: Sequence[str]) -> None:
        """Close the connections to some hosts, so that the next command opens a new one."""
        hosts = [self._hosts[name] for name in names]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(self._disconnect, hosts))
        for host in hosts:
            host.first = None
            with contextlib.suppress(FileNotFoundError):
                os.unlink(host.control)  # the ssh process may hang; it ends by itself when its connection does

    def start(self, host: str, argv: Sequence[str]) -> "Session":
        """Start a command on a host as root and return immediately. Raises Problem if the host can't be reached."""
        first = self._connected(host)
        if first.fault:
            raise Problem(first.fault, first.hint)
        reached = self._hosts[host]
        return Session(self._argv(reached, argv), reached.destination, _environment(), marked=True)

    def _each(
        self, names: Iterable[str], ask: Callable[[str], Answer], on_answer: Callable[[Answer], None]
    ) -> dict[str, Answer]:
        def answer(name: str) -> Answer:
            reply = ask(name)
            on_answer(reply)
            return reply

        wanted = list(names)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return dict(zip(wanted, pool.map(answer, wanted), strict=True))

    def _run_on(self, name: str, command: Command, timeout: float) -> Answer:
        first = self._connected(name)
        if first.fault:
            return first
        return self._ask(self._hosts[name], command, timeout)

    def _connected(self, name: str) -> Answer:
        """Return the answer of a host's first command, which makes the connection."""
        host = self._hosts[name]
        with host.lock:
            if host.first is None:
                with self._connecting:
                    host.first = self._ask(host, self._first, CONNECT_SECONDS + 50.0)
            return host.first

    def _ask(self, host: _Host, command: Command, timeout: float) -> Answer:
        try:
            done = run(
                self._argv(host, command.argv),
                stdin=command.stdin,
                timeout=timeout,
                check=False,
                environment=_environment(),
                most=_LARGEST_ANSWER,
                leaves_child=True,
            )
        except ProgramError as error:
            # leave out ssh's command line: it is long, and the operator did not write it
            fault = f"no answer: {error.reason}" if error.reason else error.message
            return Answer(host.name, fault=untrusted_text.line(fault))
        stdout, begun = _of_command(done.stdout)
        stderr, _ = _of_command(done.stderr)
        if done.status == 255 and stderr.rstrip().endswith(_END_ON_THE_WAY):
            stderr = self._words_on_the_way(host) or stderr
        message, hint = fault_of(done.status, stderr, host.destination, stdout)
        if not begun and not message:
            message, hint = _not_begun(done.status, done.stderr or done.stdout, host.destination)
        return Answer(host.name, done.status, stdout, stderr, message, hint)

    def _words_on_the_way(self, host: _Host) -> str:
        """Return ssh's errors with those of a jump host, which ssh discards for a shared connection."""
        alone = ["-o", "ControlMaster=no", "-o", "ControlPath=none", "-o", "ControlPersist=no"]
        argv = ["ssh", *alone, *_options(host.control), "--", host.destination, "true"]
        try:
            done = run(argv, timeout=CONNECT_SECONDS + 10.0, check=False, environment=_environment(), most=1 << 16)
        except ProgramError:
            return ""
        return done.stderr if done.status == 255 else ""

    def _argv(self, host: _Host, argv: Sequence[str]) -> list[str]:
        """Return the whole command line of ssh; the remote shell gets each argument quoted."""
        remote = shlex.join(["sh", "-c", _AS_ROOT, "cnictl", *argv])
        return ["ssh", *_options(host.control), "--", host.destination, remote]

    def _disconnect(self, host: _Host) -> None:
        with contextlib.suppress(ProgramError):
            run(
                ["ssh", *_options(host.control), "-O", "exit", "--", host.destination],
                timeout=_END_SECONDS,
                check=False,
                environment=_environment(),
                leaves_child=True,
            )


class Session:
    """A command that runs on a host, with its stdin and stdout. It implements `cnictl.cluster.transport.Session`."""

    def __init__(
        self, argv: Sequence[str], destination: str, environment: Mapping[str, str], marked: bool = False
    ) -> None:
        """Start `argv`, which takes the command to the host at `destination`.

        `marked`: a line marks where the output of the command begins.
        """
        self._destination = destination
        self._errors = os.memfd_create("stderr")
        self._marked = marked
        self._begun, self._has_answered = not marked, False
        self._ending = threading.Lock()
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, bufsize=0, env=environment
        )

    def send(self, text: str) -> None:
        """Write to the command's stdin. Raises Problem if the command no longer reads it."""
        assert self._process.stdin is not None
        data = text.encode()
        try:
            while data:
                data = data[self._process.stdin.write(data) or 0 :]
        except (OSError, ValueError):
            why, hint = self._why()
            raise Problem(why or "the connection was closed", hint) from None

    def lines(self) -> Iterator[str]:
        """Yield each line of its stdout, until it ends. Raises Problem if the command failed."""
        assert self._process.stdout is not None
        rest, size = b"", 0
        with contextlib.suppress(ValueError, OSError):  # closed meanwhile
            while piece := os.read(self._process.stdout.fileno(), 1 << 16):
                *whole, rest = (rest + piece).split(b"\n")
                yield from self._of_command(line.decode("utf-8", "replace") for line in whole)
                size = 0 if self._begun else size + len(piece)
                if max(len(rest), size) > _LONGEST_LINE:
                    raise Problem(f"answered with a line of over {_LONGEST_LINE >> 20} MiB")
        if rest:
            yield from self._of_command([rest.decode("utf-8", "replace")])
        why, hint = self._why()
        if why:
            raise Problem(why, hint)

    def _of_command(self, lines: Iterable[str]) -> Iterator[str]:
        """Yield the lines that the command itself printed."""
        for line in lines:
            if self._begun:
                self._has_answered = True
                yield line
            self._begun = self._begun or line.rstrip("\r") == _BEGINS

    def close(self) -> None:
        """End the command: close its stdin, wait a bounded time for its end, then kill it."""
        with self._ending:
            assert self._process.stdin is not None
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            try:
                self._process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _why(self) -> tuple[str, str]:
        """Return why the command failed, and the hint; empty if it did not."""
        try:
            status = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return "", ""
        output = os.pread(self._errors, 1 << 16, 0).decode("utf-8", "replace")
        stderr, begun = _of_command(output)
        fault, hint = fault_of(status, stderr, self._destination, "…" if self._has_answered else "")
        if fault or (self._marked and not begun):
            return (fault, hint) if fault else _not_begun(status, output, self._destination)
        answer = Answer(self._destination, status, stderr=stderr)
        return (answer.error, answer.error_hint) if status != 0 else ("", "")


def _of_command(output: str) -> tuple[str, bool]:
    """Return the part of an output that the command itself printed, and whether the command began."""
    before, begins, after = output.partition(f"{_BEGINS}\n")
    return (after, True) if begins else (before, False)


def _not_begun(status: int, output: str, destination: str) -> tuple[str, str]:
    """Return what the login shell printed instead of running the command, and the hint."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    words = untrusted_text.line(lines[-1]) if lines else f"exit status {status}"
    return f"the login shell there does not run commands: {words}", f"try: ssh {destination} true"


def fault_of(status: int, stderr: str, destination: str, stdout: str = "") -> tuple[str, str]:
    """Return why a command was not run on a host, and the hint; both empty if it was run. Pure."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    last = untrusted_text.line(lines[-1]) if lines else ""
    if status == 255:
        return _unreached(stderr, last, destination)
    refusals = [untrusted_text.line(line) for line in lines if _REFUSED.match(line)]
    if status == 127 and "sudo" in last:
        return "sudo is not installed there", 'connect as root: set ssh = "root@…" in the cluster file'
    if status == 127 and "cnictl" in last:
        return _NO_CNICTL
    if status != 0 and refusals and not stdout and not any(line.startswith("cnictl: ") for line in lines):
        hint = "let this user run cnictl and sh without a password (sudoers: NOPASSWD), or connect as root"
        return refusals[0], hint
    return "", ""


def _unreached(stderr: str, last: str, destination: str) -> tuple[str, str]:
    """Return why ssh could not connect, and the hint."""
    host = destination.rpartition("@")[2]
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in stderr:
        changed, offending = _CHANGED_KEY.search(stderr), _OFFENDING.search(stderr)
        name = (
            untrusted_text.word(changed[1]) if changed else host
        )  # the name in known_hosts, not the alias of ssh_config(5)
        whose = "the host's key" if name == host else f"the key of {name}"
        file = f"-f {shlex.quote(untrusted_text.word(offending[1]))} " if offending else ""
        return (
            f"{whose} differs from known_hosts: the host was reinstalled, or another host has its address",
            f"compare the key on the host itself, then: ssh-keygen {file}-R {shlex.quote(name)}",
        )
    if last.endswith(_END_ON_THE_WAY):
        said = [line.strip() for line in stderr.splitlines() if line.strip() and _END_ON_THE_WAY not in line]
        words = untrusted_text.line("; ".join(said[-2:]), 300) if said else "it forwarded no data"
        return f"can't be reached: a host on the path (ProxyJump, ProxyCommand): {words}", f"try: ssh {destination}"
    if "Host key verification failed" in stderr or "host key is known" in stderr:
        return "the host's key is not known yet", f"connect once and compare the fingerprint: ssh {destination}"
    if "Permission denied" in last:
        return last, f"install your key there: ssh-copy-id {destination}; a key with a passphrase needs ssh-add"
    return f"can't be reached: {last or 'ssh printed no error'}", f"try: ssh {destination}"


def _options(control: str) -> list[str]:
    """Return ssh's options. They override the operator's configuration, which applies to all other settings."""
    settings = {
        "BatchMode": "yes",
        "ControlMaster": "auto",
        "ControlPath": control,
        "ControlPersist": "60",
        "ConnectTimeout": str(CONNECT_SECONDS),
        "ServerAliveInterval": str(_SILENT_SECONDS),
        "ServerAliveCountMax": str(_SILENT_TIMES),
        "ClearAllForwardings": "yes",
        "RemoteCommand": "none",
    }
    # -a -x -T: give the hosts no access to the operator's agent, display or terminal
    return ["-a", "-x", "-T", *(word for name, value in settings.items() for word in ("-o", f"{name}={value}"))]


def _environment() -> dict[str, str]:
    """Return the environment of ssh. It also keeps a jump host's ssh, which has no BatchMode, from asking."""
    return {**os.environ, "SSH_ASKPASS": "/bin/false", "SSH_ASKPASS_REQUIRE": "force"}


def _runtime_folder() -> str:
    """Return the user's own folder for sockets, else /tmp."""
    folder = os.environ.get("XDG_RUNTIME_DIR", "")
    if _PLAIN_PATH.match(folder):
        with contextlib.suppress(OSError):
            status = os.stat(folder)
            if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077:
                return folder
    return "/tmp"
