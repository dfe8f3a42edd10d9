"""Stand in for a command on a host: pass descriptors and signals to the server, and exit as the command does."""

import os
import select
import signal
import socket

_PASSED_ON = (signal.SIGTERM, signal.SIGHUP)
_KILL_COMMAND = signal.SIGUSR1  # the same as cnictl.lab.enter.KILL_COMMAND


def main(name: str, wanted: str) -> None:
    """Have the server run the command, and exit with its status or signal."""
    asking = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    asking.connect(f"\0{name}")
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for number in (*_PASSED_ON, _KILL_COMMAND):
        signal.signal(number, lambda *_: None)
    for ignored in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(ignored, signal.SIG_IGN)
    socket.send_fds(asking, [wanted.encode()], [0, 1, 2])
    for standard in range(3):
        os.close(standard)  # from here on only the command has them open, so they close when it ends
    while True:
        ready, _, _ = select.select([asking.fileno(), reader], [], [])
        if reader in ready:
            for got in os.read(reader, 64):
                asking.send(bytes((signal.SIGKILL if got == _KILL_COMMAND else got,)))
        if asking.fileno() in ready:
            break
    status = int(asking.recv(64) or b"125")
    if os.WIFSIGNALED(status):
        ended_by = os.WTERMSIG(status)
        if ended_by not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(ended_by, signal.SIG_DFL)
        os.kill(os.getpid(), ended_by)
    os._exit(os.waitstatus_to_exitcode(status))
