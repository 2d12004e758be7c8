"""Whether two model files hold the same weights, whatever their metadata says.

A file that was copied, or given another chat template, is still the same model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from ..errors import ModelFileError
from .gguf_check import GGUFHeader
from .gguf_header import TensorInfo
from .plain_text import reason

_HEAD = 1 << 12  # bytes of each tensor that are compared before all of any
_CHUNK = 1 << 22


def same_weights(one: GGUFHeader, other: GGUFHeader) -> bool:
    """Return whether two models have the same tensors, byte for byte.

    Files of other shapes or types are not opened, and a look at the beginning of every tensor tells
    nearly all others apart; only what agrees so far is read as a whole. Models in several parts are
    not compared.

    Raises ModelFileError if a file cannot be read any more.
    """
    pairs = list(_pairs(one, other))
    if not pairs:
        return False
    try:
        with open(one.path, "rb") as a, open(other.path, "rb") as b:
            starts = _data_start(one), _data_start(other)
            return all(_equal(a, b, starts, pair, _HEAD) for pair in pairs) and all(
                _equal(a, b, starts, pair, pair[0].n_bytes) for pair in pairs
            )
    except OSError as error:
        raise ModelFileError(f"{error.filename}: cannot be read ({reason(error)})") from None


def _pairs(one: GGUFHeader, other: GGUFHeader) -> Iterator[tuple[TensorInfo, TensorInfo]]:
    """Yield the tensors of both by name; nothing if they are not of the same shapes and types."""
    if len(one.parts) > 1 or len(other.parts) > 1:
        return
    named = {tensor.name: tensor for tensor in other.tensors}
    pairs = [(tensor, named.get(tensor.name)) for tensor in one.tensors]
    if len(named) == len(pairs):
        found = [(a, b) for a, b in pairs if b and (a.shape, a.type) == (b.shape, b.type)]
        yield from found if len(found) == len(pairs) else []


def _data_start(header: GGUFHeader) -> int:
    """Return where the tensors' data begin: it ends with the file, but for padding."""
    last = max(header.tensors, key=lambda tensor: tensor.offset)
    alignment = int(header.metadata.get("general.alignment", 32))
    return (header.file_size - last.offset - last.n_bytes) // alignment * alignment


def _equal(
    a: BinaryIO,
    b: BinaryIO,
    starts: tuple[int, int],
    pair: tuple[TensorInfo, TensorInfo],
    n_bytes: int,
) -> bool:
    """Return whether the first `n_bytes` of two tensors of one size are the same."""
    left = min(n_bytes, pair[0].n_bytes)
    for file, start, tensor in zip((a, b), starts, pair, strict=True):
        file.seek(start + tensor.offset)
    while left:
        n = min(left, _CHUNK)
        block = a.read(n)
        if block != b.read(n) or len(block) < n:
            return False
        left -= n
    return True
