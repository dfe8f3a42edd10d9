"""The errors of cnictl: each has a message that names the offending value, a hint what to do, and an exit status.

They are raised where they are found and printed once, by the `main` of the plugin or of the CLI. Errors of core also
have a CNI error code; a command treats them like any other Problem.
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

# Our own codes: the specification leaves those from 100 on to plugins.
ADDRESS_EXHAUSTED = 100
ADDRESS_CONFLICT = 101
INTERFACE_EXISTS = 102
KERNEL_REFUSED = 103
CHECK_FAILED = 104
BRIDGE_CONFLICT = 105
FIREWALL_FAILED = 106
DELEGATE_FAILED = 107


class Problem(Exception):
    """A failure: `message` says in one line what is wrong, `hint` what to do about it."""

    exit_status = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class UsageProblem(Problem):
    """Input that is wrong whatever the state of the host (exit status 2)."""

    exit_status = 2


class CniError(Problem):
    """A failure with one of the codes above, as a plugin call reports it. Its `hint` may also be evidence."""

    def __init__(self, code: int, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.code = code


class ProgramError(CniError):
    """A program failed. The plugin starts only firewall programs, so the code is 106.

    `reason` is the message without the command line; empty if the program was not started.
    """

    def __init__(self, message: str, hint: str = "", code: int = FIREWALL_FAILED, reason: str = "") -> None:
        super().__init__(code, message, hint)
        self.reason = reason

    @property
    def unsupported(self) -> bool:
        """Whether nft's message says that the kernel lacks a feature that the program needs."""
        return "not supported" in self.message or "No such file" in self.message


class MissingProgram(ProgramError):
    """A program is not installed, or can't be started (code 2)."""

    unsupported = True

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint, UNSUPPORTED_FIELD)
