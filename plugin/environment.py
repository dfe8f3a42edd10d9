"""Read the parameters that the runtime passes in the environment: spec 1.1.0, section 2 "Parameters"."""

from posix import environ, getppid

from cnictl.core import durable
from cnictl.core.cidr import AddressError, parse_address
from cnictl.core.conf.network import interface_name_fault
from cnictl.core.errors import INVALID_ENVIRONMENT, CniError
from cnictl.core.netlink.rtnetlink import parse_mac
from cnictl.core.untrusted_text import NAME_CHARACTERS

VERBS = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")

_ATTACHMENT_VERBS = ("ADD", "DEL", "CHECK")
_NETNS_VERBS = ("ADD", "CHECK")
_MOST_ARGS = 8 << 10
"""Characters of CNI_ARGS that a record keeps; longer ones are not kept at all, since a part would be misread."""
_SHOWN = 40
"""The most characters of an offending value that a message repeats."""

_TRUTHS = ("1", "true", "0", "false")
"""The values of IgnoreUnknown in the reference (cni/pkg/types, UnmarshallableBool)."""


class Call:
    """One call of the plugin: the verb and its parameters."""

    __slots__ = ("args", "container", "ifname", "mac", "netns", "plugin", "stdin", "verb", "wanted")

    def __init__(self) -> None:
        self.verb = ""
        self.container = ""
        self.netns = ""
        self.ifname = ""
        self.args: dict[str, str] = {}
        self.wanted: list[bytes] = []
        """The addresses that CNI_ARGS requests with IP."""
        self.mac = b""
        """The pod's MAC that CNI_ARGS requests with MAC."""
        self.stdin = b""
        """The network configuration as it was read, for an IPAM plugin."""
        self.plugin = ""
        """The configuration's `type`, which is this plugin's name."""

    @property
    def pod(self) -> str:
        """`NAMESPACE/NAME`, as far as the runtime gave them."""
        return "/".join(filter(None, (self.args.get("K8S_POD_NAMESPACE"), self.args.get("K8S_POD_NAME"))))


def read_environment(call: Call) -> None:
    """Fill in the call from the environment. Raises CniError 4 naming every variable that is wrong."""
    call.verb = _variable("CNI_COMMAND")
    if call.verb not in VERBS:
        shown = f"{call.verb[:_SHOWN]!r} is not one of {', '.join(VERBS)}" if call.verb else "missing"
        raise CniError(INVALID_ENVIRONMENT, f"CNI_COMMAND: {shown}", "a container runtime sets it: spec section 2")
    if call.verb not in _ATTACHMENT_VERBS:
        return
    faults = []
    call.container = _variable("CNI_CONTAINERID")
    fault = _container_fault(call.container)
    if fault:
        faults.append(f"CNI_CONTAINERID {_show(call.container)}{fault}")
    call.ifname = _variable("CNI_IFNAME")
    fault = interface_name_fault(call.ifname)
    if fault:
        faults.append(f"CNI_IFNAME {_show(call.ifname)}{fault}")
    call.netns = _variable("CNI_NETNS")
    if call.verb in _NETNS_VERBS and not call.netns:
        faults.append("CNI_NETNS is empty")
    faults += _read_args(call)
    if faults:
        raise CniError(INVALID_ENVIRONMENT, "; ".join(faults))


def calling_process() -> str:
    """Return the name of the calling process, the runtime (proc(5), comm: 15 characters); empty if unknown."""
    try:
        return durable.contents(f"/proc/{getppid()}/comm").decode("utf-8", "replace").strip()
    except OSError:
        return ""  # the parent is in another pid namespace, or has ended


def kept_args() -> str:
    """Return CNI_ARGS as the runtime gave it, for a record; empty if it is too long to keep."""
    text = _variable("CNI_ARGS")
    return text if len(text) <= _MOST_ARGS else ""


def _show(value: str) -> str:
    """Return the start of a value and a space; empty for an empty value."""
    return f"{value[:_SHOWN]!r} " if value else ""


def _variable(name: str) -> str:
    return environ.get(name.encode(), b"").decode("utf-8", "surrogateescape")


def _container_fault(container: str) -> str:
    if not container:
        return "is empty"
    if len(container) > 230:
        return "has over 230 characters, too long for a file name"
    if container[0] in "_.-" or not NAME_CHARACTERS.issuperset(container):
        return "may contain only letters, digits, `_`, `.`, `-`, the first a letter or digit"
    return ""


def _read_args(call: Call) -> list[str]:
    """Read CNI_ARGS and return its faults. Unknown keys are meant for other plugins, with or without IgnoreUnknown."""
    faults = []
    text = _variable("CNI_ARGS")
    if not text.isascii() and any("\udc80" <= letter <= "\udcff" for letter in text):
        return ["CNI_ARGS is not UTF-8"]
    for number, pair in enumerate(text.split(";"), 1):
        if not pair:
            continue
        key, equals, value = pair.partition("=")
        if not equals:  # not quoted, because it may be a secret and the message is logged
            faults.append(f"part {number} of CNI_ARGS is not KEY=VALUE")
        call.args[key] = value
    ignoring = call.args.get("IgnoreUnknown", "1")
    if ignoring.lower() not in _TRUTHS and call.verb != "DEL":  # DEL doesn't depend on it
        faults.append(f"CNI_ARGS IgnoreUnknown {ignoring[:_SHOWN]!r} is neither 1, true, 0 nor false")
    for address in filter(None, call.args.get("IP", "").split(",")):
        try:
            call.wanted.append(parse_address(address.partition("/")[0], "CNI_ARGS IP"))
        except AddressError as error:
            faults.append(str(error))
    if call.args.get("MAC"):
        try:
            call.mac = parse_mac(call.args["MAC"])
        except ValueError as error:
            faults.append(f"CNI_ARGS MAC {error}")
    return faults
