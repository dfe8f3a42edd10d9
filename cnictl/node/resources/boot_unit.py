"""Install the systemd unit that applies node.toml at boot, and the rotation of the log."""

import glob
import importlib.resources
import os

from cnictl.core import programs
from cnictl.core.paths import UNIT_DIR
from cnictl.core.process import run
from cnictl.node import manual_commands
from cnictl.node.host import debian_package
from cnictl.node.plugin import files, program
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.node.spine import Change, State
from cnictl.node.state import folders

UNIT = "cnictl.service"
UNIT_FILE = f"{UNIT_DIR}/{UNIT}"
LOGROTATE_DIR = "/etc/logrotate.d"
LOGROTATE_FILE = f"{LOGROTATE_DIR}/cnictl"
FILES = (UNIT_FILE, LOGROTATE_FILE)

SYSTEMD_RUNS = "/run/systemd/system"
"""This folder exists only if systemd is the system's manager (sd_booted(3))."""

_WANTED_PREFIX = "WantedBy="


class BootUnit:
    """cnictl.service, enabled, if systemd runs, and the logrotate file if logrotate is installed.

    The Debian package has its own logrotate file, which dpkg installs and removes.
    """

    id = f"boot/{UNIT}"
    has_parts = True

    def __init__(self, spec: NodeSpec) -> None:
        self._spec = spec

    def observe(self) -> State | None:
        """Return the files' text by path, and whether the unit is enabled; None if neither files nor links exist."""
        texts = {path: files.read(path) for path in FILES if os.path.exists(path) and _is_ours(path)}
        links, wanted = _links(), _wanted_links(texts.get(UNIT_FILE, ""))
        return {"files": texts, "enabled": bool(wanted) and wanted <= links} if texts or links else None

    def desired(self, spec: NodeSpec) -> State | None:
        """Return the state for this host; None if it has neither systemd nor logrotate.

        Files that an operator masked stay masked. Files that can't be written stay as they are.
        """
        now, skipped = self.observe(), self.unwritable_paths(spec)
        texts = {path: text for path, text in self._wanted().items() if path not in skipped}
        texts |= {path: text for path, text in _files(now).items() if path in skipped}
        if not (texts or (files.is_masked(UNIT_FILE) and _links())):
            return now if skipped else None
        enabled = UNIT_FILE in texts if UNIT_FILE not in skipped else bool(now and now["enabled"])
        return {"files": texts, "enabled": enabled}

    def unwritable_paths(self, spec: NodeSpec) -> list[str]:  # noqa: ARG002 - as `desired`
        """Return the files that differ from the desired state, if they or the unit's links can't be written."""
        wanted, now = self._wanted(), self.observe()
        unwritable = []
        for path, text in wanted.items():
            places = [path, *(_wanted_links(text) - _links() if path == UNIT_FILE else ())]
            if path == UNIT_FILE and not program.current():
                places.append(f"{program.HOME}/new")  # the unit starts a program there
            right = _files(now).get(path) == text and (path != UNIT_FILE or bool(now and now["enabled"]))
            if not right and not all(map(files.can_write, places)):
                unwritable.append(path)
        return unwritable

    def _wanted(self) -> dict[str, str]:
        """Return the text of each file that belongs on this host."""
        texts = {}
        if systemd_runs() and not files.is_masked(UNIT_FILE):
            texts[UNIT_FILE] = unit_text()
        if os.path.isdir(LOGROTATE_DIR) and _is_ours(LOGROTATE_FILE):
            texts[LOGROTATE_FILE] = template("cnictl.logrotate")
        return texts

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """Return the summary and the manual commands."""
        old, new = _files(before), _files(after)
        commands = [
            manual_commands.write(path, text, old.get(path)) for path, text in new.items() if old.get(path) != text
        ]
        enable, enabled = bool(after and after["enabled"]), bool(before and before["enabled"])
        if enabled and not enable:
            commands.append(f"systemctl disable {UNIT}")
        commands += [manual_commands.remove(path) for path in old if path not in new]
        if old.get(UNIT_FILE) != new.get(UNIT_FILE):
            commands.append("systemctl daemon-reload")
        if enable and not enabled:
            commands.append(f"systemctl enable {UNIT}")
        names = ", ".join(path for path in {**old, **new} if old.get(path) != new.get(path))
        verb = ("write" if new else "remove") if names else ("enable" if enable else "disable")
        return f"{verb} {names or UNIT}", "\n".join(commands)

    def carry_out(self, change: Change) -> None:
        """Write, enable, disable or remove the files, and reload systemd if it runs. The unit is not started."""
        old, new = (
            {
                path: text for path, text in _files(state).items() if not debian_package.owns(path)
            }  # the package came later
            for state in (change.before, change.after)
        )
        enable = bool(change.after and change.after["enabled"])
        links = _wanted_links(new.get(UNIT_FILE, "")) if enable else set()
        for link in _links() - links:
            os.unlink(link)
            folders.unmake(os.path.dirname(link))
        for path in old:
            if path not in new:
                files.remove(path)
        for path, text in new.items():
            if old.get(path) != text:
                folders.make(os.path.dirname(path))
                files.write(path, text, 0o644)
        for link in links - _links():
            folders.make(os.path.dirname(link))
            os.symlink(UNIT_FILE, link)
        if systemd_runs() and programs.find("systemctl"):
            # a systemd that can't be reached now reads the unit at the next boot
            run(["systemctl", "daemon-reload"], check=False)


def systemd_runs() -> bool:
    """Return whether systemd is this system's manager."""
    return os.path.isdir(SYSTEMD_RUNS)


def template(name: str) -> str:
    """Return a file of `conf/` as shipped with this cnictl."""
    return (importlib.resources.files("cnictl_conf") / name).read_text(encoding="utf-8")


def unit_text(name: str = UNIT) -> str:
    """Return a unit of `conf/`, which starts root's copy of cnictl. The default unit applies node.toml at boot."""
    return template(name).replace("@CNICTL@", program.COMMAND)


def _is_ours(path: str) -> bool:
    """Return whether cnictl writes a file: the operator did not mask it, and it is not the Debian package's."""
    return not files.is_masked(path) and not debian_package.owns(path)


def _links() -> set[str]:
    """Return the links by which other units start ours."""
    return set(glob.glob(f"{UNIT_DIR}/*.wants/{UNIT}"))


def _wanted_links(text: str) -> set[str]:
    """Return the links that `systemctl enable` makes for a unit of this text (systemd.unit(5), [Install])."""
    lines = [line.removeprefix(_WANTED_PREFIX) for line in text.splitlines() if line.startswith(_WANTED_PREFIX)]
    return {f"{UNIT_DIR}/{unit}.wants/{UNIT}" for line in lines for unit in line.split()}


def _files(state: State | None) -> dict[str, str]:
    return dict(state["files"]) if state else {}
