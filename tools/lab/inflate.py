"""Make a small base cost as much as a large one without changing its output.

Speculation pays by the ratio of the base's cost to the small models', and its acceptance rate is a
property of trained models. If no large trio can be had, `inflate` gives a small trained base the
weight of a large one.

Two things are added, and both compute in full and add exactly zero. **Feed-forward units** whose
columns of `ffn_down` are zero; and **layers**, up to 32 in all, whose `attn_output` and `ffn_down`
are zero, so that the residual stream passes them unchanged. All layers get the same width, since
most architectures have but one. Units alone would do, but a base of 3 million parameters would need
layers 100,000 units wide to cost what 300 million do: five giant steps per token, a compute buffer
of half a gigabyte, and none of the steps between layers that a real model of that size has
(published ones of 0.1 to 8 billion parameters have 16 to 36 layers). What is left of the difference
is that the matrices' rows are as short as the small model's hidden state, which slows single tokens
more than blocks: figures from an inflated base flatter drafts (docs/performance.md has an example).

x + 0 is x, and a dot product over whole blocks is not changed by blocks of zeros after them, so
logits are expected to stay bitwise what they were; `largest_difference` says so of a machine.
The matrices that do not lead back are not zero: nothing in llama.cpp's dense kernels is faster for
zeros, but a cache full of them would not be a fair one. The model's own tensors keep their type,
and so do the units that are added to them; the type asked for is that of the added layers.
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_eft.backend import CACHE_LADDER, Context, Model, default_threads
from edge_eft.errors import ModelFileError, RequestError
from edge_eft.files.gguf_check import GGUFHeader, read_header
from edge_eft.files.gguf_header import GGUFArray

N_LAYERS = 32  # in all, at least

# A few tokens of any vocabulary, to compare logits on.
_PROBE = (1, 5, 9, 13, 2, 21, 34, 8)

# Types that the gguf package can write; rows are whole blocks of at most 32 weights.
TYPES = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "F16", "BF16", "F32")

_BLOCK = re.compile(r"blk\.(\d+)\.(.+)")
_BACK_INTO_THE_STREAM = ("attn_output.", "ffn_down.")
_WIDE = ("ffn_gate.weight", "ffn_up.weight", "ffn_down.weight")
_KNOWN = {
    *(f"{name}.weight" for name in ("attn_norm", "ffn_norm", "attn_q_norm", "attn_k_norm")),
    *(f"{name}.weight" for name in ("post_attention_norm", "post_ffw_norm")),
    *(f"{name}.{kind}" for name in ("attn_q", "attn_k", "attn_v") for kind in ("weight", "bias")),
    *(f"attn_output.{kind}" for kind in ("weight", "bias")),
    *_WIDE,
}


@dataclass(frozen=True)
class Inflation:
    """What was written.

    Attributes:
        path: the file.
        n_parameters: of all its tensors.
        n_layers, n_added: layers in all, and those that are new.
        width: feed-forward units of a layer.
        types: type → share of all weights.
    """

    path: Path
    n_parameters: int
    n_layers: int
    n_added: int
    width: int
    types: dict[str, float]

    def __str__(self) -> str:
        ranked = sorted(self.types.items(), key=lambda item: -item[1])
        types = ", ".join(f"{share:.0%} {name}" for name, share in ranked if share >= 0.005)
        return (
            f"{self.n_parameters / 1e6:,.1f} M parameters ({types}), {self.n_layers} layers "
            f"({self.n_added} of them new) of {self.width:,} feed-forward units"
        )


@dataclass(frozen=True)
class _Tensor:
    """A tensor to write.

    Attributes:
        shape: as NumPy has it: (rows, columns).
        data: the rows that are the model's own, (≤ rows, ≤ bytes of a row); None: it has none.
        zero: whether the rest is filled with zeros; else it is noise.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    data: NDArray[np.uint8] | None
    zero: bool = False


def parse_count(text: str) -> int:
    """Return a number of parameters from a text such as "300M", "1.5B" or "250000".

    Raises:
        RequestError: it is not such a number.
    """
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([KMBG]?)", text.strip(), re.IGNORECASE)
    factor = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9}
    count = round(float(match[1]) * factor[match[2].upper()]) if match else 0
    if count < 1:
        raise RequestError(f"{text!r} is not a number of parameters; write one like 300M or 1.5B")
    return count


def check_type(name: str) -> str:
    """Return the usual spelling of a type that can be written.

    Raises:
        RequestError: it cannot be written.
    """
    upper = name.strip().upper()
    if upper not in TYPES:
        raise RequestError(f"--inflate-type is {name!r}; it must be one of {', '.join(TYPES)}")
    return upper


