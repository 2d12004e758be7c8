"""What models need that are not here yet: their size is known, and no header to reckon from.

An approximation, good to a fifth or so, for a list to choose from; `memory` has the estimate that
decides whether a recipe is loaded. It knows no file and no machine.
"""

from __future__ import annotations

from collections.abc import Iterable

# KV cache (Q8_0), compute buffers and vocabulary of 25 published models from SmolLM2-135M to
# Llama-3.1-70B at n_ctx 4,096 and 8,192 grow about as the square root of their files' size. Models
# of 2023 with keys and values for every head take up to a third more together.
_PER_ROOT = 0.09e9  # bytes, for a file of 10⁹ bytes
_PER_ROOT_AND_TOKEN = 35e3


def rough_estimate(sizes: Iterable[int], n_ctx: int) -> int:
    """Return the bytes that models take together, about.

    Args:
        sizes: bytes of each model's file; a file that two roles use counts once.
        n_ctx: tokens of context.
    """
    per_root = _PER_ROOT + _PER_ROOT_AND_TOKEN * n_ctx
    return int(sum(size + per_root * (size / 1e9) ** 0.5 for size in sizes))
