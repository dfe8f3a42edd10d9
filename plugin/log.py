"""One line a call in the plugin's log. A log that can't be written never fails the call."""

import time
from posix import O_APPEND, O_CLOEXEC, O_CREAT, O_NONBLOCK, O_WRONLY, close, fchmod, fstat, write
from posix import open as open_descriptor

from cnictl.core.durable import make_folder

from .environment import Call

_SHOWN_ARGS = frozenset(
    ("IgnoreUnknown", "K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_UID", "K8S_POD_INFRA_CONTAINER_ID", "IP", "MAC")
)
"""Of CNI_ARGS what is known to be no secret; another key's value may be anything, and the log is often passed on."""


def log_call(path: str, level: str, call: Call, outcome: str, failed: bool, milliseconds: float, address: str) -> None:
    """Append `TIME LEVEL VERB OUTCOME DURATION container= ifname= pod= address=` (UTC; milliseconds)."""
    if level == "off" or (level == "error" and not failed):
        return
    parts = [
        time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "error" if failed else "info",
        call.verb,
        f"{milliseconds:.1f}ms",
        f"container={call.container or '-'}",
        f"ifname={call.ifname or '-'}",
        f"pod={call.pod or '-'}",
        f"address={address or '-'}",
    ]
    if level == "debug":
        shown = {key: value if key in _SHOWN_ARGS else "(left out)" for key, value in call.args.items()}
        parts += [f"netns={call.netns or '-'}", f"args={shown}"]
    parts.append(f"outcome={outcome}")
    line = " ".join(parts)
    if not line.isprintable():  # a refused name may hold line ends and a terminal's control sequences
        line = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in line)
    try:
        _append(path, line.encode("utf-8", "backslashreplace") + b"\n")
    except OSError:
        return


def _append(path: str, line: bytes) -> None:
    flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK  # a pipe that nobody reads must not hold us
    try:
        descriptor = open_descriptor(path, flags, 0o640)
    except FileNotFoundError:
        make_folder(path.rpartition("/")[0], 0o750)
        descriptor = open_descriptor(path, flags, 0o640)
    try:
        if not fstat(descriptor).st_size:
            fchmod(descriptor, 0o640)  # whatever the runtime's umask left
        write(descriptor, line)
    finally:
        close(descriptor)
