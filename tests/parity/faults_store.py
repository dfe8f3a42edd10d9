"""List the faults of ADD with a lease store that is full, damaged, stale, locked or not writable."""

import fcntl
import os
import subprocess

from tests.kernel.plugin.client import Answer, plugin_executable
from tests.parity import answers
from tests.parity.answers import OK, REFUSED, Facts
from tests.parity.families import Family
from tests.parity.fault import (
    DUAL,
    NOTHING_LEFT,
    Fault,
    add,
    added,
    conf_of,
    refused_add,
    restart,
    span,
    worst,
)
from tests.parity.places import OURS, Place

_STORE = "/var/lib/cni/networks/parity"


def _after_a_crash(place: Place, family: Family) -> Facts:
    conf = conf_of(family, ipMasq=True)
    added(place, "a", conf)
    restart(place, "a")
    return answers.outcome(add(place, "a", conf))


def _after_a_kill(place: Place, family: Family) -> Facts:
    for net in family.nets:
        _lease(place, net.at(2), f"{place.pods['a'].container}\r\neth0")
    return answers.outcome(add(place, "a", conf_of(family)))


def _lease(place: Place, address: str, text: str) -> None:
    folder = place.host.path(_STORE)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / address).write_bytes(text.encode())


def _empty_leases(place: Place, family: Family) -> Facts:
    for net in family.nets:
        _lease(place, net.at(2), "")
        _lease(place, net.at(3), "")
    conf = conf_of(family, ipam=span(family, 2, 4))
    return worst(*(add(place, pod, conf) for pod in ("a", "b", "c")))


def _vanished_pods(place: Place, family: Family) -> Facts:
    conf = conf_of(family, ipam=span(family, 2, 3))
    added(place, "a", conf)
    added(place, "b", conf)
    restart(place, "a")
    restart(place, "b")
    return answers.outcome(add(place, "c", conf))


def _exhausted(place: Place, family: Family) -> Facts:
    for net in family.nets:
        _lease(place, net.at(2), "other\r\neth0")
    return refused_add(place, conf_of(family, ipam=span(family, 2, 2)))


def _second_set_exhausted(place: Place, family: Family) -> Facts:
    _lease(place, family.nets[1].at(2), "other\r\neth0")
    return refused_add(place, conf_of(family, ipam=span(family, 2, 2)))


def _full_disk(place: Place, family: Family) -> Facts:
    place.host.run("mount", "-t", "tmpfs", "-o", "size=64k", "host", "/var/lib")
    place.host.run("sh", "-c", "head -c 1M /dev/zero >/var/lib/ballast", check=False)
    return refused_add(place, conf_of(family))


def _read_only(place: Place, family: Family) -> Facts:
    place.host.run("mount", "-t", "tmpfs", "-o", "ro", "host", "/var/lib")
    return refused_add(place, conf_of(family))


def _held_lock(place: Place, family: Family) -> Facts:
    """Hold the store's lock during ADD. Our plugin is built to wait half a second for it here, not twenty seconds."""
    folder = place.host.path(_STORE)
    folder.mkdir(parents=True, exist_ok=True)
    executable = plugin_executable(0.5) if place.side == OURS else place.executable
    environment = place.host.environment("ADD", place.pods["a"])
    stdin = place.stdin(conf_of(family))
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        started = subprocess.Popen(
            [*place.host.enter, executable],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        assert started.stdin is not None
        started.stdin.write(stdin)
        started.stdin.close()
        started.stdin = None
        try:
            started.wait(6)
            ended = True
        except subprocess.TimeoutExpired:
            ended = False
    stdout, stderr = started.communicate(timeout=60)
    facts = answers.outcome(Answer(started.returncode, stdout, stderr))
    return facts if ended else {"outcome": "waits as long as the lock is held", "code": 0, "message": ""}


def _another_store(place: Place, family: Family) -> Facts:
    """Call ADD with leases in the store from a subnet that the node had before."""
    _lease(place, "10.99.0.2", "other\r\neth0")
    _lease(place, "last_reserved_ip.0", "10.99.0.2")
    return answers.outcome(add(place, "a", conf_of(family)))


def _folder_for_a_lease(place: Place, family: Family) -> Facts:
    os.makedirs(place.host.path(f"{_STORE}/{family.nets[0].at(2)}"))
    return answers.outcome(add(place, "a", conf_of(family)))


FAULTS = (
    Fault("the pod's namespace was recreated without a DEL", "ADD", {"outcome": OK}, _after_a_crash),
    Fault("the previous ADD was killed after it wrote its lease", "ADD", {"outcome": OK}, _after_a_kill),
    Fault("zero-byte lease files in a small range", "ADD", {"outcome": OK}, _empty_leases),
    Fault("the range is full of pods that vanished", "ADD", {"outcome": OK}, _vanished_pods),
    Fault("the range is full", "ADD", NOTHING_LEFT, _exhausted),
    Fault("the second family's range is full", "ADD", NOTHING_LEFT, _second_set_exhausted, DUAL),
    Fault("the disk is full", "ADD", NOTHING_LEFT, _full_disk),
    Fault("the store is read-only", "ADD", NOTHING_LEFT, _read_only),
    Fault("another process holds the store's lock", "ADD", {"outcome": REFUSED, "code": 11}, _held_lock),
    Fault("the store has leases of another subnet", "ADD", {"outcome": OK}, _another_store),
    Fault("a folder has the name of a lease file", "ADD", {"outcome": OK}, _folder_for_a_lease),
)
