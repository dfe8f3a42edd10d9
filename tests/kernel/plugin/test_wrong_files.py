"""For a pipe or an endless device in place of a file it reads, the plugin fails at once with an error that names it."""

import os
from collections.abc import Iterator

import pytest

from tests.kernel.plugin.client import LEASES, RECORDS, Answer, Host, new_host

pytestmark = pytest.mark.once

BOUND = 20.0


@pytest.fixture(scope="module")
def shared_host() -> Iterator[Host]:
    """A host for all tests here; each test removes the files it created."""
    with new_host() as host:
        host.add(host.pod("first"))
        yield host


def call(host: Host, verb: str, name: str) -> Answer:
    pod = host.pod(name)
    return host.call(host.environment(verb, pod), host.stdin(), bound=BOUND)


@pytest.mark.parametrize("endless", [False, True], ids=["pipe", "device"])
@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("ADD", f"{LEASES}/mynet/last_reserved_ip.0"),
        ("ADD", f"{RECORDS}/mynet/.claimed"),
        ("ADD", f"{RECORDS}/mynet/NAME@eth0"),
        ("DEL", f"{RECORDS}/mynet/NAME@eth0"),
    ],
)
def test_plugin_names_a_path_that_is_not_a_file(shared_host: Host, verb: str, path: str, endless: bool) -> None:
    name = f"{verb.lower()}{'-device' if endless else ''}-{path.split('/')[-1].replace('@', '-').lower()}"
    path = path.replace("NAME", name)
    place = shared_host.path(path)
    aside = place.with_name(".aside")
    if place.exists():
        place.rename(aside)
    if endless:
        place.symlink_to("/dev/zero")
    else:
        os.mkfifo(place)
    before = shared_host.ports()
    try:
        answer = call(shared_host, verb, name)
        assert answer.code == 5 and path in answer.error["msg"], answer.error
        assert shared_host.ports() == before
    finally:
        place.unlink()
        if aside.exists():
            aside.rename(place)
    pod = shared_host.pod(f"{name}-after")
    shared_host.add(pod)
    shared_host.delete(pod)


@pytest.mark.parametrize("verb", ["ADD", "DEL", "VERSION"])
def test_endless_stdin_is_read_up_to_a_limit(shared_host: Host, verb: str) -> None:
    pod = shared_host.pod(f"endless-{verb.lower()}")
    through = ["sh", "-c", 'exec "$0" </dev/zero']
    answer = shared_host.call(shared_host.environment(verb, pod), b"", through=through, bound=BOUND)
    assert answer.code == 5 and "stdin" in answer.error["msg"]


def test_pipe_in_place_of_a_namespace_is_an_error(shared_host: Host) -> None:
    os.mkfifo(shared_host.path("/run/pipe"))
    pod = shared_host.pod("pipe")
    environment = shared_host.environment("ADD", pod, CNI_NETNS="/run/pipe")
    answer = shared_host.call(environment, shared_host.stdin(), bound=BOUND)
    assert answer.code == 4 and "/run/pipe" in answer.error["msg"]
