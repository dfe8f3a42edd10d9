"""Load cnictl once, and fork it for each client's command."""

import importlib
import json
import os
import select
import signal
import socket
import sys
from typing import Any, NoReturn

from cnictl.cli import groups
from cnictl.lab import enter
from cnictl.lab.syscalls import allow_inspection, die_with_parent, rename_process
from cnictl.probe import icmp

from . import compiled

_LOADED = (
    "pyroute2", "rich.table", "rich.console", "netaddr", "tomlkit", "cnictl.cli.main", "cnictl.doctor.catalogue",
    "cnictl.doctor.fixes", "cnictl.node.runs.history", "cnictl.node.runs.reset", "cnictl.node.runs.confirm",
    "cnictl.node.runs.confirm_guard", "cnictl.node.preflight", "cnictl.views.status", "cnictl.watch.keeper",
)  # fmt: skip


def main(name: str) -> None:
    """Serve clients until killed."""
    die_with_parent(signal.SIGKILL)
    for module in _LOADED:
        importlib.import_module(module)
    groups.load_all()
    assert not icmp._run.cache_info().currsize, "each command must draw its own mark for echo requests"
    compiled.once()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(f"\0{name}")
    listening.listen(64)
    print("loaded", flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        asking, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                _serve(asking)
            finally:
                os._exit(1)
        asking.close()


def _serve(asking: socket.socket) -> NoReturn:
    words, descriptors, _, _ = socket.recv_fds(asking, 1 << 20, 3)
    wanted: dict[str, Any] = json.loads(words)
    for standard, descriptor in enumerate(descriptors):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(wanted["env"])
    enter._enter(wanted["pid"])
    command = os.fork()
    if command == 0:
        asking.close()
        _run(wanted["argv"])
    for standard in range(3):
        os.close(standard)
    ended = os.pidfd_open(command)
    while True:
        ready, _, _ = select.select([asking.fileno(), ended], [], [])
        if ended in ready:
            break
        received = asking.recv(1)
        if not received:  # the client was killed
            os.kill(command, signal.SIGKILL)
            break
        os.kill(command, received[0])
    _, status = os.waitpid(command, 0)
    asking.send(str(status).encode())
    os._exit(0)


def _run(argv: list[str]) -> NoReturn:
    from cnictl.cli.main import main as run

    die_with_parent(signal.SIGKILL)
    allow_inspection()  # exec would have made the process inspectable again
    rename_process("cnictl")
    os.chdir("/root")
    sys.argv = list(argv)
    status = 0
    try:
        run()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except KeyboardInterrupt:
        status = 130
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)
