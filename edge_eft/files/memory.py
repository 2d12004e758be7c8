"""What the models of one emulation will need together, before any of them is loaded.

An estimate from the headers alone, which may still be on the hub: weights and vocabulary (once per
file, however many contexts run on it), KV cache, working memory and logits (once per context), with
the sizes of `buffers`; `memory_check` weighs it against what is free. No llama_cpp is needed.

What is counted is what the process's resident memory grows by, at its peak, over a process that has
imported everything and loaded nothing: pages of the model files, which are mapped, and all that is
allocated. Not counted are pages of a file beside a copy of them that llama.cpp has rearranged for
this CPU (Q4_0 and some K-quants): they are read once and the system takes them back when it wants.

On a GPU the same parts lie elsewhere: weights, cache and working memory of the layers that it
takes. Its memory is weighed on its own, and of unified memory (Apple's) all parts count as both.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import ModelFileError
from . import buffers
from .adapter_check import check_adapter_fits
from .buffers import F16_BYTES, Q8_0_BYTES, ContextSize
from .gguf_check import GGUFHeader, read_header
from .gguf_header import Walked
from .hub_file import HubFile
from .memory_check import Free, Verdict, check, fits
from .recipe import ModelSpec, shared_contexts

__all__ = [
    "F16_BYTES",
    "Q8_0_BYTES",
    "Free",
    "MemoryEstimate",
    "RoleMemory",
    "Verdict",
    "check",
    "estimate",
    "fits",
    "headers",
]

# Measured: what the libraries' code and the allocator's rounding add once anything runs at all.
RUNTIME_BYTES = 7 << 20
# Of what is allocated: how much more than the sum an allocator holds, and a little for safety.
ALLOCATOR_SHARE = 0.03
# Measured: rows of logits that a step's arithmetic holds for a slot beside llama.cpp's own.
ROWS_OF_A_SLOT = 6


@dataclass(frozen=True)
class RoleMemory:
    """What one role adds, in bytes. `shares` names the role whose weights or context it uses.

    `on_device` is the part of `total` that lies on a GPU.
    """

    role: str
    weights: int
    kv_cache: int
    compute: int
    logits: int
    shares: str | None = None
    on_device: int = 0

    @property
    def total(self) -> int:
        """Sum of the parts, in bytes."""
        return self.weights + self.kv_cache + self.compute + self.logits


@dataclass(frozen=True)
class MemoryEstimate:
    """The roles' needs; what is shared is counted at the first role that has it.

    `runtime` is what the process takes once, whatever the models are, and `demand` what was
    estimated, so that a smaller choice can be.
    """

    roles: tuple[RoleMemory, ...]
    runtime: int = 0
    demand: Demand | None = field(default=None, repr=False, compare=False)

    @property
    def total(self) -> int:
        """Sum over the roles and the runtime, in bytes."""
        return sum(role.total for role in self.roles) + self.runtime

    @property
    def on_device(self) -> int:
        """The part of `total` that lies on GPUs."""
        return sum(role.on_device for role in self.roles)


@dataclass(frozen=True)
class Demand:
    """What an estimate is made for; arguments as of `estimate`."""

    roles: Mapping[str, ModelSpec]
    headers: Mapping[str, GGUFHeader]
    size: ContextSize
    n_gpu_layers: int | None

    def estimate(self) -> MemoryEstimate:
        """Return what it needs."""
        rows: list[RoleMemory] = []
        weights_of: dict[str, str] = {}  # model or adapter → the role that has it
        contexts = shared_contexts(self.roles)
        first = {role: names[0] for names, _ in contexts for role in names}
        for role, spec in self.roles.items():
            header = self.headers[role]
            model = _identity(spec, spec.file)
            shares = first[role] if first[role] != role else weights_of.get(model)
            row = RoleMemory(role, 0, 0, 0, 0, shares)
            if model not in weights_of:
                row = self._with_model(row, header)
            if spec.lora and _identity(spec, spec.lora) not in weights_of:
                row = replace(row, weights=row.weights + self._adapter_size(spec))
                weights_of[_identity(spec, spec.lora)] = role
            if first[role] == role:
                row = self._with_context(row, header, adapted=spec.lora is not None)
            weights_of.setdefault(model, role)
            rows.append(row)
        n_vocab = max(header.n_vocab for header in self.headers.values())
        steps = ROWS_OF_A_SLOT * self.size.n_slots * n_vocab * 4
        allocated = sum(row.kv_cache + row.compute + row.logits for row in rows)
        runtime = RUNTIME_BYTES + steps + int(ALLOCATOR_SHARE * allocated)
        return MemoryEstimate(tuple(rows), runtime, self)

    def again(self, **changes: int | None) -> MemoryEstimate:
        """Return what another n_ctx, n_slots or n_gpu_layers would need."""
        layers = changes.pop("n_gpu_layers", self.n_gpu_layers)
        n_slots = changes.get("n_slots") or self.size.n_slots
        rows_of_a_slot = self.size.n_outputs // self.size.n_slots
        sizes: dict[str, Any] = {"n_outputs": rows_of_a_slot * n_slots, **changes}
        return replace(self, size=replace(self.size, **sizes), n_gpu_layers=layers).estimate()

    def _with_model(self, row: RoleMemory, header: GGUFHeader) -> RoleMemory:
        """Add the weights and the vocabulary. The embedding of tokens stays with the CPU."""
        per_layer, output = buffers.layers_weights(header), buffers.output_weights(header)
        taken = per_layer[self._first_on_gpu(header) :]
        device = sum(taken) + (output if self._on_gpu() else 0)
        copied = output if self._on_gpu() and buffers.is_tied(header) else 0
        weights = row.weights + header.n_bytes + copied + buffers.vocabulary(header)
        return replace(row, weights=weights, on_device=row.on_device + device)

    def _with_context(self, row: RoleMemory, header: GGUFHeader, *, adapted: bool) -> RoleMemory:
        """Add cache, working memory and output rows. Those come back to the CPU's memory."""
        caches = buffers.layers_kv(header, self.size)
        graph = buffers.graph(header, self.size, adapted=adapted)
        device = sum(caches[self._first_on_gpu(header) :])
        device += graph if self._on_gpu() else 0
        saved = buffers.saved_states(header, self.size) if row.role.startswith("tuned:") else 0
        return replace(
            row,
            kv_cache=row.kv_cache + sum(caches),
            compute=row.compute + graph + buffers.tables(header, self.size) + saved,
            logits=row.logits + buffers.logits(header, self.size),
            on_device=row.on_device + device,
        )

    def _on_gpu(self) -> bool:
        return self.n_gpu_layers is None or self.n_gpu_layers > 0

    def _first_on_gpu(self, header: GGUFHeader) -> int:
        """Return the first layer that a GPU takes: the last ones go there, the output first."""
        if self.n_gpu_layers is None:
            return 0
        return min(max(header.n_layer + 1 - self.n_gpu_layers, 0), header.n_layer)

    def _adapter_size(self, spec: ModelSpec) -> int:
        if spec.needs_pull and isinstance(spec.source, HubFile):
            return spec.source.size or 0
        return os.stat(spec.lora or spec.file).st_size


