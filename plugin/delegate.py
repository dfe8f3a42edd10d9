"""Run another IPAM plugin: find it in CNI_PATH, pass it our environment and stdin, and read its answer.

Spec 1.1.0, section 4. Loaded only if `ipam.type` names one. It writes to our stderr; its error is passed on unchanged.
"""

import time
from posix import (
    POSIX_SPAWN_DUP2,
    WEXITSTATUS,
    WIFSIGNALED,
    WNOHANG,
    WTERMSIG,
    X_OK,
    access,
    close,
    environ,
    killpg,
    lseek,
    memfd_create,
    pipe,
    posix_spawn,
    read,
    set_blocking,
    stat,
    waitpid,
    write,
)
from select import POLLIN, poll
from stat import S_ISREG

from cnictl.core import jsontext
from cnictl.core.attachments import Record
from cnictl.core.conf.netconf import NetConf
from cnictl.core.errors import DELEGATE_FAILED, INVALID_CONFIG, NOT_AVAILABLE, UNSUPPORTED_FIELD, CniError
from cnictl.core.netns import identity

from .environment import Call
from .ipam_result import parse_ipam_result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

ADD_WAIT = 180.0
"""Seconds for an IPAM plugin's ADD: dhcp gives up after some 170, the kubelet after 240."""
DELEGATE_WAIT = 30.0
"""Seconds for any other verb, which needs no answer from outside the node."""

_OUTPUT_LIMIT = 4 << 20
"""The most bytes of an answer that are read."""
_SHOWN = 200
"""Characters of an answer that a message repeats."""
_SIGKILL, _SIGPIPE, _SIGXFSZ = 9, 13, 25
_EOF, _TICK = b"", 20


def add(call: Call, conf: NetConf) -> "dict[str, Any]":
    """Run the IPAM plugin's ADD; return `ips`, `routes` and `dns` in the 1.1.0 shape, whatever version it answered in.

    If ADD fails, its DEL is run before this returns. Raises CniError: the plugin's own, else 2, 6, 7 or 107.
    """
    try:
        return parse_ipam_result(_answer(call, conf, "ADD", ADD_WAIT), conf.ipam_type)
    except CniError:
        undo(call, conf)
        raise


def undo(call: Call, conf: NetConf) -> None:
    """Run the IPAM plugin's DEL after a failed ADD, ignoring errors: the runtime needs to know the ADD's error."""
    try:
        _answer(call, conf, "DEL")
    except CniError:
        return


def delete(call: Call, conf: NetConf) -> None:
    """Run the IPAM plugin's DEL. Raises CniError."""
    _answer(call, conf, "DEL")


def check(call: Call, conf: NetConf) -> None:
    """Run the IPAM plugin's CHECK. Raises CniError."""
    _answer(call, conf, "CHECK")


def forget(call: Call, conf: NetConf, record: Record) -> None:
    """Run the IPAM plugin's DEL for an attachment that no runtime will DEL. Raises CniError.

    It gets the CNI_ARGS of the ADD, because some IPAM plugins find their lease by the pod's name.
    """
    is_same = identity(record.netns) == (record.netns_dev, record.netns_ino)
    attachment = {"CNI_CONTAINERID": record.container, "CNI_IFNAME": record.ifname}
    attachment["CNI_NETNS"] = record.netns if is_same else ""
    if record.cni_args:
        attachment["CNI_ARGS"] = record.cni_args
    _answer(call, conf, "DEL", attachment=attachment)


def collect(call: Call, conf: NetConf, valid: "Iterable[tuple[str, str]]") -> None:
    """Run the IPAM plugin's GC if it supports version 1.1.0, which GC needs. Raises CniError.

    `valid`: container and interface of each attachment to keep; if two runtimes share the network, these are more than
    the calling one knows.
    """
    if not _supports_version(call, conf):
        return
    document = jsontext.loads(call.stdin, replacing=True)
    named = [{"containerID": container, "ifname": ifname} for container, ifname in sorted(valid)]
    document["cni.dev/valid-attachments"] = named
    _answer(call, conf, "GC", stdin=jsontext.dumps(document).encode())


def status(call: Call, conf: NetConf) -> None:
    """Run the IPAM plugin's STATUS. Raises CniError: its own, or 50 if it is certain to refuse every ADD."""
    try:
        path = _find(call, conf.ipam_type)
    except CniError as error:
        error.code = NOT_AVAILABLE
        raise
    if not access(path, X_OK):
        raise CniError(NOT_AVAILABLE, f"ipam.type: {path} can't be executed", f"chmod 755 {path}")
    if not _supports_version(call, conf):
        raise CniError(
            NOT_AVAILABLE,
            f"ipam.type: {conf.ipam_type!r} doesn't support cniVersion {conf.cni_version}: it refuses every ADD",
            f"choose a cniVersion that {path} lists when asked for its VERSION",
        )
    _answer(call, conf, "STATUS")


def _supports_version(call: Call, conf: NetConf) -> bool:
    """Return whether the plugin supports the configuration's version; assume so if it can't say."""
    try:
        listed = _answer(call, conf, "VERSION").get("supportedVersions")
    except CniError:
        return True
    return not isinstance(listed, list) or conf.cni_version in listed


