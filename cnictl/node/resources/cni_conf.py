"""Write the network's conf into each runtime's conf folder. It comes last, because runtimes then start pods."""

import json
import os
from functools import cached_property
from typing import Any

from cnictl.core.bridge import has_bridge_netfilter
from cnictl.core.errors import Problem
from cnictl.core.process import run
from cnictl.core.result import SUPPORTED_VERSIONS
from cnictl.node import manual_commands
from cnictl.node.host import runtimes
from cnictl.node.host.runtimes import Runtime
from cnictl.node.plugin import files
from cnictl.node.spec.node_spec import NodeSpec, text_or_list
from cnictl.node.spine import Change, State
from cnictl.node.state import folders, original_state

FILE_NAME = "10-cnictl.conflist"
PLUGIN_TYPE = "cnictl-bridge"

CNI_VERSION = "1.0.0"
"""With 1.1.0, containerd 1.6 fails every pod with 'unsupported CNI result version', and podman 4 skips the file."""

NEWEST = SUPPORTED_VERSIONS[-1]


class CniConf:
    """The conflist, in every conf folder that a runtime of this host reads."""

    id = f"cni-conf/{FILE_NAME}"
    has_parts = True

    def __init__(self, spec: NodeSpec) -> None:
        self._spec = spec

    @cached_property
    def _runtimes(self) -> tuple[Runtime, ...]:
        return runtimes.find()

    def observe(self) -> State | None:
        """Return the file's text by path, including another tool's file of our name; None if there is no file."""
        folders_read = [*runtimes.conf_dirs(self._runtimes), runtimes.DEFAULT_CONF_DIR]
        paths = dict.fromkeys([*(f"{folder}/{FILE_NAME}" for folder in folders_read), *sorted(_noted())])
        texts = {path: files.read(path) for path in paths if os.path.exists(path)}
        return {"files": texts} if texts else None

    def state_after_reset(self) -> State | None:
        """Return another tool's files of our name, which a reset leaves."""
        texts = {path: text for path, text in _files(self.observe()).items() if is_foreign(path)}
        return {"files": texts} if texts else None

    def desired(self, spec: NodeSpec) -> State | None:
        """Return the files for `spec`. Another tool's file stays where our conf does not belong."""
        texts = _files(self.state_after_reset())
        # our conf also stays in a folder that no runtime reads now: one that starts later may read it
        ours = [os.path.dirname(path) for path in sorted(_noted()) if os.path.exists(path) and not is_foreign(path)]
        for folder in dict.fromkeys([*runtimes.conf_dirs(self._runtimes), *ours]):
            portmap = find_portmap(self._runtimes, folder)
            chained_newest = portmap is None or NEWEST in supported_versions(portmap)
            document = conflist(spec, has_bridge_netfilter(), portmap is not None, chained_newest)
            texts[f"{folder}/{FILE_NAME}"] = json.dumps(document, indent=2) + "\n"
        return {"files": texts}

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """Return the summary and the manual commands that write the file."""
        old, new = _files(before), _files(after)
        written, gone = [path for path in new if old.get(path) != new[path]], [path for path in old if path not in new]
        commands = [manual_commands.write(path, new[path], old.get(path), renamed=True) for path in written]
        summary = f"write {', '.join(written)}" if written else f"remove {', '.join(gone)}"
        return summary, "\n".join([*commands, *map(manual_commands.remove, gone)])

    def carry_out(self, change: Change) -> None:
        """Write and remove files. Raises Problem if another tool's file has our name."""
        old, new = _files(change.before), _files(change.after)
        for path in old:
            if path not in new:
                _refuse_foreign(path)
                files.remove(path)
                _notify_watchers(path)
                _note(_noted() - {path})
                if not runtimes.running():
                    folders.unmake(os.path.dirname(path))
        for path, text in new.items():
            if old.get(path) != text:
                _refuse_foreign(path)
                folders.make(os.path.dirname(path))
                _note(_noted() | {path})
                # containerd notices a rename within the folder, but not a link or a move from elsewhere
                files.write(path, text, 0o644)
                _notify_watchers(path)