def headers(roles: Mapping[str, ModelSpec]) -> dict[str, GGUFHeader]:
    """Return the checked header of each role's model file, reading a shared file once.

    Raises ModelFileError if a file is not a loadable model, an adapter stands for a model or a
    model for an adapter, or an adapter does not fit its model.
    """
    read: dict[str, GGUFHeader] = {}
    walked = Walked()  # the models of a recipe have one vocabulary, and it is most of a header
    for spec in roles.values():
        for path in filter(None, (spec.file, spec.lora)):
            key = os.path.realpath(path)
            if key not in read:
                read[key] = read_header(path, walked=walked)
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
    flash_attn: bool = True,
    n_gpu_layers: int | None = 0,
) -> MemoryEstimate:
    """Return what `roles` need together; no file is needed but adapters that are here.

    Roles of one side (base, tuned or reference) with the same model, adapter and prompt format
    share a context; roles with the same model share its weights.

    Args:
        roles: role → model, as from `Recipe.roles`.
        headers: role → header of its model file, as from `headers`.
        n_ctx: tokens per slot.
        n_slots: sequences per context, each with a cache of n_ctx, in steps of 256.
        n_outputs: most logit rows of one decode, over all slots.
        kv_bytes: bytes per element of the KV cache.
        flash_attn: whether attention's scores are never stored as a whole.
        n_gpu_layers: layers of each model on a GPU, its output included; None: all; 0: no GPU.
    """
    size = ContextSize(n_ctx, n_slots, n_outputs, kv_bytes, flash_attn)
    return Demand(roles, headers, size, n_gpu_layers).estimate()


def _identity(spec: ModelSpec, path: os.PathLike[str]) -> str:
    """Return what names a file, here or on the hub: repositories have files of one name."""
    if spec.needs_pull and isinstance(spec.source, HubFile):
        return f"{spec.source.repo}@{spec.source.revision}:{os.fspath(path)}"
    return os.path.realpath(path)