def _answer(
    call: Call,
    conf: NetConf,
    verb: str,
    wait: float = DELEGATE_WAIT,
    attachment: "dict[str, str] | None" = None,
    stdin: bytes = b"",
) -> "dict[str, Any]":
    """Run the plugin; return its answer, {} for a verb without one. `attachment` and `stdin` replace the call's own."""
    kind = conf.ipam_type
    path = _find(call, kind)
    environment = dict(environ)
    for name, value in {"CNI_COMMAND": verb, **(attachment or {})}.items():
        environment[name.encode()] = value.encode("utf-8", "surrogateescape")
    where = f"ipam.type {kind!r}: {verb} by {path}"
    try:
        status, output = _execute(path, environment, stdin or call.stdin, wait, where)
    except OSError as error:
        raise CniError(DELEGATE_FAILED, f"{where} can't be started: {error.strerror}") from None
    if status == 0 and verb not in ("ADD", "VERSION"):
        return {}
    try:
        document = jsontext.loads(output)
    except jsontext.JsonError:
        document = None
    _raise_its_own(document)
    if status == 0 and isinstance(document, dict):
        return document
    how = f"killed by signal {WTERMSIG(status)}" if WIFSIGNALED(status) else f"exit status {WEXITSTATUS(status)}"
    text = output.decode("utf-8", "replace").strip()
    raise CniError(
        DELEGATE_FAILED, f"{where}: {how}, without a CNI {'error' if status else 'result'} on stdout", text[:_SHOWN]
    )


def _raise_its_own(document: object) -> None:
    """Raise the error in a plugin's answer, if there is one (spec section 5 "Error")."""
    if not isinstance(document, dict):
        return
    code, msg, details = document.get("code"), document.get("msg"), document.get("details")
    if type(code) is int and code > 0 and isinstance(msg, str):
        raise CniError(code, msg, details if isinstance(details, str) else "")


def _find(call: Call, kind: str) -> str:
    """Return the first file with that name in CNI_PATH. Raises CniError 7 for an unusable name, 2 if there is none."""
    if "/" in kind or ".." in kind or not kind.isprintable():
        raise CniError(
            INVALID_CONFIG, f"ipam.type: {kind[:_SHOWN]!r} is not a plugin name", "it must be a file name in CNI_PATH"
        )
    if kind == call.plugin:
        raise CniError(INVALID_CONFIG, f"ipam.type: {kind!r} is this plugin itself", "name an IPAM plugin")
    folders = environ.get(b"CNI_PATH", b"").decode("utf-8", "surrogateescape")
    for folder in filter(None, folders.split(":")):
        path = f"{folder}/{kind}"
        try:
            if S_ISREG(stat(path).st_mode):
                return path
        except OSError:
            continue
    raise CniError(
        UNSUPPORTED_FIELD,
        f"ipam.type: {kind[:_SHOWN]!r} is in no folder of CNI_PATH {folders!r}",
        "install that IPAM plugin, or choose host-local, which needs none",
    )


def _execute(path: str, environment: "dict[bytes, bytes]", stdin: bytes, wait: float, where: str) -> tuple[int, bytes]:
    """Run a program in its own process group; return its wait status and stdout. Raises OSError, CniError 107.

    It counts as ended when its process ends, because a child that it left behind may keep stdout open.
    """
    request = memfd_create("cni-request")  # takes any length in one write; a pipe would fill up
    ours, theirs = pipe()
    try:
        rest = stdin
        while rest:
            rest = rest[write(request, rest) :]
        lseek(request, 0, 0)
        pid = posix_spawn(
            path,
            [path],
            environment,
            file_actions=[(POSIX_SPAWN_DUP2, request, 0), (POSIX_SPAWN_DUP2, theirs, 1)],
            setpgroup=0,
            setsigdef=[_SIGPIPE, _SIGXFSZ],  # Python ignores them, and the program would inherit that
        )
    except OSError:
        close(ours)
        raise
    finally:
        close(request)
        close(theirs)
    try:
        return _await(pid, ours, time.monotonic() + wait, where)
    finally:
        close(ours)


def _await(pid: int, stdout: int, deadline: float, where: str) -> tuple[int, bytes]:
    set_blocking(stdout, False)
    watch = poll()
    watch.register(stdout, POLLIN)
    output, open_still, pause = b"", True, 0.0002
    while True:
        ended, status = waitpid(pid, WNOHANG)
        while open_still and len(output) <= _OUTPUT_LIMIT:
            try:
                chunk = read(stdout, 65536)
            except BlockingIOError:
                break
            output += chunk
            open_still = chunk != _EOF
        too_much = len(output) > _OUTPUT_LIMIT
        if ended and not too_much:
            return status, output
        if too_much or time.monotonic() > deadline:
            if not ended:
                killpg(pid, _SIGKILL)
                waitpid(pid, 0)
            fault = f"answered with over {_OUTPUT_LIMIT >> 20} MiB" if too_much else "timed out and was killed"
            raise CniError(DELEGATE_FAILED, f"{where}: {fault}")
        if open_still:
            watch.poll(_TICK)
        else:
            time.sleep(pause)
            pause = min(pause * 2, _TICK / 1000)
