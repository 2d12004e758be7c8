"""Text that people write, whatever editor or shell wrote it down, and no more of it than fits.

A byte-order mark says how a text is stored and is no part of it. Windows tools write one before
UTF-8, and PowerShell's `>` writes UTF-16 with one. Without a mark a text is UTF-8.
"""

from __future__ import annotations

import codecs
import errno
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

MAX_LINE_BYTES = 64 << 20
_MARKED = (  # UTF-32's first: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def _is_wide(data: bytes) -> bool:
    """Return whether `data` begins with the mark of UTF-16 or UTF-32."""
    return data.startswith(tuple(mark for mark, _ in _MARKED))


def utf8(data: bytes) -> bytes:
    """Return `data` as UTF-8 without a byte-order mark; what has no mark is left as it is.

    Raises UnicodeDecodeError if it has the mark of UTF-16 or UTF-32 and is not that.
    """
    for mark, encoding in _MARKED:
        if data.startswith(mark):
            return data.decode(encoding).encode()
    return data.removeprefix(codecs.BOM_UTF8)


def decode(data: bytes) -> str:
    r"""Return the text of `data` without a byte-order mark, its lines ended by \n alone.

    Raises UnicodeDecodeError if it is not UTF-8, nor UTF-16 or UTF-32 with a mark. A NUL is a sign
    of UTF-16 without one.
    """
    data = utf8(data)
    if (at := data.find(0)) >= 0:
        raise UnicodeDecodeError("utf-8", data, at, at + 1, "a NUL is not text")
    return data.decode().replace("\r\n", "\n")


def lines(file: BinaryIO) -> Iterator[str]:
    """Yield the lines of a pipe as they come, decoded, without their ends.

    Raises as `decode` does, and OSError if a line is longer than `MAX_LINE_BYTES`.
    """
    line = file.readline(MAX_LINE_BYTES)
    if _is_wide(line):  # a line's end is more than one byte: these come from files, not by hand
        yield from decode(line + read_at_most(file, MAX_LINE_BYTES)).removesuffix("\n").split("\n")
        return
    while line:
        if len(line) == MAX_LINE_BYTES:
            raise OSError(errno.EFBIG, f"a line is longer than {MAX_LINE_BYTES >> 20} MiB")
        yield decode(line).removesuffix("\n")
        line = file.readline(MAX_LINE_BYTES)


def read_at_most(file: BinaryIO, limit: int) -> bytes:
    """Return all of a file or pipe. Raises OSError if that is more than `limit` bytes."""
    data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit >> 20:,} MiB")
    return data


def read_regular(path: str | os.PathLike[str], limit: int, *, follow: bool = True) -> bytes:
    """Return the content of an ordinary file: one that has an end and does not wait.

    Raises OSError if it is none or larger than `limit` bytes, or a link unless `follow`; ValueError
    if no file can have the name.
    """
    # A FIFO without a writer would wait for one; Windows has none in its file system.
    more = getattr(os, "O_NONBLOCK", 0) | (0 if follow else getattr(os, "O_NOFOLLOW", 0))

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | more)

    with open(path, "rb", opener=opener) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not an ordinary file")
        return read_at_most(file, limit)


def reason(error: Exception) -> str:
    """Return what the system says of a file that cannot be read or written."""
    return getattr(error, "strerror", None) or str(error)
