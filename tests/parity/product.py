"""Define the fixed list, the product of keys, verbs and families, and what must hold in each row.

A cell without a row has a reason here. A test uses `missing_cells` to check that none is missing.
"""

from collections.abc import Iterator

from tests.parity.answers import OK, REFUSED, Facts
from tests.parity.bridge_keys import BRIDGE
from tests.parity.families import FAMILIES
from tests.parity.ipam_keys import IPAM
from tests.parity.refused_values import BAD, BAD_IN_IPV6
from tests.parity.rules import OTHER_POD, Needed
from tests.parity.scenario import VERBS, Row, Scenario, Variant
from tests.parity.versions import SUPPORTED, VERSIONS

KEYS = (
    "bridge",
    "isGateway",
    "isDefaultGateway",
    "forceAddress",
    "ipMasq",
    "ipMasqBackend",
    "mtu",
    "hairpinMode",
    "promiscMode",
    "vlan",
    "vlanTrunk",
    "preserveDefaultVlan",
    "macspoofchk",
    "enabledad",
    "disableContainerInterface",
    "portIsolation",
    "args.cni.mac",
    "runtimeConfig.mac",
    "CNI_ARGS MAC",
    "CNI_ARGS IP",
    "args.cni.ips",
    "runtimeConfig.ips",
    "runtimeConfig.ipRanges",
    "ipam.type",
    "ipam.ranges",
    "ipam.subnet",
    "ipam.rangeStart",
    "ipam.rangeEnd",
    "ipam.gateway",
    "ipam.routes",
    "ipam.routes[].gw",
    "ipam.routes[].mtu",
    "ipam.routes[].advmss",
    "ipam.routes[].priority",
    "ipam.routes[].table",
    "ipam.routes[].scope",
    "ipam.resolvConf",
    "ipam.dataDir",
    "dns",
    "cniVersion",
    "prevResult",
    "unknown keys",
)

NOT_REFUSED = {"unknown keys": "they may have any value"}
"""Keys of which no value is refused, with the reason."""

NO_MEANING = {"VERSION": "VERSION gets no configuration (specification, section 2), so one row covers all keys"}
"""Verbs for which keys have no rows, with the reason."""

SCENARIOS = tuple(Scenario(variant, family) for variant in (*BRIDGE, *IPAM, *VERSIONS) for family in FAMILIES)
BAD_SCENARIOS = (
    *(Scenario(variant, FAMILIES[0]) for variant in BAD),
    *(Scenario(variant, FAMILIES[1]) for variant in BAD_IN_IPV6),
)
VERSION_ROW = Row("VERSION", "no configuration", "VERSION", "any", {"outcome": OK, "supported": list(SUPPORTED)})


def missing_cells() -> list[tuple[str, str, str]]:
    """Return the cells of the product that have neither a row nor a reason."""
    rows = {(row.key, row.verb, row.family) for scenario in SCENARIOS for row in rows_of(scenario)}
    product = ((key, verb, family.name) for key in KEYS for verb in VERBS for family in FAMILIES)
    return [cell for cell in product if cell not in rows and cell[1] not in NO_MEANING]


def rows_of(scenario: Scenario) -> Iterator[Row]:
    """Yield a scenario's rows, one for each verb that applies to it."""
    variant, family = scenario.variant, scenario.family
    for verb, wanted in _wanted(scenario):
        yield Row(variant.key, variant.value, verb, family.name, wanted, variant.needs)


def _wanted(scenario: Scenario) -> Iterator[tuple[str, Facts]]:
    variant = scenario.variant
    if variant.must == REFUSED:
        yield "ADD", {"outcome": REFUSED, "left": [], "names": _names(variant), **variant.expect(scenario.family)}
        if not variant.value.startswith("bad: "):
            yield "DEL", {"outcome": variant.verbs.get("DEL", OK), "left": []}
        return
    reach = {
        f"to {place}, IPv{net.version}": source
        for place, source in variant.reach.items()
        for net in scenario.family.nets
    }
    own: dict[str, Facts] = {
        "ADD": {
            "outcome": OK,
            "result.untrue": [],
            "pod.tentative": [],
            "bridge.tentative": [],
            **reach,
            **variant.expect(scenario.family),
        },
        "CHECK": {"outcome": OK},
        "DEL": {
            "outcome": OK,
            "again": OK,
            "left": [],
            **{f"{OTHER_POD}{fact}": source for fact, source in reach.items() if fact.startswith("to gateway")},
        },
        "GC": {"outcome": OK, "left": []},
        "STATUS": {"outcome": OK},
    }
    for verb, wanted in own.items():
        must = variant.verbs.get(verb, OK)
        yield verb, wanted if must == OK else {"outcome": must}


def _names(variant: Variant) -> Needed:
    names = [variant.names.lower()]
    if variant.value.startswith("bad: "):
        names.append(variant.value.removeprefix("bad: ").strip("'[]").lower())
    return Needed(
        lambda seen: any(name in seen.get("message", "").lower() for name in names),
        f"the refusal doesn't name {variant.names}: {{message}}",
    )
