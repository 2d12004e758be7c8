"""Files of the hub on their way here: a look at their headers, and whole ones into the cache.

Files are fetched by range requests of our own into the cache of huggingface_hub, because its second
major release throws away what a broken download has fetched. A blob gets its name when it is whole,
compared with its digest and on the disk, and not before: whatever ends the process, and whenever,
what has a name there is what the hub stated. It knows nothing of recipes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import HubError
from ..system import byte_size
from . import hub, hub_cache
from .hub_files import RemoteFile, Repository
from .plain_text import reason

_WAITS = (1.0, 2.0, 4.0)  # seconds before another try of what has stopped to come
_PATIENCE = 30  # seconds at most that a busy hub may ask to wait
_FIRST, _LARGEST = 1 << 18, 1 << 22  # bytes of one request for a header
Shown = Callable[[int], None]
Told = Callable[[str], None]


class Headers:
    """Opens files of one repository for a look at their beginnings, by range requests.

    What has come is kept, so that a second look asks for nothing. `fetched` counts bytes.

    Args:
        partials: believe what an earlier pull has begun to fetch, which nobody has compared yet.
    """

    def __init__(self, repository: Repository, *, partials: bool = False) -> None:
        self.repository = repository
        self.fetched = 0
        self._partials = partials
        self._begun: dict[str, bytearray] = {}

    def open(self, path: str) -> BinaryIO:
        """Return a file of the repository as one that can be read and sought.

        Raises FileNotFoundError if the repository has no such file; reading raises HubError.
        """
        file = self.repository.files.get(path)
        if file is None:
            raise FileNotFoundError(2, "no such file in the repository", path)
        return io.BufferedReader(_Remote(self, file), 1 << 16)

    def read(self, file: RemoteFile, start: int, n_bytes: int) -> bytes:
        """Return bytes of a file, fetching what has not come yet from its beginning on."""
        begun = self._begun.setdefault(file.path, bytearray())
        end = min(start + n_bytes, file.size)
        partial = _place(self.repository, file).partial
        if self._partials and len(begun) < end and partial.is_file():
            with contextlib.suppress(OSError), open(partial, "rb") as part:
                part.seek(start)
                if len(data := part.read(end - start)) == end - start:
                    return data
        while len(begun) < end:
            more = min(max(len(begun), _FIRST), _LARGEST)
            stop = min(max(end, len(begun) + more), file.size)
            before = len(begun)
            for block in hub.stream(self.repository, file, before, stop):
                begun += block
            if len(begun) < stop:
                raise hub.UnreachableError(
                    f"{self.repository.repo}/{file.path}: the connection broke"
                )
            self.fetched += stop - before
        return bytes(begun[start:end])


class _Remote(io.RawIOBase):
    """A file of the hub, read through `Headers`."""

    def __init__(self, headers: Headers, file: RemoteFile) -> None:
        self._headers, self._file, self._at = headers, file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._file.size}[whence]
        self._at = max(start + offset, 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._headers.read(self._file, self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def found(repository: Repository, file: RemoteFile) -> Path | None:
    """Return a file's content in the cache, None if it lacks it, or has it cut.

    It is not compared with its digest.
    """
    has = (there for there in _contents(_place(repository, file)) if _is_whole(there, file))
    return next(has, None)


def is_cut(repository: Repository, file: RemoteFile) -> bool:
    """Return whether the cache has a file's content, but not all of it, or too much."""
    return bool(_contents(_place(repository, file))) and found(repository, file) is None


def missing(repository: Repository, file: RemoteFile) -> int:
    """Return how many bytes of a file are still to be fetched."""
    if found(repository, file):
        return 0
    where = _place(repository, file)
    with contextlib.suppress(OSError):
        return max(file.size - where.partial.lstat().st_size, 0)
    return file.size


def check_space(n_bytes: int) -> None:
    """Raise HubError if the cache's disk has not `n_bytes` free."""
    cache = hub_cache.cache_directory()
    there = next((place for place in (cache, *cache.parents) if place.exists()), cache)
    with contextlib.suppress(OSError):  # a disk that does not tell
        free = shutil.disk_usage(there).free
        if free < n_bytes:
            raise HubError(
                f"{byte_size(n_bytes)} are still to come, and {cache} has {byte_size(free)} free; "
                "make room, or name another place with HF_HOME"
            )


