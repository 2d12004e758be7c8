"""What the models of one emulation will need together, before any of them is loaded.

An estimate from the headers alone: weights and vocabulary (once per file, however many contexts
run on it), KV cache and working memory (once per context). It knows nothing of llama_cpp; what it
takes from there are the shapes of buffers, named below.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from ..errors import ModelFileError, NotEnoughMemoryError
from ..system import mebibytes
from .adapter_check import check_adapter_fits
from .gguf_check import GGUFHeader, read_header
from .recipe import ModelSpec, shared_contexts

F16_BYTES = 2.0
Q8_0_BYTES = 34 / 32  # of KV cache per element: 32 int8 and one float16 scale
BYTES_PER_TOKEN = 350  # of a loaded vocabulary: 17 MiB for the 49,152 tokens of SmolLM2
N_UBATCH = 512  # llama.cpp's default: tokens of one micro-batch


@dataclass(frozen=True)
class RoleMemory:
    """What one role adds, in bytes. `shares` names the role whose weights or context it uses."""

    role: str
    weights: int
    kv_cache: int
    compute: int
    logits: int
    shares: str | None = None

    @property
    def total(self) -> int:
        """Sum of the parts, in bytes."""
        return self.weights + self.kv_cache + self.compute + self.logits


@dataclass(frozen=True)
class MemoryEstimate:
    """The roles' needs; what is shared is counted at the first role that has it."""

    roles: tuple[RoleMemory, ...]

    @property
    def total(self) -> int:
        """Sum over the roles, in bytes."""
        return sum(role.total for role in self.roles)

    def lines(self) -> list[str]:
        """Return a table for people, in MiB: a heading, one line per role, the sum."""
        width = max(len("together"), *(len(role.role) for role in self.roles))
        heading = "".join(f"{name:>10}" for name in ("weights", "KV cache", "compute", "logits"))
        lines = [f"{'MiB':<{width}}{heading}{'sum':>10}"]
        for role in self.roles:
            parts = (role.weights, role.kv_cache, role.compute, role.logits, role.total)
            note = f"  (shares with {role.shares})" if role.shares else ""
            lines.append(f"{role.role:<{width}}" + "".join(map(_cell, parts)) + note)
        return [*lines, f"{'together':<{width}}{'':40}{_cell(self.total)}"]


def headers(roles: Mapping[str, ModelSpec]) -> dict[str, GGUFHeader]:
    """Return the checked header of each role's model file, reading a shared file once.

    Raises ModelFileError if a file is not a loadable model, an adapter stands for a model or a
    model for an adapter, or an adapter does not fit its model.
    """
    read: dict[str, GGUFHeader] = {}
    for spec in roles.values():
        for path in filter(None, (spec.file, spec.lora)):
            key = os.path.realpath(path)
            if key not in read:
                read[key] = read_header(path)
            if read[key].is_adapter != (path == spec.lora):
                kind = "an adapter, not a model" if read[key].is_adapter else "not an adapter"
                fix = 'an adapter is written { lora = "FILE", on = "reference" } in a recipe'
                raise ModelFileError(f"{path}: is {kind}; {fix}")
        if spec.lora:
            check_adapter_fits(*(read[os.path.realpath(path)] for path in (spec.lora, spec.file)))
    return {role: read[os.path.realpath(spec.file)] for role, spec in roles.items()}


