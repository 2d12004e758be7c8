"""GGUF files taken apart and put together again: with something wrong, or in several parts."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_eft.files.gguf_header import GGML_TYPES
from helpers.gguf_builder import ARR, I32, LAYOUTS, STR, U16, encode, text

SIZES = {kind: struct.calcsize(layout) for kind, layout in LAYOUTS.items()}

Value = tuple[Any, ...]


@dataclass
class Tensor:
    name: bytes
    shape: tuple[int, ...]
    kind: int
    data: bytes


@dataclass
class Parts:
    """A GGUF file taken apart, so that it can be put together wrongly."""

    keys: dict[bytes, Value]
    tensors: list[Tensor]
    alignment: int = 32
    header_end: int = field(default=0, compare=False)

    @classmethod
    def read(cls, path: Path) -> Parts:
        """Take a file apart that is known to be good."""
        data, pos = path.read_bytes(), 8

        def take(layout: str) -> Any:
            nonlocal pos
            values = struct.unpack_from("<" + layout, data, pos)
            pos += struct.calcsize("<" + layout)
            return values if len(values) > 1 else values[0]

        def string() -> bytes:
            nonlocal pos
            length = take("Q")
            pos += length
            return data[pos - length : pos]

        n_tensors, n_keys = take("QQ")
        keys: dict[bytes, Value] = {}
        for _ in range(n_keys):
            key, kind = string(), take("I")
            if kind == ARR:
                inner, count = take("IQ")
                if inner == STR:
                    keys[key] = (ARR, STR, [string() for _ in range(count)])
                else:
                    values = struct.unpack_from(f"<{count}{LAYOUTS[inner]}", data, pos)
                    pos += count * SIZES[inner]
                    keys[key] = (ARR, inner, list(values))
            else:
                keys[key] = (kind, string() if kind == STR else take(LAYOUTS[kind]))
        infos = []
        for _ in range(n_tensors):
            name, n_dims = string(), take("I")
            shape = tuple(take("Q") for _ in range(n_dims))
            infos.append((name, shape, *take("IQ")))
        start = -(-pos // 32) * 32
        tensors = [
            Tensor(name, shape, kind, data[start + at : start + at + size_of(shape, kind)])
            for name, shape, kind, at in infos
        ]
        return cls(keys, tensors)

    def build(self) -> bytes:
        out = [b"GGUF", struct.pack("<IQQ", 3, len(self.tensors), len(self.keys))]
        out += [text(key) + encode(value) for key, value in self.keys.items()]
        offset = 0
        for tensor in self.tensors:
            n_dims = len(tensor.shape)
            out.append(text(tensor.name) + struct.pack(f"<I{n_dims}Q", n_dims, *tensor.shape))
            out.append(struct.pack("<IQ", tensor.kind, offset))
            offset += -(-len(tensor.data) // self.alignment) * self.alignment
        header = b"".join(out)
        header += b"\0" * (-len(header) % self.alignment)
        self.header_end = len(header)
        data = (t.data + b"\0" * (-len(t.data) % self.alignment) for t in self.tensors)
        return header + b"".join(data)


def size_of(shape: tuple[int, ...], kind: int) -> int:
    """Bytes of a tensor, rounded up to whole blocks."""
    _, block, n_bytes = GGML_TYPES[kind]
    return -(-math.prod(shape) // block) * n_bytes


def split_model(source: Path, folder: Path, n_parts: int, name: str = "split") -> Path:
    """Write a model in parts, as llama-gguf-split does; returns the first part.

    The first part has the keys of the model and, as some tools write it, no tensors.
    """
    whole = Parts.read(source)
    each = -(-len(whole.tensors) // (n_parts - 1))
    for number in range(n_parts):
        numbers: dict[bytes, Value] = {
            b"split.no": (U16, number),
            b"split.count": (U16, n_parts),
            b"split.tensors.count": (I32, len(whole.tensors)),
        }
        keys = numbers if number else whole.keys | numbers
        tensors = whole.tensors[(number - 1) * each : number * each] if number else []
        path = folder / f"{name}-{number + 1:05d}-of-{n_parts:05d}.gguf"
        path.write_bytes(Parts(keys, tensors).build())
    return folder / f"{name}-00001-of-{n_parts:05d}.gguf"


def with_template(source: Path, target: Path, template: str | None) -> Path:
    """Write a copy of a model with another chat template, or none; returns it."""
    parts = Parts.read(source)
    parts.keys.pop(b"tokenizer.chat_template", None)
    if template is not None:
        parts.keys[b"tokenizer.chat_template"] = (STR, template.encode())
    target.write_bytes(parts.build())
    return target