def fetch(repository: Repository, file: RemoteFile, shown: Shown, told: Told) -> Path:
    """Bring a file into the cache, going on where an earlier try was left. Returns its name there.

    Args:
        shown: is told how many more bytes are there, found or fetched; less than 0 if some were
            thrown away.
        told: is told a line when something is not as usual.

    Raises:
        HubError: it cannot be had, written, or is not what the hub says it is; what has come
            stays for the next try, unless it is damaged.
    """
    where = _place(repository, file)
    if where.snapshot.is_file() and not os.access(where.folder, os.W_OK):
        # A cache that others keep: what it has is used, and needs no lock to be read.
        if _digest(where.snapshot, file, shown) != file.digest:
            raise HubError(
                f"{where.snapshot}: is damaged, and the cache cannot be written; HF_HOME names "
                "another place"
            )
        return where.snapshot
    hub_cache.prepare(where)
    with hub.locked(where.lock, file.path, told):
        damaged = _contents(where)
        for there in damaged:
            if _is_whole(there, file):
                if _digest(there, file, shown) == file.digest:
                    return hub_cache.link(where) if there == where.blob else there
                shown(-file.size)
            told(f"{file.path}: what the cache holds is damaged; it is fetched again")
        try:
            _complete(repository, file, where, damaged, shown, told)
        except HubError as error:
            if not damaged:
                raise
            raise HubError(f"{error}; until then the damaged copy stays") from None
        return hub_cache.link(where)


def _contents(where: hub_cache.Place) -> list[Path]:
    """Return the files in which a content may lie: the second in a cache without links."""
    found = [there for there in (where.blob, where.snapshot) if there.is_file()]
    return found[:1] if len(found) == 2 and os.path.samefile(*found) else found


def _is_whole(there: Path, file: RemoteFile) -> bool:
    return there.stat().st_size == file.size


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except OSError as error:
        raise HubError(f"{path}: is damaged and cannot be removed ({reason(error)})") from None


def _complete(
    repository: Repository,
    file: RemoteFile,
    where: hub_cache.Place,
    damaged: list[Path],
    shown: Shown,
    told: Told,
) -> None:
    """Fetch what the partial file lacks, compare the whole, and give it the blob's name.

    What is `damaged` stays as long as the hub sends nothing in its place.
    """
    name = f"{repository.repo}/{file.path}"
    try:
        with _opened(where.partial) as out:
            if os.fstat(out.fileno()).st_size > file.size:
                out.truncate(0)
            digest = _hash(file)
            while block := out.read(1 << 20):
                digest.update(block)
                shown(len(block))
            waits = iter(_WAITS)
            while (begin := out.tell()) < file.size:
                try:
                    for block in hub.stream(repository, file, begin, file.size):
                        while damaged:
                            _remove(damaged.pop())
                        out.write(block)
                        digest.update(block)
                        shown(len(block))
                except hub.UnreachableError as error:
                    waits = iter(_WAITS) if out.tell() > begin else waits
                    _pause(error, waits, out.tell(), file, told)
            out.flush()
            os.fsync(out.fileno())
        if digest.hexdigest() != file.digest:
            where.partial.unlink()
            raise HubError(
                f"{name}: what came is not what the hub states (its hash is "
                f"{digest.hexdigest()[:12]}…, stated is {file.digest[:12]}…); it was removed, and "
                "the next pull fetches it anew"
            )
        os.replace(where.partial, where.blob)
    except OSError as error:
        raise HubError(
            f"{where.partial}: cannot be written ({reason(error)}); what has come stays, and the "
            "next pull goes on from there"
        ) from None


def _pause(
    error: hub.UnreachableError,
    waits: Iterator[float],
    have: int,
    file: RemoteFile,
    told: Told,
) -> None:
    """Wait before another try, or raise the error if there were enough."""
    seconds = next(waits, None)
    kept = f"{byte_size(have)} of {byte_size(file.size)} came, and the next pull goes on"
    asked = error.seconds or 0
    if seconds is None or not error.again or asked > _PATIENCE:
        raise HubError(f"{error}; {kept}") from None
    seconds = max(asked, seconds)
    told(f"{error}; trying again in {seconds:.0f} s")
    time.sleep(seconds)


def _opened(partial: Path) -> BinaryIO:
    """Open a partial file to read and go on writing; never through a link."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
    if os.path.lexists(partial) and (partial.is_symlink() or not partial.is_file()):
        partial.unlink()  # a pipe would be waited for
    return open(os.open(partial, flags, 0o666), "r+b")


def _hash(file: RemoteFile) -> Any:
    """Return what makes a file's digest: sha256, or git's for what is not in its large storage."""
    if file.sha256:
        return hashlib.sha256()
    return hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)


def _digest(path: Path, file: RemoteFile, shown: Shown) -> str:
    digest = _hash(file)
    try:
        with open(path, "rb") as data:
            while block := data.read(1 << 20):
                digest.update(block)
                shown(len(block))
    except OSError as error:
        raise HubError(f"{path}: cannot be read ({reason(error)})") from None
    return str(digest.hexdigest())


def _place(repository: Repository, file: RemoteFile) -> hub_cache.Place:
    cache = hub_cache.cache_directory()
    return hub_cache.place(cache, repository.repo, repository.commit, file.path, file.digest)
