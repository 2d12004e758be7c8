"""What llama.cpp says of itself: how it was compiled, and the devices that it can compute on."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any, NamedTuple

from .library import L, native, start_library
from .quantize import ggml_library as _ggml

_KINDS = ("CPU", "GPU", "integrated GPU", "accelerator", "meta device")  # ggml_backend_dev_type


class Device(NamedTuple):
    """One device: its names, what it is, and its memory in bytes (0 where it does not say).

    Of an integrated GPU it is the part of the machine's memory that it may use.
    """

    name: str
    description: str
    kind: str
    free: int
    total: int


def system_info() -> str:
    """Return llama.cpp's own line on the instruction sets and options it was compiled with."""
    return str(L.llama_print_system_info().decode("utf-8", "replace"))


def backend_libraries() -> list[str]:
    """Return the names of the backends that the installation has files of: "cpu", "cuda" …"""
    folder = Path(L.__file__).parent / "lib"
    names = {path.name.partition("ggml-")[2].partition(".")[0] for path in folder.glob("*ggml-*")}
    return sorted(names - {"base"})


def devices() -> list[Device]:
    """Return the devices of this build, in llama.cpp's order; drivers are asked, so it may take."""
    start_library()
    _ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    _ggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    _ggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    for function, result in (
        (_ggml.ggml_backend_dev_name, ctypes.c_char_p),
        (_ggml.ggml_backend_dev_description, ctypes.c_char_p),
        (_ggml.ggml_backend_dev_type, ctypes.c_int),
    ):
        function.restype, function.argtypes = result, [ctypes.c_void_p]
    with native("asking for devices"):
        found = (_ggml.ggml_backend_dev_get(i) for i in range(_ggml.ggml_backend_dev_count()))
        return [_describe(device) for device in found]


def _describe(device: Any) -> Device:
    free, total = ctypes.c_size_t(0), ctypes.c_size_t(0)
    handle = ctypes.c_void_p(device)
    _ggml.ggml_backend_dev_memory(handle, ctypes.byref(free), ctypes.byref(total))
    kind = _ggml.ggml_backend_dev_type(handle)
    return Device(
        name=(_ggml.ggml_backend_dev_name(handle) or b"").decode("utf-8", "replace"),
        description=(_ggml.ggml_backend_dev_description(handle) or b"").decode("utf-8", "replace"),
        kind=_KINDS[kind] if kind < len(_KINDS) else f"kind {kind}",
        free=free.value,
        total=total.value,
    )
