"""Collect what `cnictl status` shows, as JSON values."""

import contextlib
import os
import time
from typing import Any

import cnictl
from cnictl.core import skipped_entries
from cnictl.core.counted import counted, first_of
from cnictl.node import hint
from cnictl.node.addresses import lease_list
from cnictl.node.addresses.ranges import CONF_ENDINGS
from cnictl.node.host import pod_routes, reading, runtimes
from cnictl.node.plugin import install, versions
from cnictl.node.reach.peer_hints import PeerHints
from cnictl.node.resources import boot_note, inventory, peer_routes
from cnictl.node.resources.cni_conf import FILE_NAME
from cnictl.node.resources.peer_routes import PeerRouteState
from cnictl.node.runs import converge
from cnictl.node.spec.node_spec import NodeSpec, Peer
from cnictl.node.spine import Step
from cnictl.node.state import learned_peers, pending
from cnictl.probe import neighbours, owning
from cnictl.views import network_views, source_view
from cnictl.watch import repairs


@reading.cached_pass()
def collect(spec: NodeSpec) -> dict[str, Any]:
    """Return the whole screen as JSON values."""
    rows = [_row(step) for step in converge.plan(spec).whole.steps]
    listing = lease_list.listing_of(spec.name, spec)
    addresses = listing.as_json()
    findings = pod_routes.observe(spec)
    bin_dirs = runtimes.bin_dirs(runtimes.find())
    plugin = install.installed(bin_dirs)
    shown = {
        "drifted": sum(row["state"] == "drifted" for row in rows),
        "unknown": sum(row["state"] == "not known" for row in rows),
        "node": {"subnets": list(spec.subnets), "networks": list(spec.networks), "name": spec.name},
        "bridge": network_views.bridge(spec, listing.rows),
        "addresses": {key: addresses[key] for key in ("used", "free", "total", "range_sets")},
        "rules": network_views.nat(spec) if spec.nat else [],
        "source": source_view.shown(spec, learned_peers.load()) if spec.reach.source else None,
        "peers": peers(spec, peer_routes.states(spec, findings)),
        "strays": findings.as_json(),
        "plugin": {
            "version": plugin.current,
            "chosen": spec.plugin_version,
            "folders": list(plugin.bin_dirs),
            "missing_in": [folder for folder in bin_dirs if folder not in plugin.bin_dirs],
            "cnictl": cnictl.__version__,
            "cnictl_is_newer": versions.newer_than_in_use(plugin.lib_dir, plugin.current),
        },
        "confs": {folder: _confs(folder) for folder in runtimes.conf_dirs(runtimes.find())},
        "conf": FILE_NAME,
        "watch": repairs.saved(),
        "boot": boot_note.note(),
        "not_kept": inventory.not_kept(spec),
        "unconfirmed": unconfirmed(),
        "resources": rows,
    }
    return {**dict(zip(("verdict", "reasons"), verdict(shown), strict=True)), **shown}


HEALTHY, FAULTY, UNKNOWN, DOUBTFUL = "healthy", "faulty", "not known", "in doubt"
"""Verdicts. In doubt: no fault was found, but something could not be confirmed to work."""


def verdict(shown: dict[str, Any]) -> tuple[str, list[str]]:
    """Return the verdict on the node, and the reasons in words if it is not healthy."""
    faults = [f"{shown['drifted']} of {len(shown['resources'])} resources drifted"] if shown["drifted"] else []
    faulty_peers = [peer["via"] for peer in shown["peers"] if peer["fault"]]
    faults += [f"the host misroutes pods' packets ({len(shown['strays'])})"] if shown["strays"] else []
    faults += [f"fault of peer {first_of(faulty_peers, 3)}"] if faulty_peers else []
    source = shown["source"] or {"conflict": "", "trouble": ""}
    faults += ["the source of peers contradicts this node"] if source["conflict"] else []
    unknown = [f"{counted(shown['unknown'], 'resource')} could not be checked"] if shown["unknown"] else []
    doubts = _doubts(shown)
    for word, reasons in ((FAULTY, faults), (UNKNOWN, unknown), (DOUBTFUL, doubts)):
        if reasons:
            return word, [*faults, *unknown, *doubts]
    return HEALTHY, []


