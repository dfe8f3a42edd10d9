"""Write manual commands that a shell runs unchanged: quoted, with the content of files in here-documents.

They need nothing but coreutils: patch(1) is used only if it is installed.
"""

import difflib
import os
import shlex

from cnictl.core import programs


def heredoc(command: str, text: str, then: str = "") -> str:
    """Return a command that reads a text from a here-document. `then` follows on the command's line.

    The text must end with a line end, as here-documents do.
    """
    end = "EOF"
    while end in text.splitlines():
        end += "_"
    return f"{command} <<'{end}'{then}\n{text}{end}"


def write(path: str, text: str, before: str | None = None, renamed: bool = False) -> str:
    """Return the command that writes a file, or that changes it from `before`.

    `renamed`: the file is written under another name first, because programs that watch its folder read it at once.
    A new file gets mode 644; one that exists keeps its mode and owner, and a link is followed.
    """
    place = os.path.realpath(path)
    target = shlex.quote(f"{place}.tmp" if renamed else place)
    name = shlex.quote(place)
    then = f" && mv {target} {name}" if renamed else ""
    if not text.endswith("\n"):
        return f"printf %s {shlex.quote(text)} > {target}{then}"
    if before is None:
        return heredoc(f"install -D -m 644 /dev/stdin {target}", text, then)
    difference = "".join(
        difflib.unified_diff(before.splitlines(keepends=True), text.splitlines(keepends=True), path, path, n=1)
    )
    copy = f"cp -p {name} {target} && " if renamed else ""
    if before.endswith("\n") and len(difference) < len(text) and programs.find("patch"):
        return heredoc(f"{copy}patch -s {target}", difference, then)
    return heredoc(f"{copy}cat > {target}", text, then)


def remove(path: str) -> str:
    """Return the command that removes a file. If it is a link, the command removes the file that it leads to."""
    return f"rm {shlex.quote(os.path.realpath(path))}"
