"""Whether two models are one: their files hold the same weights, whatever their metadata says.

A file that was copied, split, or given another chat template, is still the same model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
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
    nearly all others apart; only what agrees so far is read as a whole.

    Raises ModelFileError if a file cannot be read any more.
    """
    return _agree(one, other, whole=True)


def same_beginnings(one: GGUFHeader, other: GGUFHeader) -> bool:
    """Return whether two models have the same tensors as far as a quick look tells.

    Raises ModelFileError if a file cannot be read any more.
    """
    return _agree(one, other, whole=False)


def _agree(one: GGUFHeader, other: GGUFHeader, *, whole: bool) -> bool:
    pairs = list(_pairs(one, other))
    if not pairs:
        return False
    try:
        with ExitStack() as stack:
            a, b = (
                _Data(header, [stack.enter_context(open(part, "rb")) for part in header.parts])
                for header in (one, other)
            )
            if not all(_equal(a, b, pair, _HEAD) for pair in pairs):
                return False
            return not whole or all(_equal(a, b, pair, pair[0].n_bytes) for pair in pairs)
    except OSError as error:
        raise ModelFileError(f"{error.filename}: cannot be read ({reason(error)})") from None


def changes_nothing(adapter: GGUFHeader) -> bool:
    """Return whether an adapter was never trained: its B matrices are zeros, as PEFT begins.

    Raises ModelFileError if its file cannot be read any more.
    """
    try:
        with open(adapter.path, "rb") as file:
            data = _Data(adapter, [file])
            changing = (t for t in adapter.tensors if t.name.endswith(".lora_b"))
            return not any(_has_bits(data, tensor) for tensor in changing)
    except OSError as error:
        raise ModelFileError(f"{error.filename}: cannot be read ({reason(error)})") from None


def _has_bits(data: _Data, tensor: TensorInfo) -> bool:
    file, left = data.at(tensor), tensor.n_bytes
    while left and (block := file.read(min(left, _CHUNK))):
        if block.strip(b"\0\x80"):  # the bytes of 0.0 and −0.0
            return True
        left -= len(block)
    return False


def _pairs(one: GGUFHeader, other: GGUFHeader) -> Iterator[tuple[TensorInfo, TensorInfo]]:
    """Yield the tensors of both by name; nothing if they are not of the same shapes and types."""
    named = {tensor.name: tensor for tensor in other.tensors}
    pairs = [(tensor, named.get(tensor.name)) for tensor in one.tensors]
    if len(named) == len(pairs):
        found = [(a, b) for a, b in pairs if b and (a.shape, a.type) == (b.shape, b.type)]
        yield from found if len(found) == len(pairs) else []


class _Data:
    """The tensors' data of a model in one or several files."""

    def __init__(self, header: GGUFHeader, files: list[BinaryIO]) -> None:
        self._files, self._starts = files, header.data_starts

    def at(self, tensor: TensorInfo) -> BinaryIO:
        """Return the file that has a tensor, placed at its data."""
        file = self._files[tensor.part]
        file.seek(self._starts[tensor.part] + tensor.offset)
        return file


def _equal(a: _Data, b: _Data, pair: tuple[TensorInfo, TensorInfo], n_bytes: int) -> bool:
    """Return whether the first `n_bytes` of two tensors of one size are the same."""
    left = min(n_bytes, pair[0].n_bytes)
    one, other = a.at(pair[0]), b.at(pair[1])
    while left:
        n = min(left, _CHUNK)
        block = one.read(n)
        if block != other.read(n) or len(block) < n:
            return False
        left -= n
    return True
