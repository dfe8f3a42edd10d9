"""Write plugin/hot.py anew: which functions ADD, CHECK and DEL call on their way, in the bench's own cases.

python -m tests.bench.hot
"""

import json
import os
import shutil
import tempfile
import textwrap
from pathlib import Path

import cnictl_plugin
from cnictl_plugin import bundle

from cnictl.node.plugin import interpreters, releases
from tests.bench import place
from tests.bench.cases import VERBS
from tests.bench.sides import OUTSIDE, Side, timed

_TARGET = Path(cnictl_plugin.__file__).parent / "hot.py"
_WATCHED = """
import sys
library, out = sys.argv[1:]
sys.path.insert(0, library)
import _thread, posix
own = (library + "/cnictl/", library + "/cnictl_plugin/")
called = set()

def watch(frame, event, _):
    code = frame.f_code
    if event == "call" and code.co_filename.startswith(own):
        called.add((frame.f_globals["__name__"], code.co_qualname))

start = _thread.start_new_thread
def started(function, *arguments):
    def watched(*inner):
        sys.setprofile(watch)
        function(*inner)
    return start(watched, *arguments)
_thread.start_new_thread = started

before = set(sys.modules)
sys.setprofile(watch)
from cnictl_plugin import main
def end(status):
    sys.setprofile(None)
    names = sorted(f"{module}:{name}" for module, name in called if "<" not in name)
    later = sorted(name for name in set(sys.modules) - before if name in sys.modules)
    document = repr([names, later]).replace("'", '"').encode()
    posix.write(posix.open(out, posix.O_CREAT | posix.O_WRONLY | posix.O_TRUNC), document)
    posix._exit(status)
main._exit = end
main.main()
"""


def main() -> None:
    """Profile each verb and write the file."""
    place.go_inside("tests.bench.hot")
    for path in ("/run", "/var/log", "/var/lib"):
        place.cover(path)
    place.ip("netns", "add", OUTSIDE)
    scratch = tempfile.mkdtemp(prefix="cnictl-hot-", dir="/var/tmp")
    try:
        os.makedirs(f"{scratch}/lib")
        interpreter = interpreters.inspect(interpreters.SYSTEM)
        made = releases.build(f"{scratch}/lib", "hot", releases.sources(), interpreter)
        found = _profile(made.launcher, interpreter.path)
    finally:
        shutil.rmtree(scratch)
    _TARGET.write_text(_text(found), encoding="utf-8")
    print(f"{_TARGET}: " + ", ".join(f"{verb} {len(functions)}" for verb, (functions, _) in found.items()))


def _profile(launcher: str, python: str) -> dict[str, tuple[set[str], set[str]]]:
    """Functions called and modules loaded, by verb, over hosts of each kind."""
    found: dict[str, tuple[set[str], set[str]]] = {verb: (set(), set()) for verb in VERBS}
    kinds = ((10, True, False), (11, False, False), (12, True, True))
    for number, masquerade, dual in kinds:
        host = Side("ours", launcher, number, masquerade, dual)
        host.set_up()
        host.stand(1)
        host.must_masquerade("standing0")  # as on any node, conntrack has something then
        host.make_pod("watched")
        for verb in VERBS:
            environment, stdin = host.asked(verb, "watched")
            argv = [python, "-IS", "-B", "-c", _WATCHED, os.path.dirname(launcher), "/run/called"]
            with place.within(host.node):
                _, status, said = timed(argv, environment, stdin)
            if status:
                raise RuntimeError(f"{verb}: {said.decode()}")
            if verb == "ADD":
                host.results["watched"] = json.loads(said)
            functions, loaded = json.loads(Path("/run/called").read_text(encoding="ascii"))
            found[verb][0].update(functions)
            found[verb][1].update(set(loaded) - _at_once(os.path.dirname(launcher), verb))
    return found


def _at_once(folder: str, verb: str) -> set[str]:
    """What a verb's modules import when they are loaded themselves."""
    imported = {name: one.imports for name, one in bundle.read_modules(folder, folder).items()}
    order = bundle.import_order(imported, ["cnictl_plugin.main", bundle.MODULES[verb]])
    return {*order, *(one for name in order for one in imported[name])}


def _text(found: dict[str, tuple[set[str], set[str]]]) -> str:
    lines = [
        '"""Which functions each verb normally calls, and what those import: written by `python -m tests.bench.hot`.',
        "",
        "A name that is missing here costs a little time when it is called; one that is no more costs nothing.",
        '"""',
        "",
        "FUNCTIONS: dict[str, str] = {",
    ]
    for verb, (functions, _) in found.items():
        lines.append(f'    "{verb}": """')
        by_module: dict[str, list[str]] = {}
        for one in sorted(functions):
            module, _, name = one.partition(":")
            by_module.setdefault(module, []).append(name)
        for module, names in by_module.items():
            lines += [f"{module}: {line}" for line in textwrap.wrap(" ".join(names), 118 - len(module))]
        lines.append('""",')
    lines += ["}", '"""By verb: lines of a module and names in it, qualified by their class."""', ""]
    lines.append("LATER: dict[str, str] = {")
    lines += [f'    "{verb}": "{" ".join(sorted(modules))}",' for verb, (_, modules) in found.items()]
    lines += ["}", '"""By verb: modules that functions import on their way."""']
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
