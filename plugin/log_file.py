"""Open the plugin's log for one more line, without changing or following anything that is not the operator's.

The mode is set only on a file that this call created. A path leads to the log only as far as root alone decides where
it leads: a symbolic link counts if root owns it and nobody else can write to its folder (or the folder is sticky). In
a folder that others can write to, only a regular file of root's with no second name is written to.
"""

import errno
from posix import (
    O_APPEND,
    O_CLOEXEC,
    O_CREAT,
    O_DIRECTORY,
    O_EXCL,
    O_NOCTTY,
    O_NOFOLLOW,
    O_NONBLOCK,
    O_PATH,
    O_WRONLY,
    close,
    fchmod,
    fstat,
    isatty,
    mkdir,
    readlink,
    stat,
)
from posix import open as open_descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from posix import stat_result

# sys/stat.h: what a file is, and who may do what (the interpreter's `stat` module isn't one of its C modules)
_KIND, _CHARACTER, _REGULAR, _LINK = 0o170000, 0o020000, 0o100000, 0o120000
_STICKY, _BY_GROUP, _BY_OTHERS = 0o1000, 0o020, 0o002

_FOLDER = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC
_WRITE = O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC  # a pipe nobody reads must not hold us
_MOST_LINKS = 40  # the kernel's bound on symbolic links in one path (path_resolution(7))
_A_LINK = (errno.ELOOP, errno.ENOTDIR)
"""What the kernel answers for a link that must not be followed."""


def open_log(path: str) -> int:
    """Return a descriptor to append to; missing folders and the file are created.

    `path` is absolute. Raises OSError if the log can't be opened, or is refused for the reasons above, or is what one
    of this process's own standard descriptors leads to.
    """
    walk = _Walk()
    try:
        descriptor = walk.open(path)
    finally:
        close(walk.folder)
    return descriptor


class _Walk:
    """The way along a path, folder by folder; each is held open, so that nobody can exchange it behind our back."""

    def __init__(self) -> None:
        self.folder = open_descriptor("/", _FOLDER)
        root = fstat(self.folder)
        # a user namespace shows the host's root as another user: whoever owns `/` is as good as root
        self._owners = (0, root.st_uid)
        self._only_root = False
        """Whether root alone decides what the names in the folder lead to."""
        self._shared = False
        """Whether others can create names in the folder."""
        self._judge(root, above=True)

    def open(self, path: str) -> int:
        waiting = _parts(path)
        links = 0
        while True:
            if not waiting:
                raise OSError(errno.EISDIR, "is a folder", path)
            name = waiting.pop()
            try:
                if not waiting:
                    return self._open_file(name, path)
                self._descend(name)
                continue
            except OSError as error:
                if error.errno not in _A_LINK:
                    raise
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, "too many symbolic links", path)
            target = self._target(name, path)
            if target:
                waiting += _parts(target)
                if target.startswith("/"):
                    self._enter(open_descriptor("/", _FOLDER), above=True)
            elif waiting:  # a link of procfs: where it leads is not what its text says
                self._enter(open_descriptor(name, _FOLDER & ~O_NOFOLLOW, dir_fd=self.folder), above=True)
            else:
                return self._checked(open_descriptor(name, _WRITE & ~O_NOFOLLOW, dir_fd=self.folder), path)

    def _descend(self, name: str) -> None:
        try:
            deeper = open_descriptor(name, _FOLDER, dir_fd=self.folder)
        except FileNotFoundError:
            try:
                mkdir(name, 0o750, dir_fd=self.folder)
            except FileExistsError:
                pass  # another call made it
            deeper = open_descriptor(name, _FOLDER, dir_fd=self.folder)
        self._enter(deeper, above=self._only_root)

    def _enter(self, folder: int, above: bool) -> None:
        close(self.folder)
        self.folder = folder
        self._judge(fstat(folder), above)

    def _judge(self, folder: "stat_result", above: bool) -> None:
        shared = folder.st_mode & _BY_OTHERS or (folder.st_mode & _BY_GROUP and folder.st_gid)
        self._shared = bool(shared) or folder.st_uid not in self._owners or not above
        sticky = folder.st_mode & _STICKY  # there nobody can replace what root owns
        self._only_root = above and folder.st_uid in self._owners and (not shared or bool(sticky))

    def _target(self, name: str, path: str) -> str:
        """Where a link leads by its text; empty for one of procfs. Raises OSError if it must not be followed."""
        link = open_descriptor(name, O_PATH | O_NOFOLLOW | O_CLOEXEC, dir_fd=self.folder)
        try:
            found = fstat(link)
            if found.st_mode & _KIND != _LINK:
                raise OSError(errno.ENOTDIR, "a file stands where a folder should", path)
            if not self._only_root or found.st_uid not in self._owners:
                raise OSError(errno.EPERM, "leads through a symbolic link that is not root's alone", path)
            return "" if found.st_dev == stat("/proc").st_dev else readlink("", dir_fd=link)
        finally:
            close(link)

    def _open_file(self, name: str, path: str) -> int:
        try:
            return self._checked(open_descriptor(name, _WRITE, dir_fd=self.folder), path)
        except FileNotFoundError:
            pass
        try:
            descriptor = open_descriptor(name, _WRITE | O_CREAT | O_EXCL, 0o640, dir_fd=self.folder)
        except FileExistsError:  # another call created it
            return self._checked(open_descriptor(name, _WRITE, dir_fd=self.folder), path)
        fchmod(descriptor, 0o640)  # whatever the runtime's umask left
        return descriptor

    def _checked(self, descriptor: int, path: str) -> int:
        found = fstat(descriptor)
        reason = ""
        is_roots = found.st_mode & _KIND == _REGULAR and found.st_uid in self._owners and found.st_nlink == 1
        if self._shared and not is_roots:
            reason = "is not a regular file of root's in a folder that others can write to"
        elif any(_same(found, descriptor, standard) for standard in (0, 1, 2)):
            reason = "is this call's own stdin, stdout or stderr"
        if reason:
            close(descriptor)
            raise OSError(errno.EPERM, reason, path)
        return descriptor


def _same(found: "stat_result", descriptor: int, standard: int) -> bool:
    """Whether a file that was opened is what a standard descriptor leads to."""
    try:
        other = fstat(standard)
    except OSError:
        return False  # closed
    if (found.st_dev, found.st_ino) == (other.st_dev, other.st_ino):
        return True
    if not found.st_mode & _KIND == other.st_mode & _KIND == _CHARACTER:
        return False
    # /dev/tty and /dev/console are further names of a terminal
    return found.st_rdev == other.st_rdev or (isatty(descriptor) and isatty(standard))


def _parts(path: str) -> list[str]:
    """The names of a path, the last one first."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]
