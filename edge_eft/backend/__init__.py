"""llama.cpp behind `Model` (weights, vocabulary), `Context` (tokens, KV) and `Grammar`.

The only package that imports llama_cpp. It uses the low-level API: the `Llama` class copies
logits, reserves n_batch × n_vocab scores and tokenises content with special tokens on. It knows
nothing of roles, weights or prompts.

llama.cpp aborts the process of a caller that misuses it (GGML_ASSERT), so everything that could
trip an assertion is checked in Python first.
"""

from .context import N_BATCH, Context, common_prefix
from .grammar import Grammar, GrammarTokens
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
    "N_BATCH",
    "CacheKind",
    "Context",
    "Grammar",
    "GrammarTokens",
    "Model",
    "common_prefix",
    "default_threads",
    "gpu_available",
]
