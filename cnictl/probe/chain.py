"""Run a network's CNI plugins as containerd, CRI-O or podman runs them.

Specification 1.1.0: section 2 (environment, stdin), section 3 (order, prevResult, errors), "Deriving request
configuration from plugin configuration". The conf names the plugins, which are in the runtime's folders.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cnictl.core import durable, programs
from cnictl.core.cidr import is_address
from cnictl.core.errors import Problem
from cnictl.core.process import run

Json = dict[str, Any]

CONF_FILE = "/etc/cni/net.d/10-cnictl.conflist"
BIN_DIRS = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")
"""The defaults of upstream, Debian and Fedora."""

_TIMEOUT = 60.0
_RUNTIME_PATH = ":".join(programs.FOLDERS)


class PluginFailed(Problem):
    """A plugin refused a call. `code` is its CNI error code; 0 if it printed no error object."""

    def __init__(self, plugin: str, command: str, code: int, message: str, details: str = "") -> None:
        where = f" (CNI code {code})" if code else ""
        super().__init__(f"plugin {plugin}, {command}: {message}{where}", details)
        self.plugin = plugin
        self.command = command
        self.code = code
        self.answer = message


@dataclass(frozen=True)
class Attachment:
    """One container's interface, as the runtime passes it to every plugin of the chain."""

    container: str
    netns: str
    """Path of the container's network namespace; empty in a DEL after the namespace is gone."""
    ifname: str = "eth0"
    args: str = ""
    """CNI_ARGS: `KEY=VALUE;KEY=VALUE`."""
    port_mappings: tuple[tuple[int, int], ...] = ()
    """TCP ports of the host, each with the pod's port that it is mapped to."""


def kubernetes_args(namespace: str, name: str, container: str) -> str:
    """Return the CNI_ARGS that a container runtime passes for a Kubernetes pod."""
    return f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_INFRA_CONTAINER_ID={container}"


class Chain:
    """A network configuration list and the folders that hold its plugins."""

    def __init__(self, conf: Json, bin_dirs: Sequence[str] = BIN_DIRS) -> None:
        """Read `conf`, a conf file's content: a list or, before 1.0.0, one plugin's configuration.

        Raises Problem if it has no name or lists no plugin with a type.
        """
        plugins = conf.get("plugins", [conf])
        shaped = isinstance(plugins, list) and plugins and all(isinstance(p, dict) for p in plugins)
        if not shaped or not all(isinstance(p.get("type"), str) for p in plugins):
            raise Problem("the CNI conf lists no plugin with a type")
        if not isinstance(conf.get("name"), str):
            raise Problem("the CNI conf has no name")
        self.conf = conf
        self.name: str = conf["name"]
        self.version = str(conf.get("cniVersion") or "0.1.0")
        self.plugins: list[Json] = plugins
        self.bin_dirs = tuple(bin_dirs)

    @property
    def types(self) -> list[str]:
        """The plugins' types, in the order of ADD."""
        return [plugin["type"] for plugin in self.plugins]

    @property
    def maps_ports(self) -> bool:
        """Whether a plugin takes port mappings: it declares the capability `portMappings` (spec, CONVENTIONS.md)."""
        return any(map(_maps_ports, self.plugins))

    def maps_ports_by(self, kind: str) -> bool:
        """Return whether the plugin of this type takes port mappings."""
        return any(plugin["type"] == kind and _maps_ports(plugin) for plugin in self.plugins)

    def add(self, attachment: Attachment) -> Json:
        """Call ADD for each plugin; return the last result. After PluginFailed the caller must call `delete`."""
        result: Json | None = None
        for plugin in self.plugins:
            result = self._call("ADD", plugin, attachment, result)
        return result or {}

    def delete(self, attachment: Attachment, result: Json | None) -> None:
        """Call DEL in reverse order, with ADD's cached result if there is one. The first error raises PluginFailed."""
        cached = result if _at_least(self.version, (0, 4, 0)) else None
        for plugin in reversed(self.plugins):
            self._call("DEL", plugin, attachment, cached)

    def _request(self, plugin: Json, attachment: Attachment, previous: Json | None) -> Json:
        """Return the configuration that a plugin reads on stdin, derived from its part of the conf."""
        request = {
            key: value
            for key, value in plugin.items()
            if key not in ("capabilities", "runtimeConfig", "prevResult") and not key.startswith("cni.dev/")
        }
        request["name"], request["cniVersion"] = self.name, self.version
        if previous is not None:
            request["prevResult"] = previous
        if attachment.port_mappings and _maps_ports(plugin):
            mappings = [{"hostPort": host, "containerPort": pod, "protocol": "tcp"}
                        for host, pod in attachment.port_mappings]  # fmt: skip
            request["runtimeConfig"] = {"portMappings": mappings}
        return request

    def find(self, plugin: str) -> str:
        """Return a plugin's executable from the first folder that has it. Raises Problem naming the folders."""
        for folder in self.bin_dirs:
            path = f"{folder}/{plugin}"
            if os.path.isfile(path) and os.access(path, os.X_OK):
                return path
        raise Problem(f"CNI plugin {plugin} is in none of {', '.join(self.bin_dirs)}", "cnictl plugin install")

    def _call(self, command: str, plugin: Json, attachment: Attachment, previous: Json | None) -> Json:
        environment = {
            "CNI_CONTAINERID": attachment.container,
            "CNI_IFNAME": attachment.ifname,
            "CNI_NETNS": attachment.netns,
            "CNI_ARGS": attachment.args,
        }
        return self._run(command, plugin, environment, self._request(plugin, attachment, previous))

    def _run(self, command: str, plugin: Json, environment: Mapping[str, str], request: Json) -> Json:
        whole = {"PATH": _RUNTIME_PATH, "CNI_COMMAND": command, "CNI_PATH": ":".join(self.bin_dirs), **environment}
        kind = str(plugin["type"])
        done = run([self.find(kind)], json.dumps(request), _TIMEOUT, check=False, environment=whole)
        try:
            answer = json.loads(done.stdout) if done.stdout.strip() else {}
        except ValueError:
            answer = None
        if done.status == 0 and isinstance(answer, dict):
            return answer
        if isinstance(answer, dict) and "code" in answer:
            message, details = str(answer.get("msg", "")), str(answer.get("details", ""))
            code = answer["code"] if isinstance(answer["code"], int) else 0
            raise PluginFailed(kind, command, code, message, details)
        words = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.status}").splitlines()
        raise PluginFailed(kind, command, 0, words[-1])