def inflate(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    n_parameters: int,
    type_name: str = "Q8_0",
) -> Inflation:
    """Write `target`: the model of `source` with layers that change nothing.

    Args:
        source: a GGUF of a model with plain attention and gated feed-forward layers.
        target: the new file; half a file may be left if writing fails.
        n_parameters: the new model has at least this many weights, and fewer than one layer more.
        type_name: one of `TYPES`, for the matrices of the added layers.

    Raises:
        ModelFileError: the source is damaged, or its layers are of another kind.
        RequestError: it has that many weights already, or the type does not suit it.
    """
    header = read_header(source)
    type_name = check_type(type_name)
    gguf = _gguf()
    reader = gguf.GGUFReader(source)
    template = _template(header)
    n_own, d = header.n_layer, _integer(header, "embedding_length")
    n_added = max(N_LAYERS - n_own, 0)
    own_width = template["ffn_down.weight"][1]
    own = {tensor.name: tensor for tensor in map(_own, reader.tensors)}
    step = math.lcm(
        *(_block(t.type, gguf)[0] for name, t in own.items() if name.endswith("ffn_down.weight")),
        _block(type_name, gguf)[0],
        32,
    )
    if d % _block(type_name, gguf)[0]:
        raise RequestError(f"{header.path}: rows of {d} weights do not divide into {type_name}'s")
    fixed = n_added * sum(math.prod(s) for name, s in template.items() if name not in _WIDE)
    per_unit = 3 * d * (n_own + n_added)
    missing = n_parameters - header.n_parameters - fixed + 3 * d * n_own * own_width
    width = math.ceil(missing / (per_unit * step)) * step
    if width <= own_width:
        least = (own_width // step + 1) * step * per_unit - missing + n_parameters
        raise RequestError(
            f"{header.path} has {header.n_parameters:,} parameters and can be inflated to "
            f"{least:,} or more, not to {n_parameters:,}"
        )

    tensors = [_widened(tensor, width) for tensor in own.values()]
    for layer in range(n_own, n_own + n_added):
        for name in template:
            tensors.append(_added(f"blk.{layer}.{name}", own[f"blk.0.{name}"], width, type_name))
    writer = gguf.GGUFWriter(target, header.architecture)
    _copy_metadata(writer, reader, gguf)
    prefix = f"{header.architecture}."
    kinds = gguf.GGUFValueType
    writer.add_key_value(f"{prefix}block_count", n_own + n_added, kinds.UINT32)
    writer.add_key_value(f"{prefix}feed_forward_length", width, kinds.UINT32)
    try:
        _write(writer, tensors, gguf)
    finally:
        writer.close()
    counts: Counter[str] = Counter()
    for tensor in tensors:
        counts[tensor.type] += math.prod(tensor.shape)
    n_total = counts.total()
    return Inflation(
        path=Path(target),
        n_parameters=n_total,
        n_layers=n_own + n_added,
        n_added=n_added,
        width=width,
        types={name: count / n_total for name, count in counts.items()},
    )


def largest_difference(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> float:
    """Return the largest difference of two models' logits after a few tokens."""
    rows = []
    for path in (first, second):
        model = Model(path)
        tokens = np.array(_PROBE, np.int32) % model.n_vocab
        context = Context(
            model, n_ctx=256, n_threads=default_threads()[0], n_outputs=1, cache=CACHE_LADDER[-1]
        )
        try:
            rows.append([context.advance({0: (tokens[:n], 1)})[0][0].copy() for n in (3, 4, 8)])
        finally:
            context.close()
            model.close()
    return float(np.max(np.abs(np.array(rows[0]) - np.array(rows[1]))))


def _gguf() -> Any:
    import gguf
    import gguf.quants

    # It warns of every key that is written anew, and reports its progress.
    logging.getLogger("gguf.gguf_writer").setLevel(logging.ERROR)
    return gguf


def _integer(header: GGUFHeader, name: str) -> int:
    return int(header.metadata.get(f"{header.architecture}.{name}", 0))


def _template(header: GGUFHeader) -> dict[str, tuple[int, ...]]:
    """Return name → shape (NumPy's order) of a layer's tensors; all layers must be alike."""
    layers: dict[int, dict[str, tuple[int, ...]]] = {}
    for tensor in header.tensors:
        if match := _BLOCK.fullmatch(tensor.name):
            layers.setdefault(int(match[1]), {})[match[2]] = tensor.shape[::-1]
    first = layers.get(0, {})
    missing = sorted({*_WIDE, "attn_q.weight", "attn_output.weight"} - set(first))
    strange = sorted(set(first) - _KNOWN)
    in_parts = len(header.parts) > 1  # gguf's reader opens one file
    if in_parts or missing or strange:
        seen = (
            "is split into several files"
            if in_parts
            else f"has layers with {strange[0]}"
            if strange
            else f"has layers without {missing[0]}"
        )
        raise ModelFileError(
            f"{header.path}: {seen}; only plain attention with gated feed-forward is inflated"
        )
    if any(layers.get(i) != first for i in range(header.n_layer)):
        raise ModelFileError(f"{header.path}: has layers that differ in shape; it is not inflated")
    per_layer = [
        key
        for key, value in header.metadata.items()
        if isinstance(value, GGUFArray)
        and key.startswith(f"{header.architecture}.")
        and value.count == header.n_layer
    ]
    if per_layer:
        raise ModelFileError(f"{header.path}: has a value per layer in {per_layer[0]}")
    return first


def _own(tensor: Any) -> _Tensor:
    shape = tuple(int(n) for n in tensor.shape[::-1])
    rows = np.ascontiguousarray(tensor.data).view(np.uint8).reshape(math.prod(shape[:-1]), -1)
    return _Tensor(tensor.name, shape, tensor.tensor_type.name, rows)


def _widened(tensor: _Tensor, width: int) -> _Tensor:
    """Return a tensor of the model itself, with room for more feed-forward units."""
    name = tensor.name.partition(".")[2].partition(".")[2]
    if name not in _WIDE:
        return tensor
    n_rows, n_columns = tensor.shape
    if name == "ffn_down.weight":
        return replace(tensor, shape=(n_rows, width), zero=True)
    return replace(tensor, shape=(width, n_columns))


def _added(name: str, own: _Tensor, width: int, type_name: str) -> _Tensor:
    """Return a tensor of a new layer, modelled on the first layer's."""
    like = _widened(own, width)
    zero = own.name.removeprefix("blk.0.").startswith(_BACK_INTO_THE_STREAM)
    if len(like.shape) == 1:
        # Norms and biases are copied; but what leads back must be zero, its bias included.
        return replace(like, name=name, data=None if zero else like.data, zero=zero)
    return _Tensor(name, like.shape, type_name, None, zero)


def _copy_metadata(writer: Any, reader: Any, gguf: Any) -> None:
    """Copy all keys as they are; texts as bytes, since a token need not be UTF-8."""
    kinds = gguf.GGUFValueType
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        kind, *inner = field.types
        if kind == kinds.STRING:
            writer.add_key_value(key, bytes(field.parts[-1]), kind)
        elif kind == kinds.ARRAY:
            if len(field.data):
                texts = inner[-1] == kinds.STRING
                values = [bytes(field.parts[i]) for i in field.data] if texts else field.contents()
                writer.add_key_value(key, values, kind, inner[-1])
        elif key == "general.alignment":
            writer.add_custom_alignment(int(field.contents()))
        else:
            writer.add_key_value(key, field.contents(), kind)


def _write(writer: Any, tensors: list[_Tensor], gguf: Any) -> None:
    """Write the header, then the tensors one by one: no more than one is in memory."""
    for tensor in tensors:
        writer.add_tensor_info(
            tensor.name,
            tensor.shape,
            np.dtype(np.float32),
            math.prod(tensor.shape[:-1]) * _row_bytes(tensor, gguf),
            raw_dtype=gguf.GGMLQuantizationType[tensor.type],
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    noise = _Noise(gguf)
    for tensor in tensors:
        writer.write_tensor_data(_bytes(tensor, noise, gguf))


def _bytes(tensor: _Tensor, noise: _Noise, gguf: Any) -> NDArray[np.uint8]:
    """Return (rows, bytes of a row) uint8: the model's own part first, then zeros or noise."""
    n_rows, row_bytes = math.prod(tensor.shape[:-1]), _row_bytes(tensor, gguf)
    own = tensor.data
    if own is not None and own.shape == (n_rows, row_bytes):
        return own
    if tensor.zero:
        # All-zero bytes are zeros in every type of ggml: a block's scale is among them.
        full = np.zeros((n_rows, row_bytes), np.uint8)
        if own is not None:
            full[: len(own), : own.shape[1]] = own
        return full
    if own is not None:
        # More units like those that are there, since not every type can be written here.
        return own[np.arange(n_rows) % len(own)]
    return noise.rows(n_rows, tensor.shape[-1], tensor.type)


def _block(type_name: str, gguf: Any) -> tuple[int, int]:
    """Return the weights and bytes of a block."""
    n_weights, n_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[type_name]]
    return int(n_weights), int(n_bytes)


def _row_bytes(tensor: _Tensor, gguf: Any) -> int:
    n_weights, n_bytes = _block(tensor.type, gguf)
    return tensor.shape[-1] // n_weights * n_bytes


class _Noise:
    """Random matrices whose outputs have about the size of their inputs.

    Rows of each length are drawn and quantised once, and taken in turn from a random one on: what
    a decode costs does not depend on the values.
    """

    N_POOL = 1 << 20  # weights

    def __init__(self, gguf: Any) -> None:
        self._gguf = gguf
        self._rng = np.random.default_rng(0)
        self._pools: dict[tuple[int, str], NDArray[np.uint8]] = {}

    def rows(self, n_rows: int, n_columns: int, type_name: str) -> NDArray[np.uint8]:
        """Return (n_rows, bytes of a row) uint8."""
        pool = self._pools.get((n_columns, type_name))
        if pool is None:
            n_pool = max(1, self.N_POOL // n_columns)
            values = self._rng.standard_normal((n_pool, n_columns), np.float32)
            values /= np.float32(math.sqrt(n_columns))
            kind = self._gguf.GGMLQuantizationType[type_name]
            packed = np.ascontiguousarray(self._gguf.quants.quantize(values, kind))
            pool = self._pools[n_columns, type_name] = packed.view(np.uint8).reshape(n_pool, -1)
        begin = int(self._rng.integers(len(pool)))
        return pool[(begin + np.arange(n_rows)) % len(pool)]
