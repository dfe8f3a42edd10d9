"""Open standard descriptors that were closed when the process was started."""

from posix import O_RDONLY, O_WRONLY, fstat, set_inheritable
from posix import open as open_descriptor

_NOTHING = "/dev/null"


def open_missing(needed: bool) -> None:
    """Open each standard descriptor that is closed, so that no other file gets its number.

    With `needed`, reading such a stdin or writing such a stdout fails, for a process whose input and output must not be
    lost. Otherwise the input is empty and the output is dropped. Output to such a stderr is always dropped.
    """
    reads, writes = (O_WRONLY, O_RDONLY) if needed else (O_RDONLY, O_WRONLY)
    for number, flags in ((0, reads), (1, writes), (2, O_WRONLY)):
        try:
            fstat(number)
        except OSError:
            try:
                opened = open_descriptor(_NOTHING, flags)
            except OSError:
                opened = open_descriptor("/", O_RDONLY)  # there is no /dev: reads and writes fail
            set_inheritable(opened, True)  # programs that this process starts need it too
