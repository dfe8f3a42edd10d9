"""`cnictl ipam`: show who holds which address, and free addresses that nobody holds any more."""

from __future__ import annotations  # a type would execute the module that the loader postpones

import time
from contextlib import nullcontext
from enum import StrEnum
from typing import Annotated, Any

import typer

from cnictl.cli import asking, differences, root
from cnictl.cli.asking import YesOption
from cnictl.cli.layout import bar, text_of
from cnictl.cli.output import (
    Format,
    ListOption,
    OutputOption,
    laid_out,
    print_items,
    print_list,
    print_table,
    say,
)
from cnictl.cli.renamed import FormerNetworkOption
from cnictl.core import cidr
from cnictl.core.counted import counted
from cnictl.core.errors import UsageProblem
from cnictl.core.leases import pool
from cnictl.core.paths import NETWORKS_DIR
from cnictl.node.addresses import lease_list, reclaim
from cnictl.node.spec import pod_names
from cnictl.views import lease_details

_REMOVES = "removes interfaces, leases and records"

NameOption = Annotated[
    str,
    typer.Option(
        "--name",
        metavar="NAME",
        help="The CNI network, such as mynet. Default: this node's, else the only one with leases.",
    ),
]
DataDirOption = Annotated[
    str,
    typer.Option(
        "--data-dir",
        metavar="FOLDER",
        help="The lease stores' folder. Default: the conf's, else /var/lib/cni/networks.",
    ),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Free nothing: show what would be freed.")]


class Order(StrEnum):
    """The values of --sort, which are those of `lease_list.ORDERS`."""

    ADDRESS = "address"
    AGE = "age"
    POD = "pod"
    STATE = "state"


def list_leases(
    name: NameOption = "",
    former: FormerNetworkOption = "",
    data_dir: DataDirOption = "",
    sort: Annotated[
        Order, typer.Option("--sort", help="The order: by address, by age (longest held first), by pod or by state.")
    ] = Order.ADDRESS,
    stale: Annotated[bool, typer.Option("--stale", help="Only the stale leases: what `ipam gc` would free.")] = False,
    output: ListOption = Format.TABLE,
) -> None:
    """List a network's leased addresses: container, interface, pod, age and state.

    live: its veth exists. stale: it is proven that nobody holds it, and the proof is shown. in flight: an ADD or DEL is
    working on it. unknown: another plugin's lease, whose state becomes known only after a reboot, or in a shared store
    possibly another node's lease. torn: a lease file without an owner. The last lines show how much of each range set
    is used, as a bar and in numbers. The command changes nothing. It also lists networks of host-local:

    \b
      cnictl ipam list
      cnictl ipam list --stale --sort age
      cnictl ipam list --name podman -o wide
      cnictl ipam list -o json | jq '.items[] | select(.state == "stale")'
    """
    listing = observe(name or former, data_dir, "ipam list")
    shown = listing.ordered(sort, stale)
    if output is Format.JSON:
        facts = {**listing.as_json(), "leases": shown.as_json()["leases"]}
        print_items(facts.pop("leases"), facts)
        return
    if shown.rows:
        columns = ("address", "container", "interface", "pod", "age", "state", "host veth", "netns")
        rows = [_cells(row, output is Format.WIDE) for row in shown.rows]
        print_list(output, columns, rows, (row.address for row in shown.rows), more=2)
    elif stale and output is not Format.NAME:
        say(f"{listing.network}: no stale leases")
    if output is Format.NAME:
        return
    print_table(("", ""), _utilisation(listing))
    _mention_unrecorded_veths(listing)


def show(
    who: Annotated[str, typer.Argument(metavar="POD", help="A pod by its address, name or container id.")],
    name: NameOption = "",
    former: FormerNetworkOption = "",
    data_dir: DataDirOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Show everything about one lease: its record, its host veth and bridge, its network namespace.

    \b
      cnictl ipam show 10.244.0.12
      cnictl ipam show default/web
    """
    if not who.strip("0123456789./") and not pod_names.address_in(who):
        try:
            cidr.parse_address(who, "IP")
        except cidr.AddressError as error:
            raise UsageProblem(str(error), "cnictl ipam show 10.244.0.12") from None
    listing = observe(name or former, data_dir, "ipam show")
    leases = [lease_details.details(listing, row) for row in lease_list.find(listing.rows, who)]
    if output is Format.JSON:
        print_items(leases)
        return
    for lease in leases:
        print_table(("what", "value"), [(key, value) for key, value in _lines(lease)])


def release(
    target: Annotated[str, typer.Argument(metavar="POD", help="A pod by its address, name or container id.")],
    name: NameOption = "",
    former: FormerNetworkOption = "",
    data_dir: DataDirOption = "",
    force: Annotated[
        bool, typer.Option("--force", help="Also release a live address: its pod loses its network.")
    ] = False,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Release one address, or all addresses of a pod: its veth, leases and record are removed together.

    Without --force, release refuses an address that is live or not proven stale: the next pod would get an address that
    is in use. At a terminal it shows what it will remove, and asks.

    \b
      cnictl ipam release 10.244.0.12
      cnictl ipam release 6f3c1e0b --dry-run
    """
    if not dry_run:
        root.require_root("ipam release", _REMOVES)
    with lease_list.refusals("ipam release"):
        listing, rows = reclaim.choose(name or former, data_dir, target, force)
    if dry_run:
        outcomes = [reclaim.ReleaseOutcome(row, "would free", row.reason) for row in rows]
    else:
        if rows and asking.can_ask(yes):
            asking.show(f"free {row.address or row.ifname} of {row.holder} ({row.words}: {row.reason})" for row in rows)
            asking.confirm("Free this?" if len(rows) == 1 else "Free these?")
        with reclaim.journalled("ipam release") as journal, lease_list.refusals("ipam release"):
            outcomes = reclaim.release(listing, rows, force, journal)
    _report(listing, outcomes, output)


def gc(
    name: NameOption = "",
    former: FormerNetworkOption = "",
    data_dir: DataDirOption = "",
    every: Annotated[bool, typer.Option("--all", help="Free the stale addresses of all networks.")] = False,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Free every address that is provably stale, and say what was left and why.

    An address is stale if the host has rebooted since the lease, its veth is gone, or its ADD was interrupted. Age
    alone does not count. `cnictl history` shows what was freed, and why. gc leaves addresses of another IPAM plugin to
    that plugin, which the runtime calls with DEL or GC. Exit status 1 if a stale address could not be freed. At a
    terminal gc shows what it will free, and asks.

    \b
      cnictl ipam gc --dry-run
      cnictl ipam gc --all
    """
    name = name or former
    if every and name:
        raise UsageProblem("--all and --name exclude each other")
    if not dry_run:
        root.require_root("ipam gc", _REMOVES)
    with lease_list.refusals("ipam gc"):
        names = lease_list.networks(data_dir or NETWORKS_DIR) if every else [name]
    results = []
    shown = None
    if asking.can_ask(yes or dry_run):
        shown = _show_stale([observe(network, data_dir, "ipam gc") for network in names])
    with nullcontext() if dry_run else reclaim.journalled("ipam gc") as journal:
        for place, network in enumerate(names):
            listing = shown[place] if shown is not None else observe(network, data_dir, "ipam gc")
            with lease_list.refusals("ipam gc"):
                results.append((listing, reclaim.collect(listing, dry_run, journal)))
    if output is Format.JSON:
        print_items(reclaim.as_json(listing, outcomes) for listing, outcomes in results)
    else:
        for listing, outcomes in results:
            _print_outcomes(listing, outcomes)
    if any(outcome.action == "failed" for _, outcomes in results for outcome in outcomes):
        raise typer.Exit(1)


def _show_stale(listings: list[lease_list.Listing]) -> list[lease_list.Listing]:
    """Show what gc would free, ask, and return the listings: gc then frees nothing that was not shown."""
    stale = [(listing, row) for listing in listings for row in reclaim.stale_rows(listing)]
    asking.show(
        f"free {row.address or row.ifname} of {row.holder} in {listing.network} ({row.reason})"
        for listing, row in stale
    )
    if stale:
        asking.confirm("Free this?" if len(stale) == 1 else "Free these?")
    return listings


def observe(name: str, data_dir: str, command: str) -> lease_list.Listing:
    """Return the listing of the network that the options name. Raises Problem, UsageProblem."""
    with lease_list.refusals(command):
        return lease_list.requested_listing(name, data_dir)


def _utilisation(listing: lease_list.Listing) -> list[tuple[str, str]]:
    """Return a row for each range set, and one for leases outside of all if there are several."""
    if listing.total is None:
        return [(listing.network, f"{listing.used} used; no conf here defines its ranges")]
    if len(listing.sets) == 1:
        outside = f" ({listing.outside} outside the range)" if listing.outside else ""
        of = f"{listing.used} used{outside}, {listing.free} of {_first(listing.sets[0])}{listing.total} free"
        used = bar(listing.used - listing.outside, listing.total)
        return [(f"{listing.network} {listing.ranges[0]}", f"{used} {of}")]
    rows = []
    for ranges in listing.sets:
        used_here = listing.used_of(ranges)
        of = f"{used_here} used, {max(0, ranges.size - used_here)} of {_first(ranges)}{ranges.size} free"
        rows.append((f"{listing.network} {ranges}", f"{bar(used_here, ranges.size)} {of}"))
    if listing.outside:
        rows.append((listing.network, f"{counted(listing.outside, 'lease')} outside these ranges"))
    return rows


def _first(ranges: pool.RangeSet) -> str:
    return "the first " if ranges.limited else ""


def _cells(row: lease_list.Row, wide: bool = False) -> tuple[str, ...]:
    owner = (row.container if wide else row.container[: lease_list.SHOWN_ID], row.ifname, row.pod)
    netns = row.record.netns if row.record is not None else ""
    ends = (cell or "-" for cell in (row.host_veth, netns))
    return (row.address or "-", *(cell or "-" for cell in owner), age(row.since), row.words, *ends)


def age(since: float) -> str:
    """Return in a word how long ago a time was; `-` if it is not known."""
    if not since:
        return "-"
    seconds = max(0, int(time.time() - since))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _lines(details: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    for key, value in details.items():
        name = prefix + key.replace("_", " ")
        if isinstance(value, dict):
            lines += _lines(value, f"{name}: ")
        elif key == "since":
            lines.append(("age", age(value)))
        else:
            shown = (
                {None: "none", True: "yes", False: "no"}.get(value) if value is None or value in (True, False) else None
            )
            lines.append((name, shown or str(value) or "-"))
    return lines


def _report(listing: lease_list.Listing, outcomes: list[reclaim.ReleaseOutcome], output: Format) -> None:
    """Print a release's outcomes. Exit status 1 if an address is still held."""
    if output is Format.JSON:
        facts = reclaim.as_json(listing, outcomes)
        print_items(facts.pop("outcomes"), facts)
    else:
        _print_outcomes(listing, outcomes)
    if any(outcome.action in ("failed", "left") for outcome in outcomes):
        raise typer.Exit(1)


def _print_outcomes(listing: lease_list.Listing, outcomes: list[reclaim.ReleaseOutcome]) -> None:
    freeing = [outcome.row for outcome in outcomes if outcome.action == "would free"]
    columns = ("address", "container", "interface", "pod", "outcome", "reason")
    rows = [(*_cells(outcome.row)[:4], outcome.action, outcome.reason) for outcome in outcomes]
    if freeing:  # the table and the manual commands are a script
        lines = [("~", f"# {text_of(line)}") for line in laid_out(columns, rows, None)]
        commands = dict.fromkeys(line for row in freeing for line in reclaim.commands(listing, row))
        differences.write([*lines, *(("", command) for command in commands)])
    elif outcomes:
        print_table(columns, rows)
    actions = [outcome.action for outcome in outcomes]
    counts = {action: actions.count(action) for action in ("freed", "would free", "left", "failed")}
    words = {"left": "kept"}
    summary = ", ".join(f"{count} {words.get(action, action)}" for action, count in counts.items() if count)
    say(f"{listing.network}: {summary or 'no leases'}")
    _mention_unrecorded_veths(listing)


def _mention_unrecorded_veths(listing: lease_list.Listing) -> None:
    for name in listing.unrecorded_veths:
        say(f"{name}: a host veth of {listing.network} that no record names; if its pod is gone: ip link delete {name}")
