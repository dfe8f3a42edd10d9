"""The plugin's entry point: read environment and configuration, write one JSON document and one line of the log.

Every import here or in the imported modules delays the start of each pod, so they are only C modules of the interpreter
and modules of `cnictl.core`.
"""

import time
from posix import _exit, write

from cnictl.core import durable, jsontext, standard
from cnictl.core.conf import fields
from cnictl.core.conf.netconf import NetConf
from cnictl.core.conf.network import KEYS, parse_conf
from cnictl.core.errors import DECODING_FAILURE, INVALID_CONFIG, IO_FAILURE, KERNEL_REFUSED, NOT_AVAILABLE, CniError
from cnictl.core.locks import Locked
from cnictl.core.netlink.rtnetlink import NetlinkError
from cnictl.core.paths import NODE_LOCK, PLUGIN_LOG
from cnictl.core.result import SUPPORTED_VERSIONS, check_version
from cnictl.core.untrusted_text import line

from .environment import Call, read_environment
from .log import log_call

INTERNAL = 199
"""Our own error code for a bug in the plugin."""

_started = time.monotonic()


def main() -> None:
    """Execute the call and end the process: with 0, or with 1 and the error on stdout."""
    call, conf, version = Call(), None, SUPPORTED_VERSIONS[-1]
    address = ""
    failure = None
    standard.open_missing(needed=True)
    try:
        read_environment(call)
        document = _read_stdin(call)
        version = _version(document)
        if call.verb == "VERSION":
            _write_stdout(jsontext.dumps({"cniVersion": version, "supportedVersions": SUPPORTED_VERSIONS}))
        else:
            check_version(version, call.verb)
            conf = parse_conf(document, to_undo=call.verb in ("DEL", "GC"), with_ranges=call.verb == "ADD")
            address = _serve(call, conf)
    except CniError as error:
        failure = error
        if error.code == INVALID_CONFIG and conf is None and not _is_utf8(call.stdin):
            error.code = DECODING_FAILURE  # the malformed bytes were replaced, and the replacement caused the fault
    except NetlinkError as error:
        failure = CniError(KERNEL_REFUSED, f"the kernel refused {call.verb}: {error.strerror}")
    except OSError as error:
        failure = CniError(IO_FAILURE, f"{error.filename or call.verb}: {error.strerror}")
    except Exception as error:
        failure = CniError(INTERNAL, f"bug in cnictl-bridge: {type(error).__name__}: {error}", _place(error))
    if failure is not None:
        _report(failure, version)
    if call.verb != "VERSION":
        log_call(
            conf.log_file if conf else PLUGIN_LOG,
            conf.log_level if conf else "info",
            call,
            f"{failure.code}: {failure.message}" if failure else "ok",
            failure is not None,
            (time.monotonic() - _started) * 1000,
            address,
        )
    _exit(0 if failure is None else 1)  # saves 1 ms: nothing here needs the interpreter's finalizers


def _serve(call: Call, conf: NetConf) -> str:
    """Run the verb; return the attachment's addresses, for the log."""
    if call.verb == "STATUS":
        return _serve_status(call, conf)
    with Locked(NODE_LOCK, shared=True) as lock:
        if call.verb == "ADD":
            from .add import add

            return add(call, conf, _write_stdout, lock)
        if call.verb == "DEL":
            from .delete import delete

            return delete(call, conf)
        if call.verb == "CHECK":
            from .check import check

            return check(call, conf)
        from .collect import collect

        collect(call, conf)
    return ""


def _serve_status(call: Call, conf: NetConf) -> str:
    from .status import status

    lock = Locked(NODE_LOCK, shared=True)
    try:
        lock.__enter__()
    except OSError as error:  # every other verb needs the lock
        raise CniError(NOT_AVAILABLE, f"{NODE_LOCK}: {error.strerror}") from None
    except CniError as error:
        if error.code == IO_FAILURE:
            error.code = NOT_AVAILABLE
        raise
    try:
        status(call, conf)
    finally:
        lock.__exit__()
    return ""


def _read_stdin(call: Call) -> "dict[str, object]":
    try:
        call.stdin = durable.contents_of(0)
    except OSError as error:
        raise CniError(IO_FAILURE, f"the network configuration on stdin: {error.strerror}") from None
    if call.verb == "VERSION" and not call.stdin.strip():
        return {"cniVersion": SUPPORTED_VERSIONS[-1]}  # started manually without input, which other plugins allow too
    try:
        document = jsontext.loads(call.stdin, replacing=True)
    except jsontext.JsonError as error:
        raise CniError(DECODING_FAILURE, f"the network configuration on stdin is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise CniError(DECODING_FAILURE, "the network configuration on stdin is not a JSON object")
    document = fields.spelled(document, KEYS)
    kind = document.get("type")
    call.plugin = kind if isinstance(kind, str) else ""
    return document


def _version(document: "dict[str, object]") -> str:
    version = document.get("cniVersion")
    if version is None or version == "":
        return SUPPORTED_VERSIONS[
            0
        ]  # the field came with 0.2.0; libcni passes an empty one if a configuration has none
    if not isinstance(version, str):
        raise CniError(DECODING_FAILURE, f"cniVersion: {str(version)[:60]!r} is not a version such as 1.0.0")
    return version


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _write_stdout(text: str) -> None:
    data = text.encode()
    try:
        while data:
            data = data[write(1, data) :]
    except OSError as error:
        raise CniError(IO_FAILURE, f"can't write the answer to stdout: {error.strerror}") from None


def _report(failure: CniError, version: str) -> None:
    document = {"cniVersion": version, "code": failure.code, "msg": failure.message}
    if failure.hint:
        document["details"] = failure.hint
    try:
        _write_stdout(jsontext.dumps(document) + "\n")
    except CniError:
        _write_stderr(f"cnictl-bridge: {line(failure.message)}\n")


def _write_stderr(text: str) -> None:
    try:
        write(2, text.encode())
    except OSError:
        return  # the exit status still shows the failure


def _place(error: BaseException) -> str:
    """Return file and line where an exception was raised, for a bug report."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""
