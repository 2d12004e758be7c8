"""llama.cpp's quantiser under Python names: the types it offers, a plan, and the run itself.

`llama_model_quantize` cannot be cancelled, leaves a partial file when it fails, and may abort on a
bad file: call it in a child process, on a file that `gguf_check` has passed, with a temporary
target.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError, RequestError
from . import library
from .library import L, start_library

# tools/quantize/quantize.cpp: the short names of its mixes.
_ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
# llama_ftype_get_default_type has no tensor type for these.
_NOT_WRITABLE = {"GUESSED", "NVFP4"}
_NAME = re.compile(r"LLAMA_FTYPE_(?:MOSTLY_|ALL_)?(\w+)")

TYPES: dict[str, int] = {
    match[1]: value
    for name, value in vars(L).items()
    if (match := _NAME.fullmatch(name)) and match[1] not in _NOT_WRITABLE
}

# These need an importance matrix (tensor_requires_imatrix in src/llama-quant.cpp).
NEEDS_IMATRIX = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS"}) | {
    "IQ3_XS",
    "Q2_K_S",
}

UNQUANTISED = frozenset({"F32", "F16", "BF16"})


def canonical_type(name: str) -> str:
    """Return the usual name of a type from any spelling: `q4_k_m` → `Q4_K_M`.

    Raises:
        RequestError: llama.cpp offers no type of this name.
    """
    upper = name.strip().upper()
    upper = _ALIASES.get(upper, upper)
    if upper not in TYPES:
        known = ", ".join(sorted(TYPES)).lower()
        raise RequestError(f"there is no type {name!r}; llama.cpp offers {known}")
    return upper


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of a plan: its name, the type it has and the type it will get."""

    name: str
    source_type: str
    target_type: str
    size_bytes: int


# "[   1/ 272] token_embd.weight - [  576, 49152,     1,     1], type =    f16, size = 54.00 MiB
#  -> 28.69 MiB (q8_0)"; without the arrow the tensor is copied.
_PLAN_LINE = re.compile(
    r"\[\s*\d+/\s*\d+\]\s+(?P<name>\S+)\s+-\s+\[(?P<shape>[^\]]+)\],\s+type =\s*(?P<source>\w+),\s+"
    r"size =\s+[\d.]+ MiB(?: ->\s+[\d.]+ MiB \((?P<target>\w+)\))?"
)
_PROGRESS_LINE = re.compile(r"\[\s*(\d+)/\s*(\d+)\]")


def plan(source: Path, type_name: str, **options: Any) -> list[PlannedTensor]:
    """Return what `quantize` with the same options would do to each tensor; nothing is written.

    Raises:
        EngineError: llama.cpp refuses, with its reason.
    """
    lines: list[str] = []
    _run(source, Path(os.devnull), type_name, dry_run=True, on_line=lines.append, **options)
    planned = []
    for match in _PLAN_LINE.finditer("".join(lines)):
        target = match["target"] or match["source"]
        shape = [int(n) for n in match["shape"].split(",")]
        size = _row_size(target, shape[0]) * int(np.prod(shape[1:]))
        planned.append(PlannedTensor(match["name"], match["source"], target, size))
    return planned


