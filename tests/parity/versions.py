"""List every cniVersion, and a prevResult of an earlier plugin in the chain."""

from tests.parity.answers import OK, REFUSED
from tests.parity.scenario import Variant

SUPPORTED = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
_SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}


def _version(version: str, value: str = "") -> Variant:
    return Variant(
        "cniVersion",
        value or version,
        lambda *_: {"cniVersion": None if value else version},
        expect=lambda _: {"result.cniVersion": version},
        verbs={
            verb: OK if SUPPORTED.index(version) >= SUPPORTED.index(since) else REFUSED
            for verb, since in _SINCE.items()
        },
        own_version=True,
    )


_BEFORE = {"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": "/run/netns/a"}

VERSIONS = (
    *(_version(version) for version in SUPPORTED),
    _version("0.1.0", "not given"),
    Variant(
        "cniVersion",
        "9.9.9",
        lambda *_: {"cniVersion": "9.9.9"},
        must=REFUSED,
        names="9.9.9",
        expect=lambda _: {"code": 1},
        verbs={"DEL": REFUSED},
        own_version=True,
    ),
    Variant(
        "prevResult",
        "of an earlier plugin",
        lambda _, pod: {
            "prevResult": {
                "cniVersion": "1.0.0",
                "interfaces": [{**_BEFORE, "sandbox": f"/run/netns/{pod}"}],
                "ips": [],
            }
        },
        expect=lambda _: {"result.interfaces": ["cni0", "the host veth", "eth0 in /run/netns/a", "lo in /run/netns/a"]},
    ),
)
