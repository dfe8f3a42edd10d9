"""Open the plugin's log for one more line, safely even if other users can write to folders on its path.

The mode is set only on a file that this call created. A symbolic link is followed only if root owns it and nobody else
can replace it: only root can write to its folder, or the folder is sticky. In a folder that others can write to, the
log must be a regular file owned by root without other hard links.
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

# sys/stat.h: kinds of files and permissions (the standard library's `stat` is not a C module)
_KIND, _CHARACTER, _REGULAR, _LINK = 0o170000, 0o020000, 0o100000, 0o120000
_STICKY, _BY_GROUP, _BY_OTHERS = 0o1000, 0o020, 0o002

_FOLDER = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC
_WRITE = O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC  # must not block on a pipe
_MOST_LINKS = 40  # the kernel's bound on symbolic links in one path (path_resolution(7))
_A_LINK = (errno.ELOOP, errno.ENOTDIR)
"""The kernel's answers if open would have to follow a link."""


def open_log(path: str) -> int:
    """Return a descriptor to append to; the file and missing folders are created.

    `path` is absolute. Raises OSError if the log can't be opened, is unsafe as described above, or is the same file as
    one of this process's standard descriptors.
    """
    walk = _Walk()
    try:
        descriptor = walk.open(path)
    finally:
        close(walk.folder)
    return descriptor


class _Walk:
    """A walk along a path, folder by folder; the present folder is held open, so that nobody can replace it."""

    def __init__(self) -> None:
        self.folder = open_descriptor("/", _FOLDER)
        root = fstat(self.folder)
        # a user namespace shows the host's root as another user, so the owner of `/` counts as root
        self._owners = (0, root.st_uid)
        self._only_root = False
        """Whether only root can change where the names in the folder lead."""
        self._shared = False
        """Whether others can create files in the folder."""
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
            elif waiting:  # a link of procfs does not lead where its text says
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
        sticky = folder.st_mode & _STICKY  # then others can't replace what root owns
        self._only_root = above and folder.st_uid in self._owners and (not shared or bool(sticky))

    def _target(self, name: str, path: str) -> str:
        """Return a link's text; empty for a link of procfs. Raises OSError if the link must not be followed."""
        link = open_descriptor(name, O_PATH | O_NOFOLLOW | O_CLOEXEC, dir_fd=self.folder)
        try:
            status = fstat(link)
            if status.st_mode & _KIND != _LINK:
                raise OSError(errno.ENOTDIR, "is a file where a folder is expected", path)
            if not self._only_root or status.st_uid not in self._owners:
                raise OSError(errno.EPERM, "leads through a symbolic link that is not root's alone", path)
            return "" if status.st_dev == stat("/proc").st_dev else readlink("", dir_fd=link)
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
        fchmod(descriptor, 0o640)  # regardless of the runtime's umask
        return descriptor

    def _checked(self, descriptor: int, path: str) -> int:
        status = fstat(descriptor)
        reason = ""
        is_roots = status.st_mode & _KIND == _REGULAR and status.st_uid in self._owners and status.st_nlink == 1
        if self._shared and not is_roots:
            reason = (
                "must be a regular file owned by root without other hard links, because others can write to its folder"
            )
        elif any(_same(status, descriptor, standard) for standard in (0, 1, 2)):
            reason = "is this call's own stdin, stdout or stderr"
        if reason:
            close(descriptor)
            raise OSError(errno.EPERM, reason, path)
        return descriptor


def _same(status: "stat_result", descriptor: int, standard: int) -> bool:
    """Return whether an open file is the same as a standard descriptor's."""
    try:
        other = fstat(standard)
    except OSError:
        return False  # closed
    if (status.st_dev, status.st_ino) == (other.st_dev, other.st_ino):
        return True
    if not status.st_mode & _KIND == other.st_mode & _KIND == _CHARACTER:
        return False
    # /dev/tty and /dev/console are other names of a terminal
    return status.st_rdev == other.st_rdev or (isatty(descriptor) and isatty(standard))


def _parts(path: str) -> list[str]:
    """Return the names in a path, the last one first."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]
