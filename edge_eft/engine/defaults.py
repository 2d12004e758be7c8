"""What a recipe is loaded with where nothing is asked for, and the memory that this takes.

The loader, and whoever speaks of memory before anything is loaded (list, pull, match), reckon with
the same context and rows of logits. Headers are enough, and llama.cpp is not loaded.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..files import memory
from ..files.gguf_check import GGUFHeader
from ..files.recipe import DEFAULT_N_CTX, ModelSpec
from .request_state import OUTPUTS_PER_SLOT


def default_n_ctx(stated: int | None, headers: Mapping[str, GGUFHeader]) -> int:
    """Return the tokens of context: as `stated` by the recipe, and no more than was trained."""
    return min(stated or DEFAULT_N_CTX, *(header.n_ctx_train for header in headers.values()))


def default_memory(
    stated: int | None, roles: Mapping[str, ModelSpec], headers: Mapping[str, GGUFHeader]
) -> memory.MemoryEstimate:
    """Return what running a recipe takes, without a GPU and with one slot.

    Args:
        stated: the recipe's n_ctx.
        roles, headers: as of `memory.estimate`.
    """
    n_ctx = default_n_ctx(stated, headers)
    return memory.estimate(roles, headers, n_ctx=n_ctx, n_slots=1, n_outputs=OUTPUTS_PER_SLOT)
