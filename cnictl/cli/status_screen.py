"""Lay out the screen of `cnictl status`: the verdict, then what differs, then the rest."""

from collections.abc import Iterator
from typing import Any

from cnictl.cli import output
from cnictl.cli.differences import compact
from cnictl.cli.layout import Line, Segment, bar, width_of
from cnictl.core.counted import counted
from cnictl.node import hint
from cnictl.node.resources import boot_note
from cnictl.views import source_view
from cnictl.views.status import DOUBTFUL, FAULTY, HEALTHY, UNKNOWN

_ANSWERS = {True: "answers", False: "silent", None: "not asked"}
_LONGEST = 120
"""The most characters of a resource's state at a terminal; a longer one is cut between two words."""
_COLOURS = {HEALTHY: "ok", FAULTY: "failed", UNKNOWN: "failed", DOUBTFUL: "uncertain"}
"""Words that are shown in the colour of a verdict."""


def lines(shown: dict[str, Any], width: int | None) -> list[Line]:
    """Return all lines of the screen."""
    parts = [[_verdict(shown)], list(_differences(shown, width)), *_rest(shown, width)]
    listed = [part for part in parts if part]
    return [line for part in listed for line in ([], *part)][1:]


def fitted(listed: list[Line], columns: int, rows: int, last: str) -> list[Line]:
    """Return the first lines that fit a screen of this size, and a last line that counts the others."""
    room, taken = max(1, rows - 1), list[Line]()
    for line in listed:
        room -= max(1, -(-sum(width_of(segment.text) for segment in line) // columns))
        if room < 0:
            break
        taken.append(line)
    missing = len(listed) - len(taken)
    text = f"{last}; {counted(missing, 'more line')}: cnictl status" if missing else last
    return [*taken, [Segment(text[:columns], "skipped")]]


def _verdict(shown: dict[str, Any]) -> Line:
    verdict = shown["verdict"]
    if verdict == HEALTHY:
        peers = len(shown["peers"])
        asked = f", and every peer answers ({peers})" if peers else ""
        words = f"{len(shown['resources'])} resources match node.toml{asked}"
    else:
        words = "; ".join(shown["reasons"])
    return [Segment(verdict, _COLOURS[verdict]), Segment(f": {words}")]


def _differences(shown: dict[str, Any], width: int | None) -> Iterator[Line]:
    """Yield what differs and what is wrong, each with its hint."""
    off = [row for row in shown["resources"] if row["state"] != "ok"]
    if off:
        cells = [(*status_cells(row, _longest(width)), row["hint"]["text"] if row["hint"] else "") for row in off]
        columns = ("resource", "state", "now", "should be", "hint")
        yield from output.laid_out(columns, cells, width, 1, output.longest_cell(width))
    if shown["drifted"]:
        apply = hint.command("cnictl apply")
        yield _text(f"`{apply}` repairs {'it' if shown['drifted'] == 1 else 'them'}")
    for peer in shown["peers"]:
        if peer["fault"]:
            yield _text(peer["fault"])
            yield _text(f"  hint: {peer['hint']['text']}")
    yield from map(_text, output.diversion_lines(shown["strays"]))
    source = shown["source"]
    for words in filter(None, (source["conflict"], source["trouble"]) if source is not None else ()):
        yield _text(f"warning: {words}", "warning")


def _text(words: str, colour: str = "") -> Line:
    return [Segment(output.plain(words), colour)]


def _rest(shown: dict[str, Any], width: int | None) -> Iterator[list[Line]]:
    """Yield a table for each part of the node."""
    bridge = shown["bridge"]
    yield output.laid_out(("", ""), _summary(shown), width)
    if bridge is not None and bridge["ports"]:
        ports = [(port["name"], "up" if port["up"] else "down", port["pod"] or "not a cnictl pod",
                  ", ".join(port["addresses"])) for port in bridge["ports"]]  # fmt: skip
        yield output.laid_out(("port", "state", "pod", "addresses"), ports, width)
    if shown["peers"]:
        columns = ("pod CIDR", "via", "link", "route", "node answers", "pods")
        yield output.laid_out(columns, list(map(_peer_cells, shown["peers"])), width)
    if shown["rules"]:
        rules = [(rule["source"], rule["destination"], str(rule["packets"]), rule["where"]) for rule in shown["rules"]]
        yield output.laid_out(("from", "to", "packets", "rule"), rules, width)
    good = [row for row in shown["resources"] if row["state"] == "ok"]
    if good:
        yield matching(good, width)


def matching(rows: list[dict[str, Any]], width: int | None) -> list[Line]:
    """Return the table of the resources that are as they should be."""
    cells = [status_cells(row, _longest(width))[:3] for row in rows]
    return output.laid_out(("resource", "state", "now"), cells, width, longest=output.longest_cell(width))


def _longest(width: int | None) -> int | None:
    """Return the most characters of a resource's state: in a pipe nothing is shortened."""
    return None if width is None else _LONGEST


def _peer_cells(peer: dict[str, Any]) -> tuple[str, ...]:
    usual = (peer["pod_cidr"], peer["via"], peer["dev"], peer["state"])
    return (*usual, _ANSWERS[peer["answers"]], peer["pods"] or "not asked")


def _summary(shown: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the first table: one line for each part of the node."""
    bridge = shown["bridge"]
    lines = [("network", f"{shown['node']['name']}: {', '.join(shown['node']['subnets'])} of "
              f"{', '.join(shown['node']['networks'])}")]  # fmt: skip
    if bridge is None:
        lines.append(("bridge", "missing"))
    else:
        state = "up" if bridge["up"] else "down"
        lines.append(("bridge", f"{bridge['name']} {state}, {' '.join(bridge['addresses'])}, MTU {bridge['mtu']}"))
    lines += [
        (
            "addresses",
            f"{ranges['used']} of {'the first ' if ranges['limited'] else ''}{ranges['total']} used in "
            f"{', '.join(ranges['ranges'])} "
            f"{bar(ranges['used'], ranges['total'])}",
        )
        for ranges in shown["addresses"]["range_sets"]
    ]
    plugin = shown["plugin"]
    lines.append(("plugin", plugin_words(plugin)))
    if plugin["cnictl_is_newer"]:
        lines.append(("cnictl", f"{plugin['cnictl']}, newer than the plugin: cnictl plugin install puts it into use"))
    for folder, names in shown["confs"].items():
        first = names[0] if names else "none"
        mark = "" if first == shown["conf"] else f", not {shown['conf']}"
        lines.append(("conf", f"{folder}: {first}{mark}"))
    watch = shown["watch"]
    if watch is not None:
        given_up = f", no longer repaired: {', '.join(watch['given_up'])}" if watch["given_up"] else ""
        lines.append(("watch", f"runs, {counted(sum(watch['repairs'].values()), 'repair')}{given_up}"))
    if shown["boot"]:
        lines.append(("boot", boot_note.short()))
    if shown["not_kept"]:
        lines.append(("not kept", shown["not_kept"]))
    waiting = shown["unconfirmed"]
    if waiting is not None:
        when = source_view.clock(waiting["reverts_at"])
        lines.append(("unconfirmed", f"run {waiting['run']} is reverted at {when}, unless you run: cnictl confirm"))
    source = shown["source"]
    if source is not None:
        lines.append(("peers from", source_view.in_words(source)))
    return lines


def plugin_words(plugin: dict[str, Any]) -> str:
    """Return which version is where, and where the plugin is missing."""
    there = f"{plugin['version']} in {', '.join(plugin['folders'])}" if plugin["folders"] else ""
    missing = f"missing in {', '.join(plugin['missing_in'])}" if plugin["missing_in"] else ""
    return "; ".join(filter(None, (there, missing))) or "missing"


def status_cells(row: dict[str, Any], longest: int | None = None) -> tuple[str, str, str, str]:
    """Return a row of the table: the resource, its state and, if it drifted, its present and its wanted value.

    `longest`: the most characters of a value; None: any number.
    """
    now, wanted = row["now"], row["wanted"]
    if row["state"] == "not known":
        return row["resource"], row["state"], row["summary"], ""
    if row["state"] == "ok":
        return row["resource"], row["state"], _short(now, longest), ""
    keys = [key for key in {**(now or {}), **(wanted or {})} if (now or {}).get(key) != (wanted or {}).get(key)]
    seen = "missing" if now is None else _short({key: now[key] for key in keys if key in now}, longest) or "missing"
    asked_for = {key: wanted[key] for key in keys if key in wanted} if wanted is not None else None
    due = _short(asked_for, longest) or "absent"
    return row["resource"], row["state"], f"{seen}: other content" if seen == due else seen, due


def _short(state: dict[str, Any] | None, longest: int | None) -> str:
    """Return a state's values for one cell; of a file's text, the number of lines. `longest` as for `status_cells`."""
    if state is None:
        return ""
    parts = []
    for key, value in state.items():
        shown = counted(len(value.splitlines()), "line") if key == "text" else compact(value)
        if key == "files":
            shown = ", ".join(value)
        if key == "digest" and longest is not None:
            shown = shown[:12]
        if shown:
            parts.append(f"{key} {shown}")
    text = ", ".join(parts).replace("\n", " ")
    return text if longest is None or len(text) <= longest else f"{text[:longest].rpartition(' ')[0]} …"
