"""Kill a process before its n-th system call, using ptrace(2)."""

import ctypes
import os
import signal

_TRACEME, _SYSCALL, _SETOPTIONS = 0, 24, 0x4200
_GET_SYSCALL_INFO = 0x420E
_SYSGOOD, _EXITKILL = 0x1, 0x100000
_ENTRY = 1
_STOPPED_AT_CALL = signal.SIGTRAP | 0x80

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


def be_traced() -> None:
    """Wait in the child until the parent, its tracer, lets it continue."""
    _ptrace(_TRACEME, 0)
    os.kill(os.getpid(), signal.SIGSTOP)


def run_until(child: int, number: int) -> tuple[int, int]:
    """Let `child` continue, and kill it before it makes system call `number`, counted from 1.

    Return its wait status and the number of calls that it made. Processes that it starts are not traced.
    """
    _, status = os.waitpid(child, 0)
    if os.WIFSTOPPED(status):
        _ptrace(_SETOPTIONS, child, data=_SYSGOOD | _EXITKILL)
    calls = deliver = 0
    info = ctypes.create_string_buffer(88)  # struct ptrace_syscall_info; its first byte distinguishes entry and exit
    while os.WIFSTOPPED(status):
        stopped_by = os.WSTOPSIG(status)
        if stopped_by == _STOPPED_AT_CALL:
            _ptrace(_GET_SYSCALL_INFO, child, len(info), ctypes.addressof(info))
            calls += info.raw[0] == _ENTRY
            if calls == number and info.raw[0] == _ENTRY:
                os.kill(child, signal.SIGKILL)
                return os.waitpid(child, 0)[1], calls - 1
        deliver = stopped_by if stopped_by not in (_STOPPED_AT_CALL, signal.SIGSTOP, signal.SIGTRAP) else 0
        _ptrace(_SYSCALL, child, data=deliver)
        _, status = os.waitpid(child, 0)
    return status, calls


def _ptrace(request: int, child: int, address: int = 0, data: int = 0) -> None:
    if _libc.ptrace(request, child, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace: {os.strerror(number)}")