def conflist(spec: NodeSpec, bridge_netfilter: bool, portmap: bool, newest: bool) -> dict[str, Any]:
    """Return a node's network configuration list (spec 1.1.0, section 1).

    `newest`: whether every chained plugin supports the newest version too.
    """
    plugin: dict[str, Any] = {
        "type": PLUGIN_TYPE,
        "bridge": spec.bridge,
        "network": text_or_list(spec.networks),
        "subnet": text_or_list(spec.subnets),
        "isDefaultGateway": True,
        "ipMasq": spec.nat,
    }
    if spec.nat:
        plugin["ipMasqBackend"] = "iptables" if spec.backend == "iptables" else "nftables"
    # with br_netfilter iptables sees bridged packets, and a pod can reach itself through its own Service
    optional = {
        "mtu": spec.mtu, "hairpinMode": bridge_netfilter, "logLevel": spec.log_level, "logFile": spec.log_file
    }  # fmt: skip
    plugin |= {key: value for key, value in optional.items() if value}
    document: dict[str, Any] = {"cniVersion": CNI_VERSION}
    if newest:
        document["cniVersions"] = [version for version in SUPPORTED_VERSIONS if version >= "0.4.0"]
    document["name"] = spec.name
    document["plugins"] = [plugin]
    if portmap:
        document["plugins"].append({"type": "portmap", "capabilities": {"portMappings": True}})
    return document


def find_portmap(known_runtimes: tuple[Runtime, ...], conf_dir: str) -> str | None:
    """Return the `portmap` for `conf_dir`; None unless every runtime that reads it has one in its own folders."""
    readers = [runtime.bin_dirs for runtime in known_runtimes if runtime.settled and runtime.conf_dir == conf_dir]
    programs = [
        next((f"{folder}/portmap" for folder in folders if os.access(f"{folder}/portmap", os.X_OK)), None)
        for folders in list(filter(None, readers)) or [runtimes.DEFAULT_BIN_DIRS]
    ]
    return programs[-1] if all(programs) else None


def supported_versions(program: str) -> list[str]:
    """Return the versions in a plugin's answer to VERSION; none if it does not answer."""
    environment = ["CNI_COMMAND=VERSION", "CNI_CONTAINERID=", "CNI_NETNS=", "CNI_IFNAME=", "CNI_PATH="]
    try:
        answer = run(["env", "-i", *environment, program], json.dumps({"cniVersion": CNI_VERSION}), timeout=10)
        return [str(version) for version in json.loads(answer.stdout)["supportedVersions"]]
    except (Problem, ValueError, KeyError, TypeError):
        return []


def is_foreign(path: str) -> bool:
    """Return whether the file at `path` is another tool's: its first plugin is not ours.

    A file that is not JSON counts as ours if cnictl wrote one there: a power cut or a mistaken edit damaged it.
    """
    if not os.path.exists(path):
        return False
    try:
        return bool(json.loads(files.read(path))["plugins"][0]["type"] != PLUGIN_TYPE)
    except ValueError:
        return path not in _noted()
    except (KeyError, IndexError, TypeError):
        return True


def _notify_watchers(path: str) -> None:
    """Make runtimes notice a change behind a symbolic link: create and remove a file in the folder that they watch."""
    if os.path.islink(path):
        name = f"{os.path.dirname(path)}/.cnictl-changed-{os.getpid()}"
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        os.unlink(name)


def _noted() -> set[str]:
    """Return every path that cnictl wrote its conf to."""
    return set(original_state.recall(CniConf.id) or ())


def _note(paths: set[str]) -> None:
    if paths:
        original_state.amend(CniConf.id, sorted(paths))
    else:
        original_state.forget(CniConf.id)


def _refuse_foreign(path: str) -> None:
    if is_foreign(path):
        raise Problem(
            f"{path} is not cnictl's: its first plugin is not {PLUGIN_TYPE}", f"move {path} to another folder"
        )


def _files(state: State | None) -> dict[str, str]:
    return dict(state["files"]) if state else {}
