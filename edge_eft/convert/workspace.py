"""The private directory of a conversion: its files get final names only when all are complete.

All that a conversion writes lies in OUT/.NAME.converting/RUN/ until it is checked, and is renamed
when everything is. A run that is killed leaves that directory; the next run of the same name
removes it. The files that a killed run had already renamed are listed in it, so that the next one
may replace them without --force.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO

from ..convert import ConversionError
from ..files.plain_text import reason
from ..system import mebibytes

_RESULTS = (".gguf", ".toml", ".fidelity.json")
_FULL_BYTES = 1 << 20  # a disk with less than this is full


class Workspace:
    """A context manager: the private directory of one conversion into `out`.

    Args:
        out: directory of the results; made if missing, and removed again if a failure leaves it
            empty.
        name: of the recipe; two conversions of one name into one directory exclude each other.
        force: existing results may be replaced.
        inputs: files and directories that stay as they are, whatever `force` says.
    """

    def __init__(self, out: Path, name: str, *, force: bool, inputs: Iterable[Path] = ()) -> None:
        self.out, self.force = out, force
        self._inputs = tuple(inputs)
        self._root = out / f".{name}.converting"
        self._journal = self._root / "renamed.json"
        self._made: list[Path] = []
        self._lock: IO[str] | None = None
        self._no_room = False

    def __enter__(self) -> Workspace:
        try:
            for parent in (self.out, *self.out.parents):
                if parent.exists():
                    break
                self._made.append(parent)
            self._root.mkdir(parents=True, exist_ok=True)
            self._lock = open(self._root / "lock", "w")  # held until __exit__
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._ours = self._left_by_a_killed_run()
            for old in self._root.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
            self._directory = Path(tempfile.mkdtemp(dir=self._root, prefix="run-"))
        except BlockingIOError:
            self._close_lock()
            raise ConversionError(
                f"another conversion into {self._root.parent} is running"
            ) from None
        except OSError as error:
            self._close_lock()
            raise ConversionError(f"cannot write to {self.out}: {reason(error)}") from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        said = self._said_of_the_disk(error)
        shutil.rmtree(self._root, ignore_errors=True)
        self._close_lock()
        if kind is not None:
            for made in self._made:
                with contextlib.suppress(OSError):  # not empty: it holds something of value
                    made.rmdir()
        if said:
            raise ConversionError(said) from None

    def _said_of_the_disk(self, error: BaseException | None) -> str | None:
        """Return what to tell of an error that comes from the disk, before its space is freed."""
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            return f"{error.filename or self.out}: {reason(error)}"
        with contextlib.suppress(OSError):
            full = shutil.disk_usage(self.out).free < _FULL_BYTES and not self._no_room
            if isinstance(error, ConversionError) and full:
                return f"{error}; the disk of {self.out} is full: free some space"
        return None

    def _close_lock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _left_by_a_killed_run(self) -> frozenset[str]:
        with contextlib.suppress(OSError, ValueError, TypeError):
            return frozenset(map(str, json.loads(self._journal.read_text())))
        return frozenset()

    def path(self, name: str) -> Path:
        """Return a path for a file or directory that nobody sees."""
        return self._directory / name

    def check_free(self, targets: Iterable[Path]) -> None:
        """Raise ConversionError if one of the results exists and may not be replaced."""
        for target in targets:
            if target.is_dir():
                raise ConversionError(f"{target} is a directory; choose another name")
            self.check_no_input(target)
            if target.exists() and not self.force and str(target.resolve()) not in self._ours:
                raise ConversionError(f"{target} exists; pass --force to replace it")

    def check_no_input(self, target: Path) -> None:
        """Raise ConversionError if this result would replace an input, or a file of one."""
        if not target.exists():
            return
        ours = target.name.endswith(_RESULTS)  # also in a model's directory
        for given in self._inputs:
            if not given.exists():  # a part that is missing is refused when it is read
                continue
            if target.samefile(given) or (not ours and target.parent.samefile(given)):
                raise ConversionError(
                    f"{target} belongs to the input {given}, which is never replaced; choose "
                    "another --name, --out or --recipe"
                )

    def check_space(self, n_bytes: int, what: str) -> None:
        """Raise ConversionError if the disk has no room for `n_bytes` more."""
        free = shutil.disk_usage(self.out).free
        if n_bytes > free:
            self._no_room = True
            raise ConversionError(
                f"{what} needs {mebibytes(n_bytes)} MiB in {self.out}, where {mebibytes(free)} MiB"
                " are free"
            )

    def publish(self, files: dict[Path, Path]) -> None:
        """Rename finished files {temporary: final} into place, in order; the last one names all.

        An old last file goes first, so that it is never found among new files that it does not
        describe. Everything is on the disk before it gets its name.
        """
        self.check_free(files.values())
        self._journal.write_text(json.dumps([str(path.resolve()) for path in files.values()]))
        files = {self._beside(temporary, final): final for temporary, final in files.items()}
        for temporary in (*files, self._journal):
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        last = list(files.values())[-1]
        last.unlink(missing_ok=True)
        for temporary, final in files.items():
            os.replace(temporary, final)

    def _beside(self, temporary: Path, final: Path) -> Path:
        """Return `temporary`, or a copy of it if `final` may lie on another file system."""
        if final.parent.resolve() == self.out.resolve():
            return temporary
        final.parent.mkdir(parents=True, exist_ok=True)
        copy = final.with_name(f".{final.name}.converting")
        shutil.copyfile(temporary, copy)
        return copy


_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Return the bytes of a size such as `700M`, `1.5G` or `600MiB`.

    Raises:
        ConversionError: it is not a size.
    """
    match = _SIZE.fullmatch(text)
    if not match or float(match[1]) <= 0:
        raise ConversionError(f"{text!r} is not a size; write 700M or 1.5G")
    factor = 1024 if match[3] else 1000
    return int(float(match[1]) * factor ** " KMGT".index(match[2].upper() or " "))