def load_chain(path: str = CONF_FILE, bin_dirs: Sequence[str] = BIN_DIRS) -> Chain:
    """Return the chain that a conf file describes. Raises Problem if the file can't be read or is not a CNI conf."""
    try:
        conf = json.loads(durable.contents(path))
    except FileNotFoundError:
        raise Problem(f"{path}: no such CNI conf", "cnictl init-node writes it; --conf names another file") from None
    except OSError as error:
        raise Problem(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise Problem(f"{path}: {error}") from None
    if not isinstance(conf, dict):
        raise Problem(f"{path}: not a JSON object")
    return Chain(conf, bin_dirs)


def addresses(result: Json) -> list[str]:
    """Return a result's addresses without prefix length. Version 0.2.0 has `ip4` and `ip6`, later versions `ips`."""
    interfaces = [entry.get("address", "") for entry in result.get("ips") or []]
    interfaces += [(result.get(key) or {}).get("ip", "") for key in ("ip4", "ip6")]
    return [interface.partition("/")[0] for interface in interfaces if interface]


def host_ends(result: Json) -> list[str]:
    """Return the names of a result's interfaces in the host's namespace: bridge and host veth."""
    return [str(interface["name"]) for interface in result.get("interfaces") or [] if not interface.get("sandbox")]


def name_servers(result: Json) -> list[str]:
    """Return the DNS servers of a result, for the pod's resolv.conf. Invalid addresses are left out."""
    named = (result.get("dns") or {}).get("nameservers") or []
    return [str(server) for server in named if is_address(str(server))]


def _maps_ports(plugin: Json) -> bool:
    capabilities = plugin.get("capabilities")
    return isinstance(capabilities, dict) and bool(capabilities.get("portMappings"))


def _at_least(version: str, least: tuple[int, int, int]) -> bool:
    parts = [int(part) if part.isdigit() else 0 for part in version.split(".")]
    return tuple(parts + [0] * (3 - len(parts))) >= least
