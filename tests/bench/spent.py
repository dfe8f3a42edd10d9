"""Measure what each verb spends its time on, with the interpreter's profiler hook in whole calls."""

import json
import os
from dataclasses import dataclass

from tests.bench import place
from tests.bench.sides import Side, timed

VERBS = ("ADD", "CHECK", "DEL")
KINDS = {
    "start": "interpreter: start and end",
    "load": "bundle read, modules executed",
    "JSON": "JSON read and written",
    "files": "leases, records, log: files",
    "lock": "locks",
    "netlink": "netlink, including kernel time",
    "setns": "entering the pod's namespace",
    "wait": "link deletion until the kernel's reply",
    "code": "everything else: our own code",
}
_ROUNDS = 40

_WATCHED = """
import sys, time
now = time.perf_counter_ns
began = now()
import gc, marshal, posix
gc.disable()
library, verb, out = sys.argv[1:]
sys.path.insert(0, library)
name = f"{library}/bundles/{sys.implementation.cache_tag}/{verb}"
start, *parts = marshal.loads(posix.read(posix.open(name, 0), 1 << 22))
exec(start)
load(library, *parts)
loaded = now()
spent = {}
depth = since = at = 0
around = ""
KINDS = {"send": "netlink", "recv": "netlink", "setsockopt": "netlink", "flock": "lock",
         "create_dynamic": "setns", "call_function": "setns", "setns": "setns", "dlopen": "setns"}

def whole(code):
    if code.co_filename.endswith("core/jsontext.py"):
        return "JSON"
    return "wait" if code.co_qualname == "unlink" else ""

def watch(frame, event, arg):
    global around, at, depth, since
    if event == "c_call":
        at = now()
    elif event in ("c_return", "c_exception"):
        kind = KINDS.get(arg.__name__) or ("files" if arg.__module__ == "posix" else "")
        if kind and not depth:
            spent[kind] = spent.get(kind, 0) + now() - at
    elif event == "call":
        if not depth:
            around, since = whole(frame.f_code), now()
        depth += bool(around)
    elif depth:
        depth -= 1
        if not depth:
            spent[around] = spent.get(around, 0) + now() - since

main = sys.modules["cnictl_plugin.main"]
def end(status):
    sys.setprofile(None)
    ended = now()
    spent["load"] = loaded - began
    spent["inside"] = ended - began
    posix.write(posix.open(out, posix.O_CREAT | posix.O_WRONLY | posix.O_TRUNC), repr(spent).replace("'", '"').encode())
    posix._exit(status)
main._exit = end
sys.setprofile(watch)
main.main()
"""


@dataclass
class Parts:
    """One verb's time by kind (`KINDS`) and in total, in milliseconds, in the quickest of many calls."""

    verb: str
    by_kind: dict[str, float]
    whole: float


def measure(host: Side) -> list[Parts]:
    """Measure calls on a node without other pods. The profiler makes our own code look slightly slower than it is."""
    folder = os.path.dirname(host.program)
    python = f"{folder}/boot/python" if os.path.exists(f"{folder}/boot/python") else "/usr/bin/python3"
    out = "/run/spent"
    runs_by_verb: dict[str, list[dict[str, float]]] = {verb: [] for verb in VERBS}
    host.call("ADD", "measured0")
    host.call("DEL", "measured0")
    for _ in range(_ROUNDS):
        for verb in VERBS:
            argv = [python, "-IS", "-B", "-X", "utf8", "-c", _WATCHED, folder, verb, out]
            whole, said = _call(host, verb, argv)
            if verb == "ADD":
                host.results["measured0"] = json.loads(said)
            with open(out, encoding="ascii") as file:
                parts = {kind: nanoseconds / 1e6 for kind, nanoseconds in json.load(file).items()}
            inside = parts.pop("inside")
            parts["start"] = whole - inside
            parts["code"] = inside - sum(parts[kind] for kind in parts if kind != "start")
            runs_by_verb[verb].append({**parts, "whole": whole})
    return [_quickest(verb, runs) for verb, runs in runs_by_verb.items()]


def _quickest(verb: str, runs: list[dict[str, float]]) -> Parts:
    best = min(runs, key=lambda run: run["whole"])
    return Parts(verb, {kind: best.get(kind, 0.0) for kind in KINDS}, best["whole"])


def _call(host: Side, verb: str, argv: list[str]) -> tuple[float, bytes]:
    environment, stdin = host.asked(verb, "measured0")
    with place.within(host.node):
        milliseconds, status, said = timed(argv, environment, stdin)
    if status:
        raise RuntimeError(f"{verb}: {said.decode()}")
    return milliseconds, said
