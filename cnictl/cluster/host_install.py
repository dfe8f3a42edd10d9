"""Define the commands that install cnictl on a host, and read their answers.

A host needs `sh`, `tar`, `base64`, `sha256sum` and a Python, but no cnictl.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cnictl.cluster.bundle import Bundle
from cnictl.cluster.hosts import Answer, Command
from cnictl.core import untrusted_text

HOME = "/usr/local/lib/cnictl-cli"
"""Where bundles are installed (conf/install.py)."""
BEFORE_BUNDLE = "before-bundle"
"""The installer's name for the command that was there before the first bundle."""
INSTALL_SECONDS, SHORT_SECONDS, CHECK_SECONDS = 900.0, 60.0, 300.0

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; export PATH\n"
_OBSERVE = f"""{_PATH}
for python in /usr/bin/python3 /usr/bin/python3.1[1-9] /usr/local/bin/python3; do
    [ -x "$python" ] && "$python" -I -S -c 'import sys; sys.exit(sys.version_info < (3, 11))' || continue
    echo "python=$python"; break
done
[ ! -e /usr/bin/cnictl ] || echo "packaged=/usr/bin/cnictl"
echo "bundle=$(readlink {HOME}/current 2>/dev/null)"
echo "cnictl=$(cnictl --version 2>/dev/null </dev/null | head -n 1)"
"""
_INSTALL = f"""{_PATH}
set -eu; umask 077
folder=$(mktemp -d /run/cnictl-bundle.XXXXXXXX)
trap 'rm -rf -- "$folder"' EXIT; trap 'exit 1' HUP INT TERM
base64 -d > "$folder/bundle.tar.gz"
sum=$(sha256sum < "$folder/bundle.tar.gz")
if [ "${{sum%% *}}" != "$1" ]; then
    echo "cnictl: the SHA-256 of the bundle changed on the way; nothing was installed" >&2
    exit 1
fi
mkdir "$folder/bundle"
tar -xzf "$folder/bundle.tar.gz" -C "$folder/bundle" --strip-components=1 --no-same-owner
sh "$folder/bundle/install.sh" >&2
"""
"""Reads the bundle on stdin, and its digest as an argument. Only a bundle that matches the digest is run."""
_RESTORE = f"""{_PATH}
installer={HOME}/$1/install.sh
if [ -z "$2" ]; then exec sh "$installer" uninstall >&2; fi
exec sh "$installer" use "$2" >&2
"""
_RESTART = f"""{_PATH}
[ ! -d /run/systemd/system ] || systemctl try-restart cnictl-watch.service
"""

OBSERVE = Command(("sh", "-c", _OBSERVE, "sh"))
STATUS = Command(("cnictl", "status", "-o", "json"))
DOCTOR = Command(("cnictl", "doctor", "-o", "json"))
PLUGIN_INSTALL = Command(("cnictl", "plugin", "install", "-o", "json"))
HISTORY = Command(("cnictl", "history", "-o", "json"))
RESTART_WATCH = Command(("sh", "-c", _RESTART, "sh"))
"""Restarts `cnictl watch` with its new copy, if systemd runs it."""

_LOCAL_CHECKS = ("own-host", "pod-same-host")
"""The checks of `test-connectivity` that depend on nothing but the host itself."""
_ONLY = tuple(word for name in _LOCAL_CHECKS for word in ("--only", name))
PROBE = Command(("cnictl", "test-connectivity", *_ONLY, "-o", "json"))


@dataclass(frozen=True)
class Installed:
    """What is installed on a host."""

    cnictl: str = ""
    """The release of the installed command; empty if there is none."""
    bundle: str = ""
    """The bundle's version that the command is from; empty if it was installed in another way."""
    plugin: str = ""
    """The version of the plugin in use; empty if the host is not a node."""
    is_node: bool = False
    has_python: bool = True
    packaged: str = ""
    """The command that a Debian package installed; empty if none did."""
    is_from_kubernetes: bool = False
    """Whether the host learns its peers from Kubernetes."""


