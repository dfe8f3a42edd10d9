"""Write a line for each call to the plugin's log. A failure to write it never fails the call."""

import time
from posix import close, write

from cnictl.core.untrusted_text import line, word

from .environment import Call
from .log_file import open_log

_PARTS = ("container", "ifname", "pod", "address", "netns", "args", "outcome")
_LONGEST_PART = 500
"""Characters of a part that has no other limit; with all parts a line stays below 4 KiB."""

_SHOWN_ARGS = frozenset(
    ("IgnoreUnknown", "K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_UID", "K8S_POD_INFRA_CONTAINER_ID", "IP", "MAC")
)
"""Keys of CNI_ARGS that are not secrets. Another key's value might be one, and logs are often passed on."""


def log_call(path: str, level: str, call: Call, outcome: str, failed: bool, milliseconds: float, address: str) -> None:
    """Append `TIME LEVEL VERB DURATION container= ifname= pod= address= outcome=` (UTC; milliseconds).

    Each part is one word, except the addresses, and the outcome at the end, so that no name can look like a part.
    """
    if level == "off" or (level == "error" and not failed):
        return
    parts = [
        time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "error" if failed else "info",
        word(call.verb, 20) or "-",
        f"{milliseconds:.1f}ms",
        f"container={word(call.container) or '-'}",
        f"ifname={word(call.ifname, 60) or '-'}",
        f"pod={word(call.pod, 2 * 160) or '-'}",
        f"address={line(address, _LONGEST_PART) or '-'}",
    ]
    if level == "debug":
        given = ";".join(f"{key}={value if key in _SHOWN_ARGS else '(left-out)'}" for key, value in call.args.items())
        parts += [f"netns={word(call.netns) or '-'}", f"args={word(given, _LONGEST_PART) or '-'}"]
    parts.append(f"outcome={_without_parts(line(outcome))}")
    try:
        _append(path, " ".join(parts).encode() + b"\n")
    except OSError:
        return


def _without_parts(outcome: str) -> str:
    """Return the outcome with anything escaped that looks like another part: an error may quote names with blanks."""
    if outcome != "ok":
        for part in _PARTS:
            outcome = outcome.replace(f" {part}=", f" {part}\\x3d").replace(f"'{part}=", f"'{part}\\x3d")
    return outcome


def _append(path: str, text: bytes) -> None:
    descriptor = open_log(path)
    try:
        write(descriptor, text)
    finally:
        close(descriptor)