def _doubts(shown: dict[str, Any]) -> list[str]:
    silent = [peer["via"] for peer in shown["peers"] if peer["answers"] is False]
    unasked = [peer["via"] or peer["pod_cidr"] for peer in shown["peers"] if peer["answers"] is None]
    ahead = [names[0] for names in shown["confs"].values() if names and names[0] != shown["conf"]]
    without = [folder for folder, names in shown["confs"].items() if not names]
    watch, source = shown["watch"], shown["source"]
    doubts = [f"no answer from peer {first_of(silent, 3)}"] if silent else []
    doubts += [f"peer {first_of(unasked, 3)} was not asked"] if unasked else []
    doubts += [f"runtimes use {first_of(ahead, 3)}, not {shown['conf']}"] if ahead else []
    doubts += [f"no conf in {first_of(without, 3)}"] if without else []
    doubts += [f"watch no longer repairs {first_of(list(watch['given_up']), 3)}"] if watch and watch["given_up"] else []
    return doubts + (["the source of peers could not be read"] if source and source["trouble"] else [])


def unconfirmed() -> dict[str, Any] | None:
    """Return the run that this node reverts unless it is confirmed; None if there is none."""
    waiting = pending.read()
    if waiting is None:
        return None
    seconds = max(0.0, waiting.left())
    return {
        "run": waiting.run,
        "command": waiting.command,
        "seconds_left": round(seconds, 1),
        "reverts_at": round(time.time() + seconds),
    }


def has_fault(shown: dict[str, Any]) -> bool:
    """Return whether anything on the screen is wrong or not known. A silent peer is neither."""
    conflict = shown["source"] is not None and shown["source"]["conflict"]
    wrong = shown["drifted"] or shown["strays"] or shown["unknown"] or conflict
    return bool(wrong) or any(peer["fault"] for peer in shown["peers"])


def _row(step: Step) -> dict[str, Any]:
    change = step.change
    row: dict[str, Any] = {"resource": step.resource.id, "hint": None}
    if step.unknown:
        unknown = {"state": "not known", "now": None, "wanted": None, "summary": step.unknown}
        return {**row, **unknown, "hint": hint.as_json(step.hint)}
    row |= {"state": "ok", "now": step.state, "wanted": step.state}
    return row if change is None else {**row, "state": "drifted", "wanted": change.after, "summary": change.summary}


def peers(spec: NodeSpec, states: list[PeerRouteState]) -> list[dict[str, Any]]:
    """Return each peer's route, whether the peer answers on the link, and whether it has its pod CIDR.

    `answers` is None if the peer was not asked: no link to it is known, or the user is not root.
    """
    rows = _routes(spec, states)
    asked = [(row["via"], row["dev"]) for row in rows if row["via"] and row["dev"]] if os.geteuid() == 0 else []
    answered = neighbours.answering(asked) if asked else {}
    return [{**row, "answers": answered.get((row["via"], row["dev"]))} for row in rows]


def peer_words(row: dict[str, Any]) -> str:
    """Return what is known of a peer itself: why it can't be asked, or whether it answers on its link."""
    if row["link"] != peer_routes.ON_LINK:
        return str(row["link"])
    return {True: "answers", False: "silent", None: f"{row['link']}, not asked"}[row["answers"]]


def _routes(spec: NodeSpec, states: list[PeerRouteState]) -> list[dict[str, Any]]:
    """Return the routes as JSON values, each with whether its peer has the pod CIDR, and what is wrong if not.

    `pods` is empty if the peer was not asked: the route is missing, or the user is not root.
    """
    asked = [state.peer for state in states if state.peer is not None and state.works and state.on_link]
    pod_states: dict[Peer, str] = {}
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):  # the kernel lacks the family
            pod_states = owning.ask(asked)
    hints = PeerHints(spec)
    return [_route(state, pod_states.get(state.peer, "") if state.peer is not None else "", hints) for state in states]


def _route(state: PeerRouteState, pods: str, hints: PeerHints) -> dict[str, Any]:
    fault, what_to_do = owning.in_words(state.peer, pods, hints) if state.peer is not None and pods else ("", hint.NONE)
    if state.peer is not None and not fault and pods != owning.ANSWERS:
        fault, what_to_do = hints.refused_entry(state.peer)
    return {
        "pod_cidr": state.pod_cidr,
        "via": state.via,
        "dev": state.dev,
        "state": state.state,
        "link": state.link,
        "strays": [
            pod_routes.fault_json(diversion.words, pod_routes.hint_for(state.diversions))
            for diversion in state.diversions
        ],
        "pods": pods,
        "fault": fault,
        "hint": hint.as_json(what_to_do),
    }


def _confs(folder: str) -> list[str]:
    """Return the confs in a folder in the runtime's order; the runtime uses the first one."""
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith(CONF_ENDINGS))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        skipped_entries.skip_unreadable(folder, error)
        return []
