"""The importance matrix: how large the inputs of each weight matrix are on a text.

It is collected through the context's `cb_eval`, which llama.cpp calls for every node of its graph:
of each matrix product with a weight, the squares of the input columns are summed. The layout of
`ggml_tensor` is mirrored here in ctypes (ggml/include/ggml.h of llama-cpp-python 0.3.36) and
checked against the library at the first node, so that another layout is an error, not a crash.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from .library import L
from .quantize import ggml_library as _ggml

_F32 = 0


class _Tensor(ctypes.Structure):
    """struct ggml_tensor."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
        ("extra", ctypes.c_void_p),
        ("padding", ctypes.c_char * 8),
    )


_ggml.ggml_op_name.restype = ctypes.c_char_p
_ggml.ggml_op_name.argtypes = [ctypes.c_int]
_ggml.ggml_get_name.restype = ctypes.c_void_p
_ggml.ggml_get_name.argtypes = [ctypes.c_void_p]
_ggml.ggml_backend_tensor_get.restype = None
_ggml.ggml_backend_tensor_get.argtypes = [
    *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)
]


class ImportanceCollector:
    """Sums of squared inputs per weight matrix, over all that its contexts decode.

    Pass `callback` to each context as `cb_eval`, and keep this object as long as they live. One
    collector may serve several models of the same shapes, one after the other: then the matrix
    is joint. Call `check` after decoding: exceptions cannot pass through native code.
    """

    def __init__(self) -> None:
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._counts: dict[str, int] = {}
        self._fault: BaseException | None = None
        self._layout_checked = False
        # Looked up, not hard-wired: the numbers of the operations move between versions.
        self._mul_mat = next(i for i in range(256) if _ggml.ggml_op_name(i) == b"MUL_MAT")
        self.callback: Any = L.ggml_backend_sched_eval_callback(self._on_node)

    def _on_node(self, address: int, asking: bool, _: Any) -> bool:
        """Take part in the evaluation of a node.

        llama.cpp calls this twice per node: with `asking` it wants to know whether to compute the
        result for us, then it hands it over. True means go on.
        """
        try:
            node = _Tensor.from_address(address)
            if not self._layout_checked:
                self._check_layout(address, node)
            wanted = self._weight_name(node)
            if wanted is None:
                return not asking
            if not asking:
                self._add(wanted, node)
        except BaseException as fault:  # it would be printed and lost in native code
            self._fault = fault
        return True

    def _check_layout(self, address: int, node: _Tensor) -> None:
        if _ggml.ggml_get_name(address) != address + _Tensor.name.offset:
            raise EngineError(
                "ggml_tensor has another layout than in llama-cpp-python 0.3.36: --calibrate "
                "does not work with this version"
            )
        self._layout_checked = True

    def _weight_name(self, node: _Tensor) -> str | None:
        """Return the name of the weight matrix that this node multiplies with, if it is one."""
        if node.op != self._mul_mat:
            return None
        weight = _Tensor.from_address(node.src[0])
        inputs = _Tensor.from_address(node.src[1])
        name = weight.name
        if not (name.startswith(b"blk.") and name.endswith(b".weight")):
            return None
        rows_are_dense = inputs.nb[0] == 4 and inputs.nb[1] == 4 * inputs.ne[0]
        return name.decode() if inputs.type == _F32 and rows_are_dense else None

    def _add(self, name: str, node: _Tensor) -> None:
        inputs = _Tensor.from_address(node.src[1])
        n_columns = inputs.ne[0]
        n_rows = inputs.ne[1] * inputs.ne[2] * inputs.ne[3]
        values = np.empty((n_rows, n_columns), np.float32)
        # Copies from wherever it lies, even from a GPU.
        _ggml.ggml_backend_tensor_get(node.src[1], values.ctypes.data, 0, values.nbytes)
        squares = np.einsum("ij,ij->j", values, values, dtype=np.float64)
        if name in self._sums:
            self._sums[name] += squares
            self._counts[name] += n_rows
        else:
            self._sums[name], self._counts[name] = squares, n_rows

    def check(self) -> None:
        """Raise what went wrong inside the callback, if anything did."""
        if self._fault is not None:
            raise self._fault
        if not self._sums:
            raise EngineError("no matrix products were seen: this model cannot be calibrated")

    def means(self) -> dict[str, NDArray[np.float32]]:
        """Return tensor name → (n_columns,) float32, the mean square of each input column."""
        return {
            name: (total / self._counts[name]).astype(np.float32)
            for name, total in self._sums.items()
        }