def quantize(
    source: Path,
    target: Path,
    type_name: str,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> None:
    """Write `target`, the tensors of `source` in the mix of types that `type_name` stands for.

    Args:
        source: a GGUF file; of F32, F16 or BF16 tensors unless `allow_requantize`.
        target: a name that nobody reads yet; after a failure it may hold half a file.
        type_name: a key of `TYPES`.
        on_progress: called with (tensors done, tensors) as llama.cpp reports them.
        options: `imatrix` {tensor name: (n_columns,) float32}, `metadata` {key: text of at most
            127 bytes}, `output_type` (a ggml type name that token_embd and output get in place
            of the mix's own), `allow_requantize`, `n_threads`.

    Raises:
        EngineError: llama.cpp refuses, with its reason.
    """

    def on_line(text: str) -> None:
        if on_progress and (match := _PROGRESS_LINE.match(text)):
            on_progress(int(match[1]), int(match[2]))

    _run(source, target, type_name, dry_run=False, on_line=on_line, **options)


def _run(
    source: Path,
    target: Path,
    type_name: str,
    *,
    dry_run: bool,
    on_line: Callable[[str], None],
    imatrix: Mapping[str, NDArray[np.float32]] | None = None,
    metadata: Mapping[str, str] | None = None,
    output_type: str | None = None,
    allow_requantize: bool = False,
    n_threads: int = 1,
) -> None:
    start_library()
    params = L.llama_model_quantize_default_params()
    params.ftype = TYPES[canonical_type(type_name)]
    params.nthread = n_threads
    params.allow_requantize = allow_requantize
    params.dry_run = dry_run
    if output_type is not None:
        params.output_tensor_type = params.token_embedding_type = _ggml_type(output_type)
    # The arrays must outlive the call: llama.cpp keeps the pointers.
    kept_imatrix = _imatrix_array(imatrix) if imatrix else None
    if kept_imatrix is not None:
        params.imatrix = kept_imatrix
    kept_metadata = _metadata_array(metadata) if metadata else None
    if kept_metadata is not None:
        params.kv_overrides = kept_metadata
    with _log_lines(on_line) as errors:
        status = L.llama_model_quantize(os.fsencode(source), os.fsencode(target), params)
    if status:
        reason = " ".join(" ".join(errors).split()) or "llama.cpp gave no reason"
        raise EngineError(f"cannot quantise {source.name} to {type_name}: {reason}")


def _imatrix_array(imatrix: Mapping[str, NDArray[np.float32]]) -> Any:
    """Return llama.cpp's array of entries, ended by one without a name."""
    array = (L.llama_model_imatrix_data * (len(imatrix) + 1))()
    for entry, (name, values) in zip(array, imatrix.items(), strict=False):
        entry.name = name.encode()
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = values.size
    return array


def _metadata_array(metadata: Mapping[str, str]) -> Any:
    """Return llama.cpp's array of string overrides, ended by one without a key."""
    array = (L.llama_model_kv_override * (len(metadata) + 1))()
    for entry, (key, text) in zip(array, metadata.items(), strict=False):
        entry.tag = L.LLAMA_KV_OVERRIDE_TYPE_STR
        entry.key = key.encode()
        entry.value.val_str = text.encode()[:127]  # char[128] in llama.h, with the final zero
    return array


ggml_library = importlib.import_module("llama_cpp._ggml").libggml
ggml_library.ggml_type_name.restype = ctypes.c_char_p
ggml_library.ggml_type_name.argtypes = [ctypes.c_int]
ggml_library.ggml_row_size.restype = ctypes.c_size_t
ggml_library.ggml_row_size.argtypes = [ctypes.c_int, ctypes.c_int64]

_GGML_TYPES = {
    value for name, value in vars(L).items() if re.fullmatch(r"GGML_TYPE_(?!COUNT)\w+", name)
}


def _ggml_type(name: str) -> int:
    """Return the number of a tensor type by the name that ggml prints, such as `q6_K`."""
    for value in _GGML_TYPES:
        if (ggml_library.ggml_type_name(value) or b"").decode().lower() == name.lower():
            return value
    raise RequestError(f"ggml has no tensor type {name!r}")


def _row_size(type_name: str, n_columns: int) -> int:
    return int(ggml_library.ggml_row_size(_ggml_type(type_name), n_columns))


@contextmanager
def _log_lines(on_line: Callable[[str], None]) -> Iterator[list[str]]:
    """Pass every text that llama.cpp logs to `on_line`. Yields the list of its error lines."""
    errors: list[str] = []

    @L.llama_log_callback
    def callback(level: int, text: bytes, _: Any) -> None:
        line = (text or b"").decode("utf-8", "replace")
        on_line(line)
        if level == 4 and line.strip():
            errors.append(line.strip())

    L.llama_log_set(callback, ctypes.c_void_p(0))
    try:
        yield errors
    finally:
        # Back to the backend's own callback, which is never freed.
        L.llama_log_set(library._to_logging, ctypes.c_void_p(0))
