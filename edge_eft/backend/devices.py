"""What llama.cpp says of itself: how it was compiled, and the devices that it can compute on."""

from __future__ import annotations

import ctypes
import importlib
from pathlib import Path
from typing import Any, NamedTuple

from .library import L, native, start_library

_FOLDER = Path(L.__file__).parent / "lib"

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
    names = {path.name.partition("ggml-")[2].partition(".")[0] for path in _FOLDER.glob("*ggml-*")}
    return sorted(names - {"base"})


def devices() -> list[Device]:
    """Return the devices of this build, in llama.cpp's order; drivers are asked, so it may take."""
    start_library()
    load = importlib.import_module("llama_cpp._ctypes_extensions").load_shared_library
    # Windows finds a function only in the library that has it.
    ggml, base = load("ggml", _FOLDER), load("ggml-base", _FOLDER)
    ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    ggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    ggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    for function, result in (
        (base.ggml_backend_dev_name, ctypes.c_char_p),
        (base.ggml_backend_dev_description, ctypes.c_char_p),
        (base.ggml_backend_dev_type, ctypes.c_int),
    ):
        function.restype, function.argtypes = result, [ctypes.c_void_p]
    with native("asking for devices"):
        found = (ggml.ggml_backend_dev_get(i) for i in range(ggml.ggml_backend_dev_count()))
        return [_describe(base, device) for device in found]


def _describe(base: Any, device: Any) -> Device:
    free, total = ctypes.c_size_t(0), ctypes.c_size_t(0)
    handle = ctypes.c_void_p(device)
    base.ggml_backend_dev_memory(handle, ctypes.byref(free), ctypes.byref(total))
    kind = base.ggml_backend_dev_type(handle)
    return Device(
        name=(base.ggml_backend_dev_name(handle) or b"").decode("utf-8", "replace"),
        description=(base.ggml_backend_dev_description(handle) or b"").decode("utf-8", "replace"),
        kind=_KINDS[kind] if kind < len(_KINDS) else f"kind {kind}",
        free=free.value,
        total=total.value,
    )
