"""Errors as values: a code or an exit status, a message naming the offending value, and how to mend it.

Raised low, printed once at the edge (the plugin's `main`, the CLI's `main`).
"""

# Error codes of the CNI specification 1.1.0, section 5 "Error".
INCOMPATIBLE_VERSION = 1
UNSUPPORTED_FIELD = 2
UNKNOWN_CONTAINER = 3
INVALID_ENVIRONMENT = 4
IO_FAILURE = 5
DECODING_FAILURE = 6
INVALID_CONFIG = 7
TRY_AGAIN = 11
NOT_AVAILABLE = 50
LIMITED_CONNECTIVITY = 51

# Our own, from 100 on as the specification reserves for plugins.
ADDRESS_EXHAUSTED = 100
ADDRESS_CONFLICT = 101
INTERFACE_EXISTS = 102
KERNEL_REFUSED = 103
CHECK_FAILED = 104
BRIDGE_CONFLICT = 105
FIREWALL_FAILED = 106
DELEGATE_FAILED = 107


class CniError(Exception):
    """A plugin call's failure: `code` as above, `msg` one line, `details` the mend or the evidence."""

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.code = code
        self.msg = msg
        self.details = details


class Problem(Exception):
    """A command's failure (exit status 1): what is wrong and, in `mend`, what to do about it."""

    exit_status = 1

    def __init__(self, message: str, mend: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend


class UsageProblem(Problem):
    """Input that no state of the host would make right (exit status 2)."""

    exit_status = 2
