"""Files that are for their owner alone: what was typed and said. No link leads to or out of them.

Modes hold whatever the umask is; those of an older file are put right when it is opened.
"""

from __future__ import annotations

import errno
import os
import stat
from io import FileIO
from pathlib import Path
from typing import Literal


def private_directory(path: Path) -> Path:
    """Return `path`, made if it is missing, with those above it; nobody else may look into it.

    Raises OSError if it cannot be made, is a link, not a directory, or another user's.
    """
    for folder in reversed((path, *path.parents)):
        if not os.path.lexists(folder):
            folder.mkdir(mode=0o700, exist_ok=True)
    check_directory(path)
    if stat.S_IMODE(os.lstat(path).st_mode) != 0o700:
        path.chmod(0o700)
    return path


def check_directory(path: Path) -> None:
    """Raise OSError if `path` is not there, is a link, not a directory, or another user's."""
    info = os.lstat(path)
    if not stat.S_ISDIR(info.st_mode):
        raise OSError(errno.ENOTDIR, "it is a link, or not a directory", str(path))
    if hasattr(os, "geteuid") and info.st_uid != os.geteuid():
        raise OSError(errno.EPERM, "it belongs to another user", str(path))


def open_private(path: Path, mode: Literal["x", "a", "a+"]) -> FileIO:
    """Open a file to be appended to, unbuffered: a new one ("x"), or one that may be there.

    Raises OSError if it cannot be opened, is a link or not an ordinary file; FileExistsError if a
    new one is there already.
    """
    more = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    more |= os.O_APPEND if mode == "x" else 0

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | more, 0o600)

    file = FileIO(path, mode, opener=opener)
    info = os.fstat(file.fileno())
    if not stat.S_ISREG(info.st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is not an ordinary file", str(path))
    if stat.S_IMODE(info.st_mode) != 0o600 and hasattr(os, "fchmod"):  # Windows has other ways
        os.fchmod(file.fileno(), 0o600)
    return file
