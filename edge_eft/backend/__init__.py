"""llama.cpp, behind two classes: `Model` (weights and vocabulary) and `Context` (tokens and KV).

The only package that imports llama_cpp. It uses the low-level API: the `Llama` class copies
logits, reserves n_batch × n_vocab scores and tokenises content with special tokens on. It knows
nothing of roles, weights or prompts.

llama.cpp aborts the process of a caller that misuses it (GGML_ASSERT), so everything that could
trip an assertion is checked in Python first.
"""

from .context import Context, common_prefix
from .library import (
    CACHE_LADDER,
    EXACT_CACHE,
    CacheKind,
    default_threads,
    gpu_available,
)
from .model import Model

__all__ = [
    "CACHE_LADDER",
    "EXACT_CACHE",
    "CacheKind",
    "Context",
    "Model",
    "common_prefix",
    "default_threads",
    "gpu_available",
]
