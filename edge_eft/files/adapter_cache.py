"""PEFT adapters that were converted before, kept as GGUF files in the cache directory.

A file's name is what it was made of (the adapter's content, the model's shape, the programs that
did it) and the sha256 of what is in it, so that one which was damaged is known without a second
file beside it, and made anew. A file gets its name when it is whole. The least recently used ones
beyond `KEPT` are removed when another comes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from pathlib import Path

from ..errors import ModelFileError
from ..system import cache_directory, versions
from .gguf_check import GGUFHeader
from .hashes import file_sha256
from .peft import CONFIG, WEIGHTS, PeftAdapter
from .peft_gguf import to_gguf
from .plain_text import reason

KEPT = 16
_IN_USE = 3600  # seconds after which nobody is about to open a file that was found or made


def converted(adapter: PeftAdapter, model: GGUFHeader) -> Path:
    """Return the GGUF file of a PEFT adapter for `model`, made now if it is not there.

    Raises:
        ModelFileError: the adapter cannot be converted, or what it becomes cannot be kept.
    """
    try:
        key = _key(adapter, model)
        directory = cache_directory() / "adapters"
        directory.mkdir(parents=True, exist_ok=True)
        for path in directory.glob(f"{key}-*.gguf"):
            with contextlib.suppress(OSError):  # it is another's or gone, or the disk is read-only
                if _is_whole(path, key):
                    return path
                path.unlink()
        made = _made(adapter, model, directory, key)
        _remove_old(directory)
    except OSError as error:
        where = error.filename or cache_directory()  # a full disk is told without a name
        raise ModelFileError(
            f"{adapter.path} cannot be kept as a GGUF adapter ({where}: {reason(error)}); "
            "EDGE_EFT_CACHE names another directory"
        ) from None
    return made


def is_cached(path: Path) -> bool:
    """Return whether a file is in the cache, from which it may be removed one day."""
    try:
        return path.parent == Path(os.path.abspath(cache_directory() / "adapters"))
    except OSError:  # there is no home, and so no cache
        return False


def keep(adapter: Path, target: Path) -> None:
    """Copy an adapter of the cache to where it stays; the copy is whole or not there.

    Raises:
        ModelFileError: it cannot be written.
    """
    part = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(adapter, part)  # with its mode: its owner alone may read it
        os.replace(part, target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ModelFileError(f"{target}: cannot be written ({reason(error)})") from None


def _is_whole(path: Path, key: str) -> bool:
    """Return whether a file of the cache is as it was made, and note that it is in use."""
    if path.is_symlink() or not path.is_file() or path.stem != f"{key}-{file_sha256(path)}":
        return False
    with contextlib.suppress(OSError):  # where nothing can be written, nothing is removed either
        os.utime(path)
    return True


def _key(adapter: PeftAdapter, model: GGUFHeader) -> str:
    heads = [model.per_layer(f"attention.{name}") for name in ("head_count", "head_count_kv")]
    parts = [file_sha256(adapter.path / name) for name in (CONFIG, WEIGHTS)]
    parts += [model.architecture, str(model.n_layer), str(heads), versions("edge-eft", "gguf")]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _made(adapter: PeftAdapter, model: GGUFHeader, directory: Path, key: str) -> Path:
    # Readable by its owner alone: it holds what was learnt from somebody's data.
    handle, name = tempfile.mkstemp(dir=directory, prefix=".converting-")
    os.close(handle)
    try:
        to_gguf(adapter, model, Path(name))
        target = directory / f"{key}-{file_sha256(name)}.gguf"
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    return target


def _remove_old(directory: Path) -> None:
    """Remove what was not used for longest, and what a conversion that was killed has left."""
    now = time.time()
    with contextlib.suppress(OSError):  # another process may be doing the same
        used = {path: path.stat().st_mtime for path in directory.iterdir() if path.is_file()}
        files = sorted(used, key=lambda path: used[path], reverse=True)
        for path in [*files[KEPT:], *(path for path in files if path.suffix != ".gguf")]:
            if now - used[path] > _IN_USE:
                path.unlink(missing_ok=True)
