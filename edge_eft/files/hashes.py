"""The sha256 of models' files, and whether they are the ones that a recipe states."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from ..errors import ModelFileError
from .gguf_split import part_paths
from .plain_text import reason
from .recipe import Recipe, Sha256

VERIFIED_AT_LOAD = 64 << 20  # bytes; hashing this much takes about 0.1 s
_BLOCK = 4 << 20  # bytes that are hashed between two words on the progress


def file_sha256(
    path: str | os.PathLike[str], *, read: Callable[[int], object] | None = None
) -> str:
    """Return the sha256 of a file's content, in hexadecimal.

    Args:
        path: the file.
        read: called with the bytes read so far, every few MiB.
    """
    with open(path, "rb") as file:
        if read is None:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        while block := file.read(_BLOCK):
            digest.update(block)
            read(file.tell())
    return digest.hexdigest()


def model_sha256(
    path: str | os.PathLike[str], *, sha256: Callable[[Path], str] = file_sha256
) -> Sha256:
    """Return the sha256 of a model's file, or those of all parts if `path` names the first.

    `sha256` is asked for each, as one that shows how far it is.
    """
    found = tuple(map(sha256, part_paths(Path(path))))
    return found if len(found) > 1 else found[0]


def verify(
    recipe: Recipe, *, all_sizes: bool = False, sha256: Callable[[Path], str] = file_sha256
) -> tuple[Path, ...]:
    """Compare the files of `recipe` with the sha256 it states, each file once.

    Files over `VERIFIED_AT_LOAD` bytes take seconds and are hashed only with `all_sizes`. A file
    without a stated sha256 is not looked at. Returns what was passed over for its size, so that
    nobody takes it for verified. `sha256` as of `model_sha256`.

    Raises ModelFileError if a file cannot be read or is not the one the recipe was made for.
    """
    skipped = []
    specs = recipe.models(instruct=False).values()
    stated = {(spec.lora or spec.file, spec.sha256) for spec in specs if spec.sha256}
    for path, expected in sorted(stated, key=str):
        parts = part_paths(path)
        hashes = (expected,) if isinstance(expected, str) else expected
        if len(hashes) != len(parts):
            raise ModelFileError(
                f"{path}: is named as a model of {len(parts)} files, and the recipe states "
                f"{len(hashes)} sha256; state one for each, in their order"
            )
        try:
            if not all_sizes and sum(os.stat(part).st_size for part in parts) > VERIFIED_AT_LOAD:
                skipped.append(path)
                continue
            for part, stated_hash in zip(parts, hashes, strict=True):
                _compare(part, stated_hash, sha256(part))
        except OSError as error:
            raise ModelFileError(
                f"{error.filename}: cannot be read ({reason(error)}); check the path"
            ) from None
    return tuple(skipped)


def _compare(path: Path, expected: str, found: str) -> None:
    if found != expected:
        raise ModelFileError(
            f"{path}: sha256 is {found[:12]}…, the recipe states {expected[:12]}…;"
            " the file was changed or is damaged: get it again, or correct the recipe"
        )
