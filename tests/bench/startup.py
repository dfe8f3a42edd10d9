"""Where a call's time goes before it does anything: the launcher, the interpreter, the imports, and so on, in steps."""

import os
import statistics

from tests.bench.sides import timed

_ROUNDS = 60
_PYTHON = "/usr/bin/python3"
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "CNI_COMMAND": "VERSION"}
_CONF = b'{"cniVersion":"1.0.0","name":"bench","type":"cnictl-bridge","subnet":"10.10.0.0/16","ipMasq":true}'


def print_table(program: str) -> None:
    """Measure the steps in turn, each a process that goes one step further, and print what each adds."""
    folder = os.path.dirname(program)
    steps = _steps(folder, program)
    taken: dict[str, list[float]] = {label: [] for label, _ in steps}
    for _ in range(_ROUNDS):
        for label, argv in steps:
            milliseconds, status, said = timed(argv, _ENVIRONMENT, _CONF)
            if status:
                raise RuntimeError(f"{label}: {said.decode()}")
            taken[label].append(milliseconds)
    print("\nstart-up in ms: the quickest of each, which other work on the machine disturbs least, and medians")
    print(f"  {'':56}{'until here':>12}{'step':>8}{'median':>10}")
    before = 0.0
    for label, _ in steps:
        until = min(taken[label])
        step = "" if label.startswith("for comparison") else f"{until - before:.1f}"
        print(f"  {label:56}{until:12.1f}{step:>8}{statistics.median(taken[label]):10.1f}")
        before = until


def _steps(folder: str, program: str) -> list[tuple[str, list[str]]]:
    """Each program is the one before and a step more; all end as the plugin does, by _exit."""
    path = f"library = {folder!r}; import gc, marshal, posix, sys; gc.disable(); sys.path.insert(0, library); "
    bundle = "f'{library}/bundles/{sys.implementation.cache_tag}/ADD'"
    start = f"start, modules = marshal.loads(posix.read(posix.open({bundle}, 0), 1 << 22)); "
    verb = start + "exec(start); load(library, modules); "
    read = "m = sys.modules['cnictl_plugin.main']; document = m.jsontext.loads(m.durable.contents_of(0)); "
    conf = verb + read + "m.parse_conf(document); "
    lock = conf + "m.Locked('/run/cnictl/node.lock', shared=True).__enter__(); "
    netlink = lock + "from cnictl.core import rtnetlink as r; n = r.Netlink(); r.get_link(n, 'lo'); "
    end = "from posix import _exit; _exit(0)"

    def python(text: str) -> list[str]:
        return ["/bin/sh", "-c", f'exec {_PYTHON} -IS -B -c "$0"', path + text + end]

    return [
        ("a process that does nothing (/bin/true)", ["/bin/true"]),
        ("the launcher's shell, which turns into it", ["/bin/sh", "-c", "[ -x /bin/true ] && exec /bin/true"]),
        ("python3 -IS instead, ending in _exit", python("")),
        ("the bundle read", python(start)),
        ("its modules executed: all that ADD imports", python(verb)),
        ("stdin, JSON, the configuration checked", python(conf)),
        ("the node's lock", python(lock)),
        ("a netlink socket, one query", python(netlink)),
        ("for comparison: the same imports without a bundle", python("import cnictl_plugin.main, cnictl_plugin.add; ")),
        ("for comparison: a whole VERSION", [program]),
    ]
