"""The layout of a GGUF file's header: bytes in, keys and tensors out, every bound checked.

The rules are those of llama.cpp's ggml/src/gguf.cpp, in Python's integers, which cannot overflow.
Whether the values make a model that is safe to load is `gguf_check`'s question, not asked here.
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

from ..errors import ModelFileError

# ggml type id → name, elements per block, bytes per block. The gguf package's table is older than
# the engine (it lacks Q2_0 and has another size for Q8_1); a test compares this one with ggml.
# fmt: off
GGML_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 30: ("BF16", 1, 2), 28: ("F64", 1, 8),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8),
    2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    29: ("IQ1_M", 256, 56), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18), 42: ("Q2_0", 64, 18),
}
# fmt: on

MAGIC = b"GGUF"

# Caps far above any published model (the largest header known has some 17 MB, 514,000 merges and
# 2,000 tensors) and low enough that a crafted file costs a second and little memory at worst.
MAX_HEADER_BYTES = 128 << 20
MAX_KEYS = 1 << 14  # llama.cpp looks for duplicates in quadratic time
MAX_TENSORS = 1 << 15
MAX_ARRAY = 1 << 24
MAX_STRING = 1 << 24
MAX_TOKENS = 1 << 20  # the one array whose texts are held for a while
MAX_WALKED = 1 << 24  # texts that are kept while many files are read
MAX_NAME = 63  # GGML_MAX_NAME less its NUL
MAX_DIMS = 4  # GGML_MAX_DIMS
MAX_KEPT = 1024  # numeric arrays up to this length are kept: twice LLAMA_MAX_LAYERS

DAMAGED = "the file is damaged or was not written by a GGUF tool; download or convert it again"
# fmt: off
_SCALARS = {
    0: ("uint8", "B"), 1: ("int8", "b"), 2: ("uint16", "H"), 3: ("int16", "h"),
    4: ("uint32", "I"), 5: ("int32", "i"), 6: ("float32", "f"), 7: ("bool", "?"),
    10: ("uint64", "Q"), 11: ("int64", "q"), 12: ("float64", "d"),
}
# fmt: on
_STRING, _ARRAY = 8, 9
_U64 = struct.Struct("<Q")
TOKENS_KEY = "tokenizer.ggml.tokens"
TOKEN_TYPES_KEY = "tokenizer.ggml.token_type"


@dataclass(frozen=True)
class GGUFArray:
    """What is kept of an array: its element type and count, and the values if few and numeric."""

    type: str
    count: int
    values: tuple[int | float | bool, ...] = ()


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: its shape (innermost dimension first), ggml type, place and size in bytes.

    `offset` counts from where the data of its file begin, which is number `part` of its model.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    n_bytes: int
    part: int = 0


def is_gguf(path: str | os.PathLike[str]) -> bool:
    """Return whether a file begins as GGUF does; what is not an ordinary file is not opened.

    Raises OSError if it cannot be read, ValueError if no file can have the name.
    """
    if not os.path.isfile(path):  # to open a pipe may wait
        return False
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def quoted(text: str | bytes) -> str:
    """Return text from a file for a message: short, and with control characters escaped."""
    if isinstance(text, bytes):
        text = text[:256].decode("utf-8", "replace")
    return repr(text if len(text) <= 60 else text[:57] + "...")


@dataclass(frozen=True)
class _Walk:
    """A list of texts that was gone through: the hash of its bytes, and the texts if kept."""

    n_bytes: int
    ends: bytes
    sha256: bytes
    texts: list[bytes]

    @classmethod
    def over(cls, data: bytes, texts: list[bytes]) -> _Walk:
        return cls(len(data), _ends(memoryview(data)), hashlib.sha256(data).digest(), texts)

    def is_over(self, data: memoryview) -> bool:
        return self.ends == _ends(data) and self.sha256 == hashlib.sha256(data).digest()


def _ends(data: memoryview) -> bytes:
    """Return what tells most lists apart without hashing them."""
    return data[:64].tobytes() + data[-64:].tobytes()


class Walked:
    """Lists of texts that were gone through already, for reading the headers of many files.

    The files of one family have one vocabulary, which is nearly all of a header's cost. What is
    equal byte for byte has passed the same bounds, and is the same list of texts.
    """

    def __init__(self) -> None:
        self.seen: dict[tuple[str, int], list[_Walk]] = {}  # by key and number of texts
        self.sound: set[bytes] = set()  # ids of the vocabularies that passed `check_tokenizer`
        self._n_kept = 0

    def add(self, key: str, count: int, walk: _Walk) -> None:
        """Remember a walk, unless there are so many that somebody means to fill the memory."""
        self._n_kept += 1 + len(walk.texts)
        if self._n_kept <= MAX_WALKED:
            self.seen.setdefault((key, count), []).append(walk)


class Layout:
    """The header of one open file.

    `read` fills `version`, `metadata` (key → scalar, string or GGUFArray) and `tensors`; for the
    checks that need more, `data_start` (the place of the first tensor's data), `types` (key → type
    of a scalar), `tokens` (the texts of the vocabulary as bytes) and `token_types` (little-endian
    int32). Raises ModelFileError on any broken bound. Of many files read one after the other
    `walked` makes that quick.
    """

    def __init__(self, shown: str, file: BinaryIO, walked: Walked | None = None) -> None:
        self.shown, self.file, self.walked = shown, file, walked
        self.size = file.seek(0, os.SEEK_END)
        file.seek(0)
        self.version = 0
        self.metadata: dict[str, Any] = {}
        self.tensors: tuple[TensorInfo, ...] = ()
        self.data_start = 0
        self.types: dict[str, str] = {}
        self.tokens: list[bytes] = []
        self.token_types = b""
        self._data = b""
        self._pos = 0
        self._at = "the header"
        self._tokens_sha256 = b""

    def error(self, seen: str, fix: str = DAMAGED) -> ModelFileError:
        return ModelFileError(f"{self.shown}: {seen}; {fix}")

    def read(self) -> None:
        n_tensors, n_keys = self._preamble()
        for index in range(n_keys):
            self._key(index)
        alignment = self.integer("general.alignment", 32)
        if alignment < 1 or alignment & (alignment - 1):
            raise self.error(f"general.alignment is {alignment}, which is not a power of two")
        if alignment % 32:
            # Weights are mapped from the file; ggml asserts that each begins at a multiple of 32.
            fix = "convert the model again with the usual alignment of 32"
            raise self.error(f"general.alignment is {alignment}, not a multiple of 32", fix)
        self._tensors(n_tensors, alignment)

    def integer(self, key: str, default: int | None, low: int = 0, high: int = 1 << 31) -> int:
        value = self.metadata.get(key, default)
        if value is None:
            raise self.error(f"lacks {key}")
        if isinstance(value, bool) or not isinstance(value, int):
            kind = value.type + " array" if isinstance(value, GGUFArray) else type(value).__name__
            raise self.error(f"{key} is of the wrong type ({kind}, not an integer)")
        if not low <= value <= high:
            raise self.error(f"{key} is {value:,}, outside {low} to {high:,}")
        return value

    def _need(self, end: int) -> bytes:
        """Return the file's first bytes, up to `end` at least."""
        if end <= len(self._data):
            return self._data
        if end > self.size:
            seen = f"truncated: {self._at} runs to byte {end:,} of a file of {self.size:,}"
            raise self.error(seen)
        if end > MAX_HEADER_BYTES:
            raise self.error(f"the header is larger than {MAX_HEADER_BYTES:,} bytes at {self._at}")
        goal = min(max(end, 2 * len(self._data), 1 << 20), self.size, MAX_HEADER_BYTES)
        self._data += self.file.read(goal - len(self._data))
        if end > len(self._data):  # it has shrunk since its size was read
            raise self.error(f"truncated: it became shorter while {self._at} was read")
        return self._data

    def _unpack(self, layout: str) -> tuple[Any, ...]:
        size = struct.calcsize("<" + layout)
        values = struct.unpack_from("<" + layout, self._need(self._pos + size), self._pos)
        self._pos += size
        return values

    def _text(self, limit: int) -> bytes:
        (length,) = self._unpack("Q")
        if length > limit:
            raise self.error(f"{self._at} claims a text of {length:,} bytes (at most {limit:,})")
        start, self._pos = self._pos, self._pos + length
        return self._need(self._pos)[start : self._pos]

    def _preamble(self) -> tuple[int, int]:
        if self.size == 0:
            raise self.error("is empty", "download or convert it again")
        start = self.file.read(64)
        if start[:4] != MAGIC[: self.size]:
            if start.startswith(b"version https://git-lfs"):
                raise self.error("is a Git LFS pointer, not the model", "run `git lfs pull`")
            is_text = all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start)
            kind = "a text file" if is_text else "not a GGUF file"
            seen = f"is {kind} (it begins {quoted(start[:16])})"
            raise self.error(seen, "give a .gguf model file")
        self.file.seek(0)
        (version,) = self._unpack("4xI")
        if version and version & 0xFFFF == 0:
            raise self.error("is big-endian", "get or convert a little-endian GGUF file")
        if version not in (2, 3):
            raise self.error(f"is GGUF version {version}", "convert it to version 3")
        n_tensors, n_keys = self._unpack("QQ")
        # A key takes 13 bytes at least and a tensor 24, so that a short file ends here.
        for what, count, cap, least in (
            ("keys", n_keys, MAX_KEYS, 13),
            ("tensors", n_tensors, MAX_TENSORS, 24),
        ):
            if count > min(cap, self.size // least):
                raise self.error(f"claims {count:,} {what} in {self.size:,} bytes")
        self.version = version
        return n_tensors, n_keys

    def _key(self, index: int) -> None:
        self._at = f"key {index}"
        raw = self._text(65535)  # the GGUF specification's limit
        if not raw or b"\0" in raw:
            # llama.cpp looks keys up as C strings: after a NUL one could pass for another.
            raise self.error(f"{self._at} has an impossible name {quoted(raw)}")
        key = raw.decode("utf-8", "backslashreplace")
        self._at = f"key {quoted(key)}"
        if key in self.metadata:
            raise self.error(f"{self._at} is there twice (duplicate)")
        (type_id,) = self._unpack("I")
        if type_id == _ARRAY:
            self.metadata[key] = self._array(key)
        elif type_id == _STRING:
            self.metadata[key] = self._text(MAX_STRING).decode("utf-8", "replace")
            self.types[key] = "string"
        elif type_id in _SCALARS:
            self.types[key], layout = _SCALARS[type_id]
            (self.metadata[key],) = self._unpack(layout)
        else:
            raise self.error(f"{self._at} has the unknown value type {type_id}")

    def _array(self, key: str) -> GGUFArray:
        type_id, count = self._unpack("IQ")
        if type_id == _ARRAY:
            raise self.error(f"{self._at} is an array of arrays (nested)")
        if type_id != _STRING and type_id not in _SCALARS:
            raise self.error(f"{self._at} is an array of the unknown type {type_id}")
        cap = MAX_TOKENS if key == TOKENS_KEY else MAX_ARRAY
        if count > cap:
            raise self.error(f"{self._at} claims {count:,} elements (at most {cap:,})")
        if type_id == _STRING:
            self._need(self._pos + 8 * count)
            self._list(key, count)
            return GGUFArray("string", count)
        name, layout = _SCALARS[type_id]
        start, self._pos = self._pos, self._pos + count * struct.calcsize("<" + layout)
        data = self._need(self._pos)
        if key == TOKEN_TYPES_KEY:
            self.token_types = data[start : self._pos]
        if count > MAX_KEPT:
            return GGUFArray(name, count)
        return GGUFArray(name, count, struct.unpack_from(f"<{count}{layout}", data, start))

    def _list(self, key: str, count: int) -> None:
        """Go through a list of texts; those of the vocabulary are kept."""
        start, walk = self._pos, self._walked(key, count)
        if walk is None:
            texts: list[bytes] = []
            self._strings(count, texts if key == TOKENS_KEY else None)
            if self.walked is None:
                walk = _Walk(0, b"", b"", texts)
            else:
                walk = _Walk.over(self._data[start : self._pos], texts)
                self.walked.add(key, count, walk)
        else:
            self._pos = start + walk.n_bytes
        if key == TOKENS_KEY:
            self.tokens, self._tokens_sha256 = walk.texts, walk.sha256

    def _walked(self, key: str, count: int) -> _Walk | None:
        for walk in self.walked.seen.get((key, count), ()) if self.walked else ():
            end = self._pos + walk.n_bytes
            if end <= min(self.size, MAX_HEADER_BYTES):
                data = memoryview(self._need(end))[self._pos : end]
                if walk.is_over(data):
                    return walk
        return None

    def vocabulary_id(self) -> bytes:
        """Return a hash of the tokenizer's kind and the tokens' texts and types.

        Only of a header that was read with `walked`.
        """
        kind = repr(self.metadata.get("tokenizer.ggml.model")).encode()
        parts = (self._tokens_sha256, hashlib.sha256(self.token_types).digest(), kind)
        return hashlib.sha256(b"".join(parts)).digest()

    def _strings(self, count: int, keep: list[bytes] | None) -> None:
        # The hot loop: Gemma 4 has 262,000 tokens and 514,000 merges.
        data, pos, length_at = self._data, self._pos, _U64.unpack_from
        held = len(data)
        for _ in range(count):
            start = pos + 8
            if start > held:
                data = self._need(start)
                held = len(data)
            (length,) = length_at(data, pos)
            pos = start + length
            if pos > held:
                if length > MAX_STRING:
                    raise self.error(f"{self._at} claims a text of {length:,} bytes")
                data = self._need(pos)
                held = len(data)
            if keep is not None:
                keep.append(data[start:pos])
        self._pos = pos

    def _tensors(self, count: int, alignment: int) -> None:
        tensors: dict[str, TensorInfo] = {}
        expected = 0  # llama.cpp lays tensors out in order, each padded to the alignment
        for index in range(count):
            self._at = f"tensor {index}"
            tensor = self._tensor()
            if tensor.name in tensors:
                raise self.error(f"{self._at} is there twice (duplicate)")
            if tensor.offset % alignment:
                where = f"offset {tensor.offset:,} is not a multiple of {alignment}"
                raise self.error(f"{self._at} is misaligned: {where}")
            if tensor.offset != expected:
                how = "overlaps the one before" if tensor.offset < expected else "leaves a gap"
                raise self.error(
                    f"{self._at} {how}: offset {tensor.offset:,}, expected {expected:,}"
                )
            expected += -(-tensor.n_bytes // alignment) * alignment
            tensors[tensor.name] = tensor
        self.data_start = -(-self._pos // alignment) * alignment
        for tensor in tensors.values():
            end = self.data_start + tensor.offset + tensor.n_bytes
            if end > self.size:
                seen = f"tensor {quoted(tensor.name)} ends at byte {end:,} of {self.size:,}"
                raise self.error(f"truncated: {seen}", "the download is incomplete; repeat it")
        self.tensors = tuple(tensors.values())

    def _tensor(self) -> TensorInfo:
        name = self._text(MAX_NAME).decode("utf-8", "backslashreplace")
        self._at = f"tensor {quoted(name)}"
        (n_dims,) = self._unpack("I")
        if n_dims > MAX_DIMS:
            raise self.error(f"{self._at} has {n_dims:,} dimensions (at most {MAX_DIMS})")
        shape = self._unpack(f"{n_dims}Q")
        type_id, offset = self._unpack("IQ")
        if type_id not in GGML_TYPES:
            fix = "llama.cpp may have dropped that type, or it is newer than this edge_eft"
            raise self.error(f"{self._at} has the unknown ggml type {type_id}", fix)
        type_name, block, block_bytes = GGML_TYPES[type_id]
        n_elements = math.prod(shape)
        if n_elements == 0 or n_elements >= 1 << 63:
            raise self.error(f"{self._at} has an impossible shape {shape}")
        if (shape[0] if shape else 1) % block:
            raise self.error(f"{self._at} has rows that are not multiples of {block} ({type_name})")
        return TensorInfo(name, shape, type_name, offset, n_elements // block * block_bytes)
