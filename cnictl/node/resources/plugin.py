"""The plugin's files as one resource: the version, its folder, and the launchers that runtimes start."""

import os
from importlib.util import find_spec
from typing import Any

import cnictl
from cnictl.core.errors import Problem
from cnictl.node.host import runtimes
from cnictl.node.plugin import install, interpreters, releases, version_folder
from cnictl.node.plugin.releases import PLUGIN
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.node.spine import Change, State

_STARTED = ("version", "digest", "interpreter", "lib_dir", "bin_dirs")
"""What of the state decides which code a pod's start runs."""

_GONE = "gone"
"""Stands for the digest or interpreter of a chosen version that is not there any more."""


class Plugin:
    """The plugin, in the version chosen, in every bin folder of this host's runtimes. One serves every network."""

    id = f"plugin/{PLUGIN}"

    def __init__(self, spec: NodeSpec | None = None, lib_dir: str = "", bin_dirs: tuple[str, ...] = ()) -> None:
        """`lib_dir` and `bin_dirs`: what the operator asked for; empty: where it is, or where it belongs."""
        self._spec = spec
        self._lib_dir = lib_dir
        self._bin_dirs = bin_dirs or runtimes.bin_dirs(runtimes.find())

    def observe(self) -> State | None:
        """Version, digest of its code, interpreter, folders; None if nothing of it is there."""
        found = install.installed(self._bin_dirs, self._lib_dir)
        if not found.current and not found.versions:
            return None
        current = releases.examine(f"{found.lib_dir}/{found.current}") if found.current else None
        return {
            "version": found.current,
            "digest": current.digest if current else "",
            "interpreter": current.interpreter if current else "",
            "lib_dir": found.lib_dir,
            "bin_dirs": sorted(found.bin_dirs),
            "versions": sorted(found.versions),
        }

    def desired(self, spec: NodeSpec) -> State | None:
        """The version that `spec` names, or else the one in use; this cnictl's own where there is none yet.

        Neither an older nor a newer cnictl puts its own in the place of a version that was chosen. Raises Problem if
        no interpreter may run it.
        """
        found = install.installed(self._bin_dirs, self._lib_dir)
        name = spec.plugin_version or found.current or next(reversed(found.versions), "")
        if not name:
            return self.newest()
        chosen, digest = releases.examine(f"{found.lib_dir}/{name}"), releases.digest_noted(f"{found.lib_dir}/{name}")
        if chosen.fault and _is_own(name, digest):
            return self._as_current(found.lib_dir, name, _own_digest(), interpreters.choose().path)
        return self._as_current(found.lib_dir, name, digest or _GONE, chosen.interpreter or _GONE)

    def newest(self) -> State:
        """This cnictl's own version as the current one, besides those that are there."""
        lib_dir = self._lib_dir or install.installed(self._bin_dirs, self._lib_dir).lib_dir
        digest = _own_digest()
        name = version_folder.name_for(lib_dir, digest)
        there = releases.examine(f"{lib_dir}/{name}")
        keep = there.digest == digest and there.interpreter
        # one that serves stays, so that a status from a second installation of cnictl is no drift
        return self._as_current(lib_dir, name, digest, there.interpreter if keep else interpreters.choose().path)

    def switched(self, name: str) -> State:
        """The version `name` as the current one. Raises Problem if it isn't there or isn't sound."""
        found = install.installed(self._bin_dirs, self._lib_dir)
        if name not in found.versions:
            there = ", ".join(found.versions) or "none"
            raise Problem(f"version {name} of the plugin is not in {found.lib_dir}", f"versions there: {there}")
        chosen = releases.examine(f"{found.lib_dir}/{name}")
        if chosen.fault:
            raise Problem(chosen.fault, "run: cnictl plugin install")
        return self._as_current(found.lib_dir, name, chosen.digest, chosen.interpreter)

    def _as_current(self, lib_dir: str, name: str, digest: str, interpreter: str) -> State:
        """The state with `name` in use in every bin folder, besides the versions that are there."""
        found = install.installed(self._bin_dirs, self._lib_dir)
        return {
            "version": name,
            "digest": digest,
            "interpreter": interpreter,
            "lib_dir": lib_dir,
            "bin_dirs": sorted({*self._bin_dirs, *found.bin_dirs, *found.other_bin_dirs}),
            "versions": sorted({*found.versions, name}),
        }

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """One line, and the steps as typed by hand."""
        old: dict[str, Any] = before or {"version": "", "bin_dirs": [], "versions": [], "lib_dir": ""}
        if after is None:
            gone = [f"rm {place}/{PLUGIN}" for place in old["bin_dirs"]]
            return "remove the plugin", "\n".join([*gone, f"rm -r {old['lib_dir']}"])
        extra = [f"rm -r {old['lib_dir']}/{name}" for name in old["versions"] if name not in after["versions"]]
        folder = f"{after['lib_dir']}/{after['version']}"
        launchers = [f"install -m 755 {folder}/{PLUGIN} {place}/{PLUGIN}" for place in after["bin_dirs"]]
        places = ", ".join(after["bin_dirs"])
        if before and all(before[key] == after[key] for key in _STARTED):
            names = ", ".join(name for name in old["versions"] if name not in after["versions"])
            return f"remove plugin {names}", "\n".join(extra)
        if before and all(before[key] == after[key] for key in ("version", "digest", "interpreter")):
            return f"put the plugin's launcher into {places}", "\n".join([*launchers, *extra])
        instead = f" in place of {old['version']}" if old["version"] not in ("", after["version"]) else ""
        if after["digest"] != _own_digest():
            return f"use plugin {after['version']}{instead} for {places}", "\n".join([*launchers, *extra])
        commands = [
            f"install -d {folder}/cnictl",
            f"cp -r {_origin('cnictl')}/__init__.py {_origin('cnictl')}/core {folder}/cnictl/",
            f"cp -r {_origin('cnictl_plugin')} {folder}/cnictl_plugin",
            f"{after['interpreter']} -m compileall --invalidation-mode unchecked-hash {folder}",
        ]
        summary = f"install plugin {after['version']}{instead} for {places}"
        return summary, "\n".join([*commands, *launchers, *extra])

    def carry_out(self, change: Change) -> None:
        """Install, switch to, or remove versions and launchers. Raises Problem with the launchers as they were."""
        before, after = change.before, change.after
        if after is None:
            if before is not None:
                install.remove_all(before["lib_dir"], tuple(before["bin_dirs"]), self._bin_dirs)
            return
        lib_dir, bin_dirs = after["lib_dir"], tuple(after["bin_dirs"])
        if before is None or any(before[key] != after[key] for key in _STARTED):
            if after["digest"] == _own_digest():
                install.install(lib_dir, bin_dirs, after["version"], after["interpreter"])
            elif after["digest"]:  # else it was broken, and to break it again is no use to anyone
                _require_sound(lib_dir, after["version"])
                install.use(lib_dir, after["version"], bin_dirs)
        if before is not None:
            install.remove_launchers(tuple(folder for folder in before["bin_dirs"] if folder not in bin_dirs))
            for name in before["versions"]:
                if name not in after["versions"]:
                    version_folder.remove(before["lib_dir"], name)


def _require_sound(lib_dir: str, name: str) -> None:
    """Raise Problem if the version in use is missing or damaged: this cnictl has no code to repair it with."""
    chosen = releases.examine(f"{lib_dir}/{name}")
    if chosen.fault:
        others = [other for other in releases.versions(lib_dir) if other != name]
        use = f", cnictl plugin use VERSION takes another that is there ({', '.join(others)})" if others else ""
        raise Problem(
            f"version {name} of the plugin, the one chosen, can't be used: {chosen.fault}",
            f"cnictl plugin install puts this cnictl's {cnictl.__version__} in its place{use}",
        )


def _is_own(name: str, digest: str) -> bool:
    """Whether this cnictl's code is what a version of this name and digest (empty: unknown) had."""
    own = _own_digest()
    if digest:
        return digest == own
    return name in (cnictl.__version__, f"{cnictl.__version__}+{own[:8]}")


def _own_digest() -> str:
    return releases.digest_of(releases.sources())


def _origin(package: str) -> str:
    """Where the running cnictl has a package's files."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise Problem(f"package {package} is not installed beside cnictl")
    return os.path.abspath(next(iter(spec.submodule_search_locations)))
