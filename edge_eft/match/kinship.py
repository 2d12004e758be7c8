"""Whether one model was trained on from another, by a look at their weights.

The weights of the norms are stored as float32 whatever a file's quantisation is. Two trainings from
scratch have nothing to do with each other channel by channel, and tuning hardly moves them: a few
kilobytes tell relatives from strangers, where names only claim it.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelFileError
from ..files.gguf_check import GGUFHeader
from ..files.gguf_header import TensorInfo
from ..files.plain_text import reason

RELATED = 0.98  # correlation that tuning leaves
STRANGERS = 0.5  # correlation that no tuning goes below
_SPREAD = 0.01  # of a norm's weights; less is rounding, and says nothing
_AT_MOST = 16  # tensors that are read of each
_MAX_BYTES = 1 << 18  # that are read of a tensor: more than the norm of any published model has


def kinship(one: GGUFHeader, other: GGUFHeader) -> float | None:
    """Return the correlation of two models' norms, channel by channel, each norm about its mean.

    None if they have no norms in common, or those say nothing: all one, as before any training.

    Raises ModelFileError if a file cannot be read any more.
    """
    named = {tensor.name: tensor for tensor in other.tensors}
    pairs = [
        (tensor, named[tensor.name])
        for tensor in one.tensors
        if tensor.name.endswith("norm.weight") and tensor.name in named
    ]
    same = [(a, b) for a, b in pairs if (a.shape, a.type) == (b.shape, b.type) and a.type == "F32"]
    chosen = same[:: max(1, len(same) // _AT_MOST)][:_AT_MOST]
    if not chosen:
        return None
    a = _values(one, [a for a, _ in chosen])
    b = _values(other, [b for _, b in chosen])
    # Sums and no products of vectors: those wake BLAS's threads for what takes microseconds.
    with np.errstate(over="ignore", invalid="ignore"):
        spread = [float(np.sqrt((each * each).mean())) for each in (a, b)]
        product = float((a * b).mean())
    if not all(_SPREAD < each < np.inf for each in spread):
        return None
    return product / (spread[0] * spread[1])


def _values(header: GGUFHeader, tensors: list[TensorInfo]) -> NDArray[np.float64]:
    """Return the values of float32 tensors one after the other, each about its mean."""
    rows = []
    try:
        with ExitStack() as stack:
            used = {tensor.part for tensor in tensors}
            files = {n: stack.enter_context(open(header.parts[n], "rb")) for n in used}
            for tensor in tensors:
                start = header.data_starts[tensor.part] + tensor.offset
                row = _row(files[tensor.part], start, min(tensor.n_bytes, _MAX_BYTES))
                rows.append(row - row.mean())
    except OSError as error:
        raise ModelFileError(f"{error.filename}: cannot be read ({reason(error)})") from None
    return np.concatenate(rows)


def _row(file: BinaryIO, offset: int, n_bytes: int) -> NDArray[np.float64]:
    file.seek(offset)
    with np.errstate(invalid="ignore"):
        data = file.read(n_bytes).ljust(n_bytes, b"\0")
        return np.frombuffer(data, "<f4").astype(np.float64)
