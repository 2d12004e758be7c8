"""Does a GGUF adapter do to its model what PEFT does? Told from their numbers, matrix by matrix.

llama.cpp's library adds scale · B · A to a matrix, with scale = alpha / rank (llama-adapter.h).
That is compared with PEFT's own merged model minus the unmerged one, all three as GGUF, so that
llama.cpp's names and permutations are on both sides alike. Files are memory-mapped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from ..convert import ConversionError
from ..files.gguf_check import read_header
from .peft_adapter import INSTEAD

TOLERANCE = 0.01  # of the slope, and of what is left over
_ROUNDING = 2.0**-22  # of float32 weights to which a small change was added, generously
_BLOCK_VALUES = 1 << 24


def check_strength(adapter: Path, model: Path, merged: Path, shown: str) -> None:
    """Raise ConversionError unless the adapter makes of `model` what `merged` is.

    Args:
        adapter: a GGUF adapter of F32 tensors.
        model, merged: GGUF models of F32 tensors, before and after merging by PEFT.
        shown: the adapter's name for messages.
    """
    scale, pairs = _pairs(adapter)
    before, after = _tensors(model), _tensors(merged)
    shapes, merged_shapes = (
        {name: values.shape for name, values in tensors.items()} for tensors in (before, after)
    )
    if others := sorted(dict(shapes.items() ^ merged_shapes.items())):
        raise _refusal(shown, others[0], "PEFT's merged model has other tensors")
    for name in sorted(before):
        _check_matrix(before[name], after[name], pairs.get(name), scale, shown, name)


def _check_matrix(
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    pair: Mapping[str, NDArray[np.float32]] | None,
    scale: float,
    shown: str,
    name: str,
) -> None:
    """Compare one tensor of any number of dimensions; rows are its last but one."""
    both = theirs_squared = ours_squared = weights_squared = 0.0
    n_rows = before.shape[-2] if before.ndim > 1 else 1
    step = max(1, _BLOCK_VALUES * n_rows // before.size)
    for start in range(0, n_rows, step):
        rows = (..., slice(start, start + step), slice(None)) if before.ndim > 1 else (...,)
        weights = before[rows].astype(np.float64)
        theirs = after[rows] - weights
        ours = np.zeros_like(theirs)
        if pair is not None:
            a, b = pair["a"].astype(np.float64), pair["b"][rows].astype(np.float64)
            ours = scale / a.shape[-2] * (b @ a)
        both += float(np.vdot(ours, theirs))
        ours_squared += float(np.vdot(ours, ours))
        theirs_squared += float(np.vdot(theirs, theirs))
        weights_squared += float(np.vdot(weights, weights))
    left = max(ours_squared + theirs_squared - 2 * both, 0.0) ** 0.5
    if left <= TOLERANCE * theirs_squared**0.5 + _ROUNDING * weights_squared**0.5:
        return
    if not theirs_squared:
        raise _refusal(shown, name, "it would change what PEFT leaves as it is")
    slope, share = both / theirs_squared, left / theirs_squared**0.5
    raise _refusal(
        shown, name, f"it would act at {slope:.2f} of PEFT's strength and be off by {share:.0%}"
    )


def _refusal(shown: str, tensor: str, seen: str) -> ConversionError:
    return ConversionError(
        f"{shown} cannot be kept as a GGUF adapter: {seen} ({tensor}); {INSTEAD}"
    )


def _tensors(path: Path) -> dict[str, NDArray[np.float32]]:
    return {tensor.name: tensor.data for tensor in _reader(path).tensors}


def _pairs(path: Path) -> tuple[float, dict[str, dict[str, NDArray[np.float32]]]]:
    """Return the adapter's alpha, and tensor → its `a` (…, rank, n_in) and `b` (…, n_out, rank)."""
    alpha = float(read_header(path).metadata["adapter.lora.alpha"])
    pairs: dict[str, dict[str, NDArray[np.float32]]] = {}
    for name, values in _tensors(path).items():
        tensor, _, side = name.rpartition(".lora_")
        pairs.setdefault(tensor or name, {})[side] = values
    return alpha, {name: pair for name, pair in pairs.items() if set(pair) == {"a", "b"}}


def _reader(path: Path) -> Any:
    read_header(path)  # never the gguf package on a file that was not checked
    return gguf.GGUFReader(path)
