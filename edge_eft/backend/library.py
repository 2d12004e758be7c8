"""The native library itself: loading it, its log, Ctrl-C in it, threads, kinds of KV cache."""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import psutil

# Before llama_cpp loads libgomp: two busy OpenMP teams that spin at barriers slow each other
# 40–190×; a short spin keeps idle speed. A user's own setting wins.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
os.environ.setdefault("GGML_NO_BACKTRACE", "1")
import llama_cpp as L  # noqa: N812

log = logging.getLogger("edge_eft.llama")
_doing = logging.getLogger("edge_eft.backend.native")

# ggml's levels: 1 debug, 2 info, 3 warning, 4 error, 5 continues the line before. Errors become
# exceptions here, so in the log they are INFO; the rest is talk for llama.cpp's developers.
_LEVELS = {4: logging.INFO}
_of_thread = threading.local()


@L.llama_log_callback
def _to_logging(level: int, text: bytes, _: Any) -> None:
    line = codecs.decode(text or b"", "utf-8", "replace")
    if level == 5:
        line = getattr(_of_thread, "line", "") + line
        level = getattr(_of_thread, "level", 1)
    _of_thread.line, _of_thread.level = line, level
    if line.endswith("\n"):
        log.log(_LEVELS.get(level, logging.DEBUG), "%s", line.rstrip())
        if level == 4:
            _of_thread.errors = [*getattr(_of_thread, "errors", []), line.strip()][-2:]
        _of_thread.line = ""


def interrupted() -> bool:
    """Return whether Ctrl-C came in this block of `native`: what can be left should be."""
    return bool(getattr(_of_thread, "interrupts", ()))


@contextlib.contextmanager
def native(what: str) -> Iterator[None]:
    """Log what native code does in the block, and let no callback swallow Ctrl-C.

    ctypes prints and forgets what is raised in a callback, and a signal handler runs in the first
    callback after the signal. So on the main thread SIGINT is kept until the block is left. The log
    is what explains the death of a process (`cli.supervise`).
    """
    interrupts: list[tuple[int, Any]] = []
    handler = None
    if threading.current_thread() is threading.main_thread():
        handler = signal.getsignal(signal.SIGINT)
    if callable(handler):
        signal.signal(signal.SIGINT, lambda *signalled: interrupts.append(signalled))
        _of_thread.interrupts = interrupts
    _doing.info("%s", what)
    try:
        yield
    finally:
        _doing.info("")
        if callable(handler):
            _of_thread.interrupts = ()
            signal.signal(signal.SIGINT, handler)
            if interrupts:
                handler(*interrupts[0])


@lru_cache(maxsize=1)
def start_library() -> None:
    """Start llama.cpp, once per process. `_to_logging` is a global: it must never be freed."""
    with native("starting llama.cpp"):
        L.llama_log_set(_to_logging, ctypes.c_void_p(0))
        L.llama_backend_init()


def last_error() -> str:
    """Return what llama.cpp last complained of on this thread, and forget it."""
    errors, _of_thread.errors = getattr(_of_thread, "errors", []), []
    return "; ".join(errors) or "llama.cpp gave no reason"


def gpu_available() -> bool:
    """Return whether this build of llama.cpp has a GPU backend (Metal, CUDA, Vulkan …)."""
    return bool(L.llama_supports_gpu_offload())


def default_threads() -> tuple[int, str]:
    """Return threads for decoding, and why: it is bound by memory, so physical cores suffice."""
    if sys.platform == "darwin":
        # Efficiency cores hold up the others at every barrier.
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL(None)
            value, size = ctypes.c_int(0), ctypes.c_size_t(4)
            name = b"hw.perflevel0.physicalcpu"
            if libc.sysctlbyname(name, ctypes.byref(value), ctypes.byref(size), None, 0) == 0:
                return value.value, "performance cores"
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    physical = psutil.cpu_count(logical=False) or usable or 1
    return max(1, min(physical, usable or 1)), "physical cores that this process may use"


class CacheKind(NamedTuple):
    """Type of the KV cache and whether flash attention computes on it."""

    kv_type: str
    flash_attn: bool

    def __str__(self) -> str:
        return f"{self.kv_type.upper()} KV, flash attention {'on' if self.flash_attn else 'off'}"


KV_TYPES = {"f32": L.GGML_TYPE_F32, "f16": L.GGML_TYPE_F16, "q8_0": L.GGML_TYPE_Q8_0}

# Q8_0 with flash attention gives the same logits to a token decoded alone or in a block, and is
# the smallest. Head sizes that are not a multiple of 32 refuse it; some backends lack the kernels.
CACHE_LADDER = (CacheKind("q8_0", True), CacheKind("f16", True), CacheKind("f16", False))

# For measuring quantisation of weights: rounding in the cache would blur the figures.
EXACT_CACHE = CacheKind("f32", False)
