"""Run a network configuration list on a host as a runtime does (spec 1.1.0, section 3).

Each plugin's request contains the list's name and version, the previous plugin's result as prevResult, and the
runtime's capability arguments as runtimeConfig if the plugin declares them. DEL runs in reverse with the last result.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.kernel.plugin.client import VALID, Answer, Host, Pod, plugin_executable

Json = dict[str, Any]

REFERENCE = "/usr/lib/cni"


class Failed(AssertionError):
    """A plugin of the list failed; the message has its type, the verb and its answer."""

    def __init__(self, verb: str, kind: str, answer: Answer) -> None:
        super().__init__(f"{verb} of {kind}: exit {answer.status}: {answer.stdout!r} {answer.stderr!r}")
        self.kind = kind
        self.answer = answer


@dataclass
class Chain:
    """A list on a host, with the results that a runtime caches."""

    host: Host
    conflist: Json
    bin_dirs: tuple[str, ...] = ()
    """Folders in CNI_PATH before the plugin's own and the reference plugins'."""
    cache: dict[tuple[str, str], Json] = field(default_factory=dict)
    """The last plugin's result, by attachment."""

    def add(self, pod: Pod, arguments: Json | None = None, **environment: str) -> Json:
        """Attach the pod and return the last result. If a plugin fails, DEL the whole list and raise Failed."""
        result: Json | None = None
        for plugin in self.conflist["plugins"]:
            answer = self._execute("ADD", plugin, pod, result, arguments, environment)
            if answer.status:
                try:
                    self.delete(pod, arguments, **environment)
                except Failed as failed:
                    raise failed from Failed("ADD", plugin["type"], answer)
                raise Failed("ADD", plugin["type"], answer)
            result = answer.document
        assert result is not None
        self.cache[pod.container, pod.ifname] = result
        return result

    def delete(self, pod: Pod, arguments: Json | None = None, **environment: str) -> None:
        """Detach the pod, the last plugin first. The first plugin that fails ends the DEL with Failed."""
        result = self.cache.get((pod.container, pod.ifname))
        for plugin in reversed(self.conflist["plugins"]):
            self._succeed("DEL", plugin, pod, result, arguments, environment)
        self.cache.pop((pod.container, pod.ifname), None)

    def check(self, pod: Pod, arguments: Json | None = None, but: Iterable[str] = ()) -> None:
        """CHECK each plugin except those of the types in `but`."""
        result = self.cache[pod.container, pod.ifname]
        for plugin in self.conflist["plugins"]:
            if plugin["type"] not in but:
                self._succeed("CHECK", plugin, pod, result, arguments, {})

    def collect(self, valid: Iterable[Pod]) -> None:
        """GC each plugin; `valid` are the remaining attachments."""
        named = [{"containerID": pod.container, "ifname": pod.ifname} for pod in valid]
        for plugin in self.conflist["plugins"]:
            self._succeed("GC", {**plugin, VALID: named}, None, None, None, {})

    def status(self) -> None:
        """Ask each plugin for its STATUS."""
        for plugin in self.conflist["plugins"]:
            self._succeed("STATUS", plugin, None, None, None, {})

    def _succeed(
        self,
        verb: str,
        plugin: Json,
        pod: Pod | None,
        result: Json | None,
        arguments: Json | None,
        environment: dict[str, str],
    ) -> None:
        answer = self._execute(verb, plugin, pod, result, arguments, environment)
        if answer.status:
            raise Failed(verb, plugin["type"], answer)

    def _execute(
        self,
        verb: str,
        plugin: Json,
        pod: Pod | None,
        result: Json | None,
        arguments: Json | None,
        environment: dict[str, str],
    ) -> Answer:
        request = {key: value for key, value in plugin.items() if key != "capabilities"}
        request |= {key: self.conflist[key] for key in ("cniVersion", "name")}
        asked = {key for key, wanted in plugin.get("capabilities", {}).items() if wanted}
        given = {key: value for key, value in (arguments or {}).items() if key in asked}
        if given:
            request["runtimeConfig"] = given
        if result is not None:
            request["prevResult"] = result
        folders = [*self.bin_dirs, os.path.dirname(plugin_executable()), REFERENCE]
        variables = self.host.environment(verb, pod, CNI_PATH=":".join(folders), **environment)
        return self.host.call(variables, json.dumps(request).encode(), self._find(plugin["type"], folders))

    def _find(self, kind: str, folders: list[str]) -> str:
        for folder in folders:
            if self.host.path(f"{folder}/{kind}").exists() or os.path.exists(f"{folder}/{kind}"):
                return f"{folder}/{kind}"
        raise AssertionError(f"no plugin {kind} in {folders}")
