"""Measure the steps of a call's start: the launcher, the interpreter, the imports and so on."""

import os
import statistics
from dataclasses import dataclass

from tests.bench.sides import timed

_ROUNDS = 60
_PYTHON = "/usr/bin/python3"
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "CNI_COMMAND": "VERSION"}
_CONF = b'{"cniVersion":"1.0.0","name":"bench","type":"cnictl-bridge","subnet":"10.10.0.0/16","ipMasq":true}'


@dataclass
class Step:
    """A process that does one step more than the step before. Times are in milliseconds."""

    label: str
    quickest: float
    median: float
    apart: bool
    """Whether the process is no step of the start, and measured only for comparison."""


def measure(program: str) -> list[Step]:
    """Measure the steps in turn. Other work on the machine disturbs the quickest of many runs least."""
    steps = _steps(os.path.dirname(program), program)
    taken: dict[str, list[float]] = {label: [] for label, _ in steps}
    for _ in range(_ROUNDS):
        for label, argv in steps:
            milliseconds, status, said = timed(argv, _ENVIRONMENT, _CONF)
            if status:
                raise RuntimeError(f"{label}: {said.decode()}")
            taken[label].append(milliseconds)
    return [
        Step(label, min(taken[label]), statistics.median(taken[label]), label.startswith("for comparison"))
        for label, _ in steps
    ]


def _steps(folder: str, program: str) -> list[tuple[str, list[str]]]:
    """Return each step's label and command. All Python steps end by _exit, as the plugin does."""
    link = f"{folder}/boot/python"
    path = f"library = {folder!r}; import gc, marshal, posix, sys; gc.disable(); sys.path.insert(0, library); "
    bundle = "f'{library}/bundles/{sys.implementation.cache_tag}/ADD'"
    start = f"start, *parts = marshal.loads(posix.read(posix.open({bundle}, 0), 1 << 22)); "
    verb = start + "exec(start); load(library, *parts); "
    read = "m = sys.modules['cnictl_plugin.main']; document = m.jsontext.loads(m.durable.contents_of(0)); "
    conf = verb + read + "m.parse_conf(document); "
    lock = conf + "m.Locked('/run/cnictl/node.lock', shared=True).__enter__(); "
    netlink = lock + "from cnictl.core.netlink import rtnetlink as r; n = r.Netlink(); r.get_link(n, 'lo'); "
    end = "from posix import _exit; _exit(0)"

    if not os.path.exists(link):
        link = _PYTHON

    def python(text: str, interpreter: str = link) -> list[str]:
        return ["/bin/sh", "-c", f'exec {interpreter} -IS -B -X utf8 -c "$0"', path + text + end]

    return [
        ("a process that does nothing (/bin/true)", ["/bin/true"]),
        ("sh, then exec of /bin/true", ["/bin/sh", "-c", "[ -x /bin/true ] && exec /bin/true"]),
        ("sh, then Python ending in _exit", python("")),
        ("the bundle read", python(start)),
        ("its modules executed: all that ADD imports", python(verb)),
        ("stdin, JSON, the configuration checked", python(conf)),
        ("the node's lock", python(lock)),
        ("a netlink socket, one query", python(netlink)),
        ("for comparison: the interpreter by its own name", python("", _PYTHON)),
        ("for comparison: the same imports without a bundle", python("import cnictl_plugin.main, cnictl_plugin.add; ")),
        ("for comparison: a whole VERSION", [program]),
    ]
