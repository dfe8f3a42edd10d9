"""What a scenario is: a key of the configuration with a value, and what its documentation says must be seen then."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.parity.answers import OK, Facts
from tests.parity.families import Family, Net
from tests.parity.places import NETWORK, Json

VERBS = ("ADD", "CHECK", "DEL", "GC", "STATUS", "VERSION")

POD, NODE, NOTHING = "the pod's address", "the node's address", "nothing"
"""Which source the receiver of a pod's datagram sees."""

REACH = {"gateway": POD, "pod": POD, "outside": POD}
"""What a pod's datagrams do with a bridge that is the default gateway, and no masquerade."""

Change = Callable[[Family, str], Json]
"""A family and the pod ('a' or 'b') to what is merged into the conf; None takes a key away."""


class _Null:
    """JSON's null in a change: None there takes a key away."""


NULL = _Null()


def _nothing(*_: object) -> Json:
    return {}


def _no_lines(_: Family) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True)
class Variant:
    """A key with a value. What isn't said is as in the plainest conf that gives pods a default route."""

    key: str
    value: str
    change: Change = _nothing
    must: str = OK
    names: str = ""
    """What the message of a refusal has to name."""
    environment: Callable[[Family, str], dict[str, str]] = _nothing
    before: Callable[[Family], tuple[str, ...]] = _no_lines
    """Lines of `ip -batch` that the host starts with."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Files that the host starts with."""
    expect: Callable[[Family], Facts] = _nothing
    """Facts that ADD has to make true, beside those that every ADD has to."""
    reach: Mapping[str, str] = field(default_factory=lambda: REACH)
    probes: tuple[str, ...] = ()
    verbs: Mapping[str, str] = field(default_factory=dict)
    """Verbs that must not succeed."""
    own_version: bool = False
    """Whether STATUS and GC are called with the conf's own version, not the first that has them."""
    needs: str = ""
    """A feature of the kernel: where it is missing the row isn't shown, and the refusal is."""


@dataclass(frozen=True)
class Scenario:
    """A variant in a family: what is run on both sides."""

    variant: Variant
    family: Family

    @property
    def id(self) -> str:
        """What names it in lists: `mtu = 1400, IPv4`."""
        return f"{self.variant.key} = {self.variant.value}, {self.family.name}"

    def conf(self, pod: str) -> Json:
        """The configuration without its `type`."""
        return merged(base(self.family), self.variant.change(self.family, pod))

    def environment(self, pod: str) -> dict[str, str]:
        """Environment variables beside the usual ones."""
        return self.variant.environment(self.family, pod)


@dataclass(frozen=True)
class Row:
    """One verdict: a scenario's verb, what must hold in it, and what is only compared."""

    key: str
    value: str
    verb: str
    family: str
    wanted: Facts
    needs: str = ""

    @property
    def id(self) -> str:
        """What names the row."""
        return f"{self.key} = {self.value} / {self.verb} / {self.family}"


def base(family: Family) -> Json:
    """The plainest conf that gives pods a default route, in the reference's form."""
    return {
        "cniVersion": "1.0.0",
        "name": NETWORK,
        "bridge": "cni0",
        "isDefaultGateway": True,
        "ipam": {"type": "host-local", "ranges": ranges(family.nets)},
    }


def ranges(nets: tuple[Net, ...], **more: Any) -> list[list[Json]]:
    """One range set a subnet."""
    return [[{"subnet": net.subnet, **more}] for net in nets]


def merged(conf: Json, change: Json) -> Json:
    """`change` laid over `conf`: objects key by key, None takes a key away."""
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
