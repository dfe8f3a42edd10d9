"""Install the plugin's files as one resource: the version, its folder, and the launchers that runtimes start."""

import shlex
from functools import cached_property
from typing import Any

import cnictl
from cnictl.core.errors import Problem
from cnictl.core.paths import LIB_DIR
from cnictl.node.host import runtimes
from cnictl.node.plugin import install, interpreters, plugin_version, version_folder
from cnictl.node.plugin.plugin_version import PLUGIN
from cnictl.node.spec.node_spec import NodeSpec
from cnictl.node.spine import Change, State

_STARTED = ("version", "digest", "interpreter", "lib_dir", "bin_dirs")
"""The parts of the state that decide which code runs when a pod starts."""

_GONE = "gone"
"""The digest or interpreter of a chosen version that no longer exists."""


class Plugin:
    """The chosen version of the plugin in every bin folder of this host's runtimes. It serves every network."""

    id = f"plugin/{PLUGIN}"

    def __init__(self, spec: NodeSpec | None = None, lib_dir: str = "", bin_dirs: tuple[str, ...] = ()) -> None:
        """`lib_dir` and `bin_dirs` are the operator's choice; if empty, the present or the default folders."""
        self._spec = spec
        self._lib_dir = lib_dir
        self._named_bin_dirs = bin_dirs

    @cached_property
    def _bin_dirs(self) -> tuple[str, ...]:
        return self._named_bin_dirs or runtimes.bin_dirs(runtimes.find())

    def observe(self) -> State | None:
        """Return version, digest of its code, interpreter and folders; None if no version is installed."""
        installed = install.installed(self._bin_dirs, self._lib_dir)
        if not installed.current and not installed.versions:
            return None
        current = plugin_version.examine(f"{installed.lib_dir}/{installed.current}") if installed.current else None
        return {
            "version": installed.current,
            "digest": current.digest if current else "",
            "interpreter": current.interpreter if current else "",
            "lib_dir": installed.lib_dir,
            "bin_dirs": sorted(installed.bin_dirs),
            "versions": sorted(installed.versions),
        }

    def desired(self, spec: NodeSpec) -> State | None:
        """Return the version that `spec` names, else the one in use, else this cnictl's own version.

        cnictl never replaces a chosen version by its own, whether older or newer. Raises Problem if no interpreter may
        run it.
        """
        installed = install.installed(self._bin_dirs, self._lib_dir)
        name = spec.plugin_version or installed.current or next(reversed(installed.versions), "")
        if not name:
            return self.with_own_version()
        folder = f"{installed.lib_dir}/{name}"
        chosen, digest = plugin_version.examine(folder), plugin_version.noted(folder, "digest")
        if chosen.fault and _is_own(name, digest):
            return self._as_current(installed.lib_dir, name, _own_digest(), interpreters.choose().path)
        return self._as_current(installed.lib_dir, name, digest or _GONE, chosen.interpreter or _GONE)

    def with_own_version(self) -> State:
        """Return the state with this cnictl's own version in use; the other versions stay installed."""
        lib_dir = self._lib_dir or install.installed(self._bin_dirs, self._lib_dir).lib_dir
        digest = _own_digest()
        name = version_folder.name_for(lib_dir, digest)
        release = plugin_version.examine(f"{lib_dir}/{name}")
        keep = release.digest == digest and release.interpreter
        # keep a working interpreter, so that another installation of cnictl does not report drift
        return self._as_current(lib_dir, name, digest, release.interpreter if keep else interpreters.choose().path)

    def switched(self, name: str) -> State:
        """Return the state with the version `name` in use. Raises Problem if it is missing or damaged."""
        installed = install.installed(self._bin_dirs, self._lib_dir)
        if name not in installed.versions:
            known = ", ".join(installed.versions) or "none"
            raise Problem(
                f"version {name} of the plugin is not in {installed.lib_dir}", f"the installed versions: {known}"
            )
        chosen = plugin_version.examine(f"{installed.lib_dir}/{name}")
        if chosen.fault:
            raise Problem(chosen.fault, "run: cnictl plugin install")
        return self._as_current(installed.lib_dir, name, chosen.digest, chosen.interpreter)

    def _as_current(self, lib_dir: str, name: str, digest: str, interpreter: str) -> State:
        """Return the state with `name` in use in every bin folder; the other versions stay installed."""
        installed = install.installed(self._bin_dirs, self._lib_dir)
        return {
            "version": name,
            "digest": digest,
            "interpreter": interpreter,
            "lib_dir": lib_dir,
            "bin_dirs": sorted({*self._bin_dirs, *installed.bin_dirs, *installed.other_bin_dirs}),
            "versions": sorted({*installed.versions, name}),
        }

    def describe(self, before: State | None, after: State | None) -> tuple[str, str]:
        """Return the summary and the manual commands."""
        old: dict[str, Any] = before or {"version": "", "bin_dirs": [], "versions": [], "lib_dir": ""}
        if after is None:
            gone = [f"rm {place}/{PLUGIN}" for place in old["bin_dirs"]]
            return "remove the plugin", "\n".join([*gone, f"rm -r {old['lib_dir']}"])
        extra = [f"rm -r {old['lib_dir']}/{name}" for name in old["versions"] if name not in after["versions"]]
        folder = f"{after['lib_dir']}/{after['version']}"
        launchers = [f"install -D -m 755 {folder}/{PLUGIN} {place}/{PLUGIN}" for place in after["bin_dirs"]]
        places = ", ".join(after["bin_dirs"])
        if before and all(before[key] == after[key] for key in _STARTED):
            names = ", ".join(name for name in old["versions"] if name not in after["versions"])
            return f"remove plugin {names}", "\n".join(extra)
        if before and all(before[key] == after[key] for key in ("version", "digest", "interpreter")):
            return f"put the plugin's launcher into {places}", "\n".join([*launchers, *extra])
        instead = f" instead of {old['version']}" if old["version"] not in ("", after["version"]) else ""
        if after["digest"] != _own_digest():
            return f"use plugin {after['version']}{instead} for {places}", "\n".join([*launchers, *extra])
        options = ["--lib-dir", after["lib_dir"]] if after["lib_dir"] != LIB_DIR else []
        options += [word for place in after["bin_dirs"] for word in ("--bin-dir", place)]
        install = shlex.join(["cnictl", "plugin", "install", "--no-pin", *options])
        summary = f"install plugin {after['version']}{instead} for {places}"
        return summary, "\n".join([install, *extra])

    def carry_out(self, change: Change) -> None:
        """Install, select or remove versions and launchers. Raises Problem, with the launchers unchanged."""
        before, after = change.before, change.after
        if after is None:
            if before is not None:
                install.remove_all(before["lib_dir"], tuple(before["bin_dirs"]), self._bin_dirs)
            return
        lib_dir, bin_dirs = after["lib_dir"], tuple(after["bin_dirs"])
        if before is None or any(before[key] != after[key] for key in _STARTED):
            if after["digest"] == _own_digest():
                install.install(lib_dir, bin_dirs, after["version"], after["interpreter"])
            elif after["digest"]:  # else the version was broken, and is not restored
                _require_sound(lib_dir, after["version"])
                install.use(lib_dir, after["version"], bin_dirs)
        if before is not None:
            install.remove_launchers(tuple(folder for folder in before["bin_dirs"] if folder not in bin_dirs))
            for name in before["versions"]:
                if name not in after["versions"]:
                    version_folder.remove(before["lib_dir"], name)


def _require_sound(lib_dir: str, name: str) -> None:
    """Raise Problem if the version in use is missing or damaged, because this cnictl can't repair another version."""
    chosen = plugin_version.examine(f"{lib_dir}/{name}")
    if chosen.fault:
        others = [other for other in plugin_version.versions(lib_dir) if other != name]
        use = f", cnictl plugin use VERSION selects another installed version ({', '.join(others)})" if others else ""
        raise Problem(
            f"the chosen version {name} of the plugin can't be used: {chosen.fault}",
            f"cnictl plugin install installs this cnictl's version {cnictl.__version__} instead{use}",
        )


def _is_own(name: str, digest: str) -> bool:
    """Return whether a version of this name and digest (empty: unknown) is this cnictl's own code."""
    own = _own_digest()
    return digest == own if digest else name in (cnictl.__version__, f"{cnictl.__version__}+{own[:8]}")


def _own_digest() -> str:
    return plugin_version.digest_of(plugin_version.sources())