def install(bundle: Bundle) -> Command:
    """Return the command that installs a bundle, checked on the host first."""
    return Command(("sh", "-c", _INSTALL, "sh", bundle.sha256), base64.encodebytes(bundle.contents).decode("ascii"))


def restore_command(installed: str, previous: Installed) -> Command:
    """Return the command that replaces the bundle's version `installed` with the previous command."""
    name = previous.bundle or (BEFORE_BUNDLE if previous.cnictl else "")
    return Command(("sh", "-c", _RESTORE, "sh", installed, name))


def use_plugin(version: str) -> Command:
    """Return the command that puts an installed version of the plugin into use."""
    return Command(("cnictl", "plugin", "use", version, "-o", "json"))


def undo(run: int) -> Command:
    """Return the command that undoes a run."""
    return Command(("cnictl", "undo", str(run), "--yes", "-o", "json"))


def read(answer: Answer, status: Answer | None = None) -> Installed:
    """Return what is installed, from the answers to OBSERVE and STATUS. Pure."""
    facts = dict(line.partition("=")[::2] for line in answer.stdout.splitlines() if "=" in line)
    name, _, version = facts.get("cnictl", "").partition(" ")
    document = (status.document() if status is not None else None) or {}
    plugin, source = _table(document.get("plugin")), _table(document.get("source"))
    return Installed(
        untrusted_text.word(version, 40) if name == "cnictl" else "",
        untrusted_text.word(facts.get("bundle", ""), 80),
        untrusted_text.word(str(plugin.get("version") or ""), 80),
        isinstance(document.get("node"), dict),
        bool(facts.get("python")),
        untrusted_text.word(facts.get("packaged", ""), 80),
        str(source.get("title", "")).startswith("kubernetes"),
    )


def errors_of(answer: Answer) -> dict[tuple[str, str], str]:
    """Return the errors that doctor found: message by check and subject. Pure."""
    items = (answer.document() or {}).get("items")
    return {
        (str(item.get("id", "")), str(item.get("subject", ""))): untrusted_text.line(str(item.get("message", "")))
        for item in (items if isinstance(items, list) else ())
        if isinstance(item, dict) and item.get("severity") == "error"
    }


def doctor_fault(before: Answer, after: Answer) -> str:
    """Return what doctor finds after an upgrade but did not find before it; empty if nothing. Pure."""
    if after.fault or after.document() is None:
        return f"doctor: {after.fault or after.error}"
    errors_before, errors_after = errors_of(before), errors_of(after)
    new = [message for key, message in errors_after.items() if key not in errors_before]
    if new:
        return f"doctor: {'; '.join(new[:2])}"
    if after.status != 0 and before.status == 0:
        return f"doctor: {after.error}"
    return ""


def probe_fault(answer: Answer) -> str:
    """Return why a probe pod on the host does not work; empty if it does. Pure."""
    checks = (answer.document() or {}).get("checks")
    if answer.fault or not isinstance(checks, list):
        return f"probe pod: {answer.fault or answer.error}"
    local = [check for check in checks if isinstance(check, dict) and check.get("check") in _LOCAL_CHECKS]
    failed = [check for check in local if check.get("state") != "ok"]
    if failed:
        cause = untrusted_text.line(str(failed[0].get("cause") or failed[0].get("state")))
        return f"probe pod: {untrusted_text.word(str(failed[0].get('check')))}: {cause}"
    return "" if local else "probe pod: test-connectivity there did not ping this host"


def run_of(answer: Answer, command: str) -> int:
    """Return the number of the last run in a history if `command` made it, else 0. Pure."""
    items = (answer.document() or {}).get("items")
    last = items[0] if isinstance(items, list) and items and isinstance(items[0], dict) else {}
    number = last.get("run")
    return number if type(number) is int and str(last.get("command", "")).startswith(command) else 0


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
