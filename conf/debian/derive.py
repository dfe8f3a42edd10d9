"""Write the package files that are derived from cnictl: manual pages, completions, the watch unit and the licences.

Run it as `python3 -IS debian/derive.py MODULES MODULES-OF-THE-EXTRA` in the folder above `debian`.
"""

import re
import runpy
import subprocess
import sys
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

BUILT = Path("debian/built")
_START = """
import sys
sys.path.insert(0, sys.argv[1])
sys.argv = ["cnictl", "completion", sys.argv[2]]
from cnictl.cli.entry import main
main()
"""
_LICENCE = re.compile(r"(LICEN[CS]E|COPYING)", re.IGNORECASE)
_SHARED = "On Debian systems, the full text is in /usr/share/common-licenses/"
_COMMON = {
    "Apache License Version 2.0, January 2004": f"Apache License, Version 2.0\n{_SHARED}Apache-2.0.",
    "GNU GENERAL PUBLIC LICENSE Version 2, June 1991": f"GNU General Public License, version 2\n{_SHARED}GPL-2.",
}
"""The replacements for licences whose text is on every Debian system, by the words at the licence's beginning."""


def completion(modules: Path, shell: str) -> str:
    """Return the script that `cnictl completion` prints for a shell."""
    done = subprocess.run(
        [sys.executable, "-ISBXutf8", "-c", _START, str(modules), shell], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def copyright_of(folder: Path) -> str:
    """Return a distribution's paragraph for the copyright file, with the licence that its authors ship."""
    metadata = HeaderParser().parsestr((folder / "METADATA").read_text(encoding="utf-8"))
    name, licence = metadata["Name"], _licence(metadata)
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in _licence_files(folder)]
    lines = [line.strip() or "." for text in texts for line in _shortened(text).splitlines()]
    author = metadata["Author-email"] or metadata["Author"] or metadata["Maintainer-email"] or f"authors of {name}"
    body = "".join(f"\n {line}" for line in lines) or f"\n {licence}"
    return (
        f"Files: {' '.join(f'usr/lib/cnictl/site/{top}' for top in _tops(folder))}\n"
        f"Comment: {name} {metadata['Version']}\n"
        f"Copyright: {' '.join(author.split())}\n"
        f"License: {re.sub(r'[^A-Za-z0-9.+-]+', '-', licence)}-{name}{body}\n"
    )


def _tops(folder: Path) -> list[str]:
    """Return patterns for a distribution's files, from its RECORD."""
    paths = [line.partition(",")[0] for line in (folder / "RECORD").read_text(encoding="utf-8").splitlines()]
    parted = {path.partition("/")[::2] for path in paths if not path.startswith("..")}
    return sorted({f"{top}/*" if below else top for top, below in parted})


def _licence(metadata: Message) -> str:
    """Return a licence's name from one of the three metadata fields where distributions put it."""
    licence = str(metadata["License-Expression"] or metadata["License"] or "")
    if licence and "\n" not in licence and len(licence) <= 60:
        return licence
    names = [
        classifier.rpartition(" :: ")[2] for classifier in metadata.get_all("Classifier", ()) if "License" in classifier
    ]
    return " and ".join(names) or "licence-below"


def _licence_files(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.rglob("*")) if _LICENCE.match(file.name) and file.is_file()]


def _shortened(text: str) -> str:
    words = " ".join(text.split())
    return next((short for mark, short in _COMMON.items() if mark in words), text)


def write(path: Path, text: str) -> None:
    """Write a file, and make its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def main() -> None:
    """Write all derived files below `debian`."""
    modules, extra = map(Path, sys.argv[1:])
    sys.path[:0] = [str(modules)]
    sys.argv[1:] = [f"{BUILT}/man"]
    runpy.run_path("docs/manual.py", run_name="__main__")
    write(BUILT / "completions/cnictl", completion(modules, "bash"))
    write(BUILT / "completions/_cnictl", completion(modules, "zsh"))

    from cnictl.node.resources.boot_unit import template, unit_text  # from `modules`, which is in sys.path now

    write(Path("debian/cnictl.cnictl-watch.service"), unit_text("cnictl-watch.service"))
    write(Path("debian/cnictl.logrotate"), template("cnictl.logrotate"))

    this, following = (f"{sys.version_info[0]}.{sys.version_info[1] + later}" for later in (0, 1))
    compiled_for = f"cnictl:Python=python3 (>= {this}), python3 (<< {following})\n"
    write(Path("debian/cnictl-kubernetes.substvars"), compiled_for)

    own = Path("debian/copyright.in").read_text(encoding="utf-8")
    for package, place in (("cnictl", modules), ("cnictl-kubernetes", extra)):
        folders = sorted(place.glob("*.dist-info"))
        write(Path(f"debian/{package}.copyright"), "\n".join([own, *map(copyright_of, folders)]))
        for file in (file for folder in folders for file in _licence_files(folder)):
            file.unlink()  # its text is in the copyright file


if __name__ == "__main__":
    main()