def estimate(
    roles: Mapping[str, ModelSpec],
    headers: Mapping[str, GGUFHeader],
    *,
    n_ctx: int,
    n_slots: int,
    n_outputs: int,
    kv_bytes: float = Q8_0_BYTES,
) -> MemoryEstimate:
    """Return what `roles` need together.

    Roles of one side (base, tuned or reference) with the same model, adapter and prompt format
    share a context; roles with the same model share its weights.

    Args:
        roles: role → model, as from `Recipe.roles`.
        headers: role → header of its model file, as from `headers`.
        n_ctx: tokens per slot.
        n_slots: sequences per context, each with a cache of n_ctx, in steps of 256.
        n_outputs: most logit rows of one decode.
        kv_bytes: bytes per element of the KV cache.
    """
    n_cells = n_slots * -(-n_ctx // 256) * 256
    first = {role: names[0] for names, _ in shared_contexts(roles) for role in names}
    weights_of: dict[str, str] = {}
    rows = []
    for role, spec in roles.items():
        header = headers[role]
        paths = [os.path.realpath(path) for path in (spec.file, spec.lora) if path]
        weights = kv_cache = compute = logits = 0
        if paths[0] not in weights_of:
            weights = header.n_bytes + header.n_vocab * BYTES_PER_TOKEN
        if spec.lora and paths[1] not in weights_of:
            weights += os.stat(spec.lora).st_size
        if first[role] == role:
            kv_cache = _kv_cache(header, n_cells, kv_bytes)
            compute = _compute(header, n_cells, n_outputs)
            logits = n_outputs * header.n_vocab * 4
        shares = first[role] if first[role] != role else weights_of.get(paths[0])
        for path in paths:
            weights_of.setdefault(path, role)
        rows.append(RoleMemory(role, weights, kv_cache, compute, logits, shares))
    return MemoryEstimate(tuple(rows))


def check(estimate: MemoryEstimate, available: int | None = None) -> None:
    """Refuse what does not fit.

    Args:
        estimate: from `estimate`.
        available: bytes to be had; None asks the system.

    Raises NotEnoughMemoryError, with the numbers, if the estimate is larger.
    """
    if available is None:
        # `available` counts the page cache that can be given back. Weights are mapped from their
        # files and live in that cache, so those of a file read before are in `available` already
        # and are weighed against it here, not added. Mapped weights that do not fit would not end
        # the process but be read from disk again for every token, so they are refused as well.
        available = int(psutil.virtual_memory().available)
    if estimate.total > available:
        largest = max(estimate.roles, key=lambda role: role.total)
        raise NotEnoughMemoryError(
            f"the models need {mebibytes(estimate.total)} MiB together ({largest.role} alone"
            f" {mebibytes(largest.total)}), and {mebibytes(available)} MiB are free; close other"
            " programs, or take a smaller n_ctx, fewer slots or a smaller quantisation"
        )


def _kv_cache(header: GGUFHeader, n_cells: int, kv_bytes: float) -> int:
    """Return the bytes of all keys and values (llama.cpp: src/llama-kv-cache.cpp).

    Sliding windows are kept at full size (`swa_full`). The state of recurrent layers, a few MiB
    whatever n_ctx is, is not counted.
    """
    n_cells = -(-n_cells // 256) * 256  # as llama.cpp pads n_ctx
    heads = header.per_layer("attention.head_count")
    # If it is not stated, every head has its own keys and values.
    heads_kv = header.per_layer("attention.head_count_kv", max(heads))
    head_size = _integer(header, "embedding_length") // max(*heads, 1)
    keys = _integer(header, "attention.key_length", head_size)
    values = _integer(header, "attention.value_length", head_size)
    return int(sum(heads_kv) * (keys + values) * n_cells * kv_bytes)


def _compute(header: GGUFHeader, n_cells: int, n_outputs: int) -> int:
    """Return the bytes of the graph's buffer with flash attention (without, scores come on top).

    Per token of a micro-batch some rows of the embedding's and the feed-forward's width are alive
    at once, and a mask over the cells; then the output rows. The factors are fitted: on
    SmolLM2-135M at n_ctx 4096 a context took 68 MiB of resident memory and this file says 70.
    """
    widest = max(header.per_layer("feed_forward_length"), default=0)
    rows = 5 * _integer(header, "embedding_length") + 2 * widest
    mask = -(-n_cells // 256) * 256
    return 4 * (N_UBATCH * (rows + mask) + n_outputs * header.n_vocab)


def _integer(header: GGUFHeader, name: str, default: int = 0) -> int:
    return int(header.metadata.get(f"{header.architecture}.{name}", default))


def _cell(n_bytes: int) -> str:
    return f"{mebibytes(n_bytes, 1):>10}"
