"""Define a scenario: a configuration key with a value, and what must follow from it according to its documentation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.parity.answers import OK, Facts
from tests.parity.families import Family, Net
from tests.parity.places import NETWORK, Json

VERBS = ("ADD", "CHECK", "DEL", "GC", "STATUS", "VERSION")

POD, NODE, NOTHING = "the pod's address", "the node's address", "nothing"
"""The source that the receiver of a pod's datagram sees."""

REACH = {"gateway": POD, "pod": POD, "outside": POD}
"""The source seen at each destination if the bridge is the default gateway and nothing is masqueraded."""

Change = Callable[[Family, str], Json]
"""Returns the change that is merged into the conf for a family and a pod ('a' or 'b'). None removes a key."""


class _Null:
    """JSON's null in a change, in which None removes a key."""


NULL = _Null()


def _nothing(*_: object) -> Json:
    return {}


def _no_lines(_: Family) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True)
class Variant:
    """A key with a value. Everything else is as in the plainest conf that gives pods a default route."""

    key: str
    value: str
    change: Change = _nothing
    must: str = OK
    names: str = ""
    """What the message of a refusal must name."""
    environment: Callable[[Family, str], dict[str, str]] = _nothing
    before: Callable[[Family], tuple[str, ...]] = _no_lines
    """Lines for `ip -batch` that set up the host beforehand."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Files that the host has beforehand, with their contents."""
    expect: Callable[[Family], Facts] = _nothing
    """Facts that ADD must make true, in addition to those of every ADD."""
    reach: Mapping[str, str] = field(default_factory=lambda: REACH)
    probes: tuple[str, ...] = ()
    verbs: Mapping[str, str] = field(default_factory=dict)
    """The outcome that a verb must have, if it is not OK."""
    own_version: bool = False
    """Whether STATUS and GC are called with the conf's own version, not with the first version that has them."""
    needs: str = ""
    """A kernel feature. If the kernel lacks it, the refusal is judged instead of the row."""


@dataclass(frozen=True)
class Scenario:
    """A variant in a family, which runs on both sides."""

    variant: Variant
    family: Family

    @property
    def id(self) -> str:
        """The scenario's name in lists, such as `mtu = 1400, IPv4`."""
        return f"{self.variant.key} = {self.variant.value}, {self.family.name}"

    def conf(self, pod: str) -> Json:
        """Return the configuration without its `type`."""
        return merged(base(self.family), self.variant.change(self.family, pod))

    def environment(self, pod: str) -> dict[str, str]:
        """Return environment variables in addition to the usual ones."""
        return self.variant.environment(self.family, pod)


@dataclass(frozen=True)
class Row:
    """A scenario's verb, which gets one verdict, and the facts that must hold in it. Other facts are only compared."""

    key: str
    value: str
    verb: str
    family: str
    wanted: Facts
    needs: str = ""

    @property
    def id(self) -> str:
        """The row's name."""
        return f"{self.key} = {self.value} / {self.verb} / {self.family}"


def base(family: Family) -> Json:
    """Return the plainest conf that gives pods a default route, in the reference's form."""
    return {
        "cniVersion": "1.0.0",
        "name": NETWORK,
        "bridge": "cni0",
        "isDefaultGateway": True,
        "ipam": {"type": "host-local", "ranges": ranges(family.nets)},
    }


def ranges(nets: tuple[Net, ...], **more: Any) -> list[list[Json]]:
    """Return one range set per subnet."""
    return [[{"subnet": net.subnet, **more}] for net in nets]


def merged(conf: Json, change: Json) -> Json:
    """Return `conf` with `change` merged into it, objects key by key. None removes a key."""
    result = dict(conf)
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        elif value is NULL:
            result[key] = None
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result
