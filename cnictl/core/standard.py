"""The three standard descriptors of a process that may have been started with some of them closed."""

from posix import O_RDONLY, O_WRONLY, fstat, set_inheritable
from posix import open as open_descriptor

_NOTHING = "/dev/null"


def open_missing(output_fails: bool) -> None:
    """Open each standard descriptor that is closed, before a file that is opened later gets its number.

    Input is empty then, and messages are lost. With `output_fails` each write to stdout fails, for a caller whose
    output must arrive; else it is lost too.
    """
    for number, flags in ((0, O_RDONLY), (1, O_RDONLY if output_fails else O_WRONLY), (2, O_WRONLY)):
        try:
            fstat(number)
        except OSError:
            try:
                opened = open_descriptor(_NOTHING, flags)
            except OSError:
                opened = open_descriptor("/", O_RDONLY)  # a root without devices: reads and writes fail
            set_inheritable(opened, True)  # also for the programs that this process starts
