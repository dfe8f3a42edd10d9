"""The three standard descriptors of a process that may have been started with some of them closed."""

from posix import O_RDONLY, O_WRONLY, fstat, set_inheritable
from posix import open as open_descriptor

_NOTHING = "/dev/null"


def open_missing(needed: bool) -> None:
    """Open each standard descriptor that is closed, before a file that is opened later gets its number.

    With `needed` each read of such a stdin and each write to such a stdout fails, for a process whose input and output
    must arrive; else the input is empty and the output lost. Messages on stderr are lost in any case.
    """
    reads, writes = (O_WRONLY, O_RDONLY) if needed else (O_RDONLY, O_WRONLY)
    for number, flags in ((0, reads), (1, writes), (2, O_WRONLY)):
        try:
            fstat(number)
        except OSError:
            try:
                opened = open_descriptor(_NOTHING, flags)
            except OSError:
                opened = open_descriptor("/", O_RDONLY)  # a root without devices: reads and writes fail
            set_inheritable(opened, True)  # also for the programs that this process starts
