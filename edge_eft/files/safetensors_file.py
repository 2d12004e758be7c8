"""safetensors files: the shapes that a header states, and the numbers of a small file.

Headers are read here, so that what is wrong with a file is said before any of its numbers are
loaded; the numbers come through the safetensors library, as float32. Nothing else of a directory
is known here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ModelFileError
from .hf_directory import MAX_JSON
from .plain_text import reason

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def safetensors_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return tensor name → shape from a safetensors file's header, whose extents are checked.

    Raises:
        ModelFileError: not a safetensors file, or shorter than its header says.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(MAX_JSON, size - 8):
            raise ModelFileError(f"{path} is not a safetensors file, or it is truncated")
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            shapes = {str(k): tuple(int(n) for n in v["shape"]) for k, v in header.items()}
            end = max((int(v["data_offsets"][1]) for v in header.values()), default=0)
        except (ValueError, OverflowError, TypeError, LookupError, AttributeError, RecursionError):
            raise ModelFileError(f"{path} has a damaged safetensors header") from None
    if 8 + length + end > size:
        raise ModelFileError(f"{path} is truncated: {size:,} of {8 + length + end:,} bytes")
    return shapes


def safetensors_values(data: bytes, path: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield the name and the values, float32 of its shape, of each tensor.

    Args:
        data: the whole file; bfloat16, which NumPy lacks, is the upper half of a float32.
        path: where it was read, for messages.

    Raises:
        ModelFileError: damaged, of a type that is no float of 16 bits or more, or not finite.
    """
    import numpy as np
    from safetensors import SafetensorError, deserialize

    kinds = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
    try:
        found = deserialize(data)
    except SafetensorError as error:
        raise ModelFileError(f"{path} is damaged ({reason(error)}); get it again") from None
    for name, tensor in found:
        dtype = tensor["dtype"]
        if dtype == "BF16":
            halves = np.frombuffer(tensor["data"], "<u2").astype(np.uint32)
            values = (halves << 16).view(np.float32)
        elif dtype in kinds:
            with np.errstate(over="ignore"):  # an infinity is told below
                values = np.frombuffer(tensor["data"], kinds[dtype]).astype(np.float32)
        else:
            raise ModelFileError(
                f"{path}: {name} is of type {dtype}; save it as float32, float16 or bfloat16"
            )
        if not np.isfinite(values).all():
            raise ModelFileError(f"{path}: {name} holds values that are not finite numbers")
        yield name, values.reshape(tensor["shape"])
