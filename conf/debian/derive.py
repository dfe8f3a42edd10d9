"""Write what the packages derive from cnictl itself: manual pages, completions, the watch unit, and the licences.

python3 -IS derive.py MODULES MODULES-OF-THE-EXTRA FOLDER, in the folder above `debian`.
"""

import os
import re
import runpy
import subprocess
import sys
from email.parser import HeaderParser
from pathlib import Path

main, extra, built = map(Path, sys.argv[1:])
sys.path[:0] = [str(main), "docs"]


def completion(shell: str) -> str:
    """Return the script that the program prints for a shell."""
    start = f"import sys; sys.path.insert(0, {str(main)!r}); sys.argv = ['cnictl']; from cnictl.cli.entry import main; main()"
    done = subprocess.run(
        [sys.executable, "-ISBXutf8", "-c", start],
        env={**os.environ, "_CNICTL_COMPLETE": f"source_{shell}"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    text = done.stdout.strip() + "\n"
    function = re.search(r"^(_\w+)\(\) \{", text, re.MULTILINE)
    if function is None:
        sys.exit(f"no completion for {shell}: {text}")
    # zsh loads the file as a function when it completes for the first time, and wants candidates from that call
    return f'{text}\n{function[1]} "$@"\n' if shell == "zsh" else text


_SHARED = "On Debian systems, the full text is in /usr/share/common-licenses/"
_COMMON = {
    "Apache License Version 2.0, January 2004": f"Apache License, Version 2.0\n{_SHARED}Apache-2.0.",
    "GNU GENERAL PUBLIC LICENSE Version 2, June 1991": f"GNU General Public License, version 2\n{_SHARED}GPL-2.",
}
"""What replaces licences whose text each Debian system has, by words that open them."""


def stanza(folder: Path) -> str:
    """Return a distribution's paragraph of the copyright file, with its licence as it ships it."""
    metadata = HeaderParser().parsestr((folder / "METADATA").read_text(encoding="utf-8"))
    name = metadata["Name"]
    licence = metadata["License-Expression"] or metadata["License"] or ""
    if not licence or "\n" in licence or len(licence) > 60:
        classified = [one.rpartition(" :: ")[2] for one in metadata.get_all("Classifier", ()) if "License" in one]
        licence = " and ".join(classified) or "see below"
    texts = [
        file.read_text(encoding="utf-8", errors="replace")
        for file in sorted(folder.rglob("*"))
        if re.match(r"(LICEN[CS]E|COPYING|NOTICE|AUTHORS)", file.name, re.IGNORECASE) and file.is_file()
    ]
    texts = [
        _COMMON.get(next((mark for mark in _COMMON if mark in " ".join(text.split())), ""), text) for text in texts
    ]
    lines = [line.strip() or "." for text in texts for line in text.splitlines()]
    author = metadata["Author-email"] or metadata["Author"] or metadata["Maintainer-email"] or f"authors of {name}"
    short = re.sub(r"[^\w.+-]+", "-", licence)
    body = "".join(f"\n {line}" for line in lines) or f"\n {licence}"
    return (
        f"Files: usr/lib/cnictl/site/* (of {name} {metadata['Version']})\nCopyright: {' '.join(author.split())}\n"
        f"License: {short}-{name}{body}\n"
    )


def write(path: str, text: str) -> None:
    """Write a file below `debian`."""
    place = Path("debian") / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text, encoding="utf-8")


sys.argv[1:] = [f"{built}/man"]
runpy.run_path("docs/manual.py", run_name="__main__")
write("built/completions/cnictl", completion("bash"))
write("built/completions/_cnictl", completion("zsh"))

from cnictl.node.resources.boot_unit import template, unit_text  # noqa: E402 - from `main`

write("cnictl.cnictl-watch.service", unit_text("cnictl-watch.service"))
write("cnictl.logrotate", template("cnictl.logrotate"))

name = f"{sys.version_info[0]}.{sys.version_info[1]}"
after = f"{sys.version_info[0]}.{sys.version_info[1] + 1}"
write("cnictl-kubernetes.substvars", f"cnictl:Python=python3 (>= {name}), python3 (<< {after})\n")

own = Path("debian/copyright.in").read_text(encoding="utf-8")
for package, modules in (("cnictl", main), ("cnictl-kubernetes", extra)):
    stanzas = [stanza(folder) for folder in sorted(modules.glob("*.dist-info"))]
    write(f"{package}.copyright", "\n".join([own, *stanzas]))
for folder in (*main.glob("*.dist-info"), *extra.glob("*.dist-info")):
    for file in [*folder.rglob("*")]:
        if re.match(r"(LICEN[CS]E|COPYING)", file.name, re.IGNORECASE) and file.is_file():
            file.unlink()  # the copyright file has its text
