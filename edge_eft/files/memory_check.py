"""Whether an estimate fits into what is free, and what smaller choice would.

Choices are computed with the estimate's own formulas, not guessed. It knows nothing of GGUF.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

from .. import system
from ..errors import NotEnoughMemoryError
from ..system import byte_size, mebibytes
from .buffers import CELL_STEP

if TYPE_CHECKING:
    from .memory import MemoryEstimate

Fit = Literal["yes", "tight", "no"]

_FOR_SYSTEM = 0.1  # of the machine's memory, which no closing of programs gives back
# Bits per weight of whole files, as llama.cpp's tools/quantize/README.md has them for Llama 3.1 8B.
_BITS_PER_WEIGHT = {
    "Q8_0": 8.5, "Q6_K": 6.56, "Q5_K_M": 5.7, "Q4_K_M": 4.89, "Q3_K_M": 4.0, "Q2_K": 3.16,
}  # fmt: skip


class Device(Protocol):
    """What is asked of a device; `backend.devices` has them."""

    @property
    def name(self) -> str:
        """Such as "CUDA0"; Metal's begin with "MTL" or "Metal"."""

    @property
    def kind(self) -> str:
        """Such as "GPU" or "integrated GPU"."""

    @property
    def free(self) -> int:
        """Bytes; of Apple's GPU what is left of its working-set limit."""


@dataclass(frozen=True)
class Free:
    """What is to be had, in bytes.

    Attributes:
        host: the machine's memory, or a container's part of it.
        device: of all GPUs together; None without one.
        unified: whether the GPUs use the machine's memory, so that all is in `host` as well.
    """

    host: int
    device: int | None = None
    unified: bool = False

    @classmethod
    def now(cls, devices: Iterable[Device] = ()) -> Free:
        """Return what the system and these devices say; those that are no GPU do not count."""
        # `available` counts the page cache that can be given back. Weights are mapped from their
        # files and live in that cache, so those of a file read before are in `available` already
        # and are weighed against it here, not added. Mapped weights that do not fit would not end
        # the process but be read from disk again for every token, so they are refused as well.
        host = system.memory().available
        gpus = [device for device in devices if device.kind in {"GPU", "integrated GPU"}]
        discrete = [gpu for gpu in gpus if not _is_unified(gpu)]
        chosen = discrete or gpus[:1]  # llama.cpp takes one integrated GPU, and only alone
        if not chosen:
            return cls(host)
        return cls(host, sum(gpu.free for gpu in chosen), unified=not discrete)


@dataclass(frozen=True)
class Verdict:
    """Whether an estimate fits, and what would.

    Attributes:
        fits: whether both parts do.
        needed, free: bytes of the machine's memory.
        device_needed, device_free: bytes of the GPUs' memory; None without one.
        n_ctx: the largest that fits, where a smaller one does; None if none would, or it fits.
        n_slots: the most slots that fit, likewise.
        n_gpu_layers: the most layers on the GPU that fit, likewise.
        role, role_bytes, role_type: the largest model, how many bytes its file may have, and a
            usual quantisation of it that has no more; "" if a smaller model is needed.
        text: one line with the numbers and the choices.
    """

    fits: bool
    needed: int
    free: int
    device_needed: int | None
    device_free: int | None
    n_ctx: int | None = None
    n_slots: int | None = None
    n_gpu_layers: int | None = None
    role: str | None = None
    role_bytes: int = 0
    role_type: str = ""
    text: str = ""


def fits(estimate: MemoryEstimate, free: Free | None = None) -> Verdict:
    """Return whether `estimate` fits into `free` (None: what the system says), and what would."""
    free = free or Free.now()
    needed, device_needed = _needs(estimate, free)
    if _over(estimate, free) <= 0:
        text = f"{mebibytes(needed)} MiB of {mebibytes(free.host)} MiB that are free"
        return Verdict(True, needed, free.host, device_needed, free.device, text=text)
    if needed > free.host:
        largest = max(estimate.roles, key=lambda role: role.total)
        alone = f"{largest.role} alone {mebibytes(largest.total)}"
        seen = f"need {mebibytes(needed)} MiB together ({alone}), and {mebibytes(free.host)} MiB"
    else:
        seen = f"need {mebibytes(device_needed or 0)} MiB of the GPU's memory"
        seen += f", and {mebibytes(free.device or 0)} MiB of it"
    verdict = Verdict(False, needed, free.host, device_needed, free.device, text=seen)
    verdict = _with_choices(verdict, estimate, free)
    return replace(
        verdict, text=f"the models {seen} are free; close other programs, or take {_said(verdict)}"
    )


def check(
    estimate: MemoryEstimate, available: int | None = None, *, devices: Iterable[Device] = ()
) -> None:
    """Refuse what does not fit.

    Args:
        estimate: from `estimate`.
        available: bytes of the machine's memory to be had; None asks the system.
        devices: those that llama.cpp computes on.

    Raises NotEnoughMemoryError, with the numbers and what would fit, if the estimate is larger.
    """
    free = Free.now(devices)
    if available is not None:
        free = replace(free, host=available)
    verdict = fits(estimate, free)
    if not verdict.fits:
        raise NotEnoughMemoryError(verdict.text)


def fit(n_bytes: int) -> Fit:
    """Return whether that much memory is to be had here: now, with programs closed, or not."""
    memory = system.memory()
    if n_bytes <= memory.available:
        return "yes"
    return "tight" if n_bytes <= memory.total * (1 - _FOR_SYSTEM) else "no"


def _is_unified(device: Device) -> bool:
    # ggml calls Apple's GPU a GPU; that its memory is the machine's is not in what it tells.
    return device.kind == "integrated GPU" or device.name.startswith(("MTL", "Metal"))


def _needs(estimate: MemoryEstimate, free: Free) -> tuple[int, int | None]:
    """Return the bytes of the machine's memory, and of the GPUs' where there is one."""
    if free.device is None:
        return estimate.total, None
    return estimate.total - (0 if free.unified else estimate.on_device), estimate.on_device


def _over(estimate: MemoryEstimate, free: Free) -> int:
    """Return the bytes by which the worse of both is exceeded; 0 or less if it fits."""
    needed, device_needed = _needs(estimate, free)
    over = needed - free.host
    return over if device_needed is None else max(over, device_needed - (free.device or 0))


def _with_choices(verdict: Verdict, estimate: MemoryEstimate, free: Free) -> Verdict:
    """Return the verdict with what would fit: of each dial the most, the others as they are."""
    demand = estimate.demand
    if demand is None:
        return verdict

    def over(name: str, value: int) -> int:
        return _over(demand.again(**{name: value}), free)

    def most(name: str, choices: Sequence[int]) -> int | None:
        """Return the largest of the ascending choices that fits."""
        n = bisect_left(choices, 1, key=lambda value: over(name, value))
        return choices[n - 1] if n else None

    n_gpu_layers = None
    if free.device is not None:  # each layer that leaves a GPU may be one too many for the machine
        deepest = max(header.n_layer for header in demand.headers.values()) + 1
        asked = deepest if demand.n_gpu_layers is None else min(demand.n_gpu_layers, deepest)
        layers = (n for n in reversed(range(asked)) if over("n_gpu_layers", n) <= 0)
        n_gpu_layers = next(layers, None)
    steps = range(CELL_STEP, demand.size.n_ctx, CELL_STEP)
    role = max(demand.headers, key=lambda each: demand.headers[each].n_bytes)
    header = demand.headers[role]
    n_bytes = max(0, header.n_bytes - _over(estimate, free))
    types = (
        name
        for name, bits in _BITS_PER_WEIGHT.items()
        if header.n_parameters * bits / 8 <= n_bytes < header.n_bytes
    )
    return replace(
        verdict,
        n_ctx=most("n_ctx", steps),
        n_slots=most("n_slots", range(1, demand.size.n_slots)),
        n_gpu_layers=n_gpu_layers,
        role=role,
        role_bytes=n_bytes,
        role_type=next(types, ""),
    )


def _said(verdict: Verdict) -> str:
    """Return the choices in words."""
    choices = []
    if verdict.n_ctx:
        choices.append(f"an n_ctx of {verdict.n_ctx} or less (--n-ctx)")
    if verdict.n_slots:
        choices.append(f"{verdict.n_slots} slot{'s' * (verdict.n_slots > 1)}")
    if verdict.n_gpu_layers is not None:
        choices.append(f"{verdict.n_gpu_layers} layers on the GPU (--gpu-layers)")
    if verdict.role is None:
        choices.append("a smaller n_ctx, fewer slots or a smaller quantisation")
    elif verdict.role_type:
        most = byte_size(verdict.role_bytes)
        choices.append(f"a {verdict.role} of {most} or less, such as {verdict.role_type}")
    elif not choices:
        choices.append("smaller models: no n_ctx and no quantisation of these would fit")
    return " or ".join(filter(None, (", ".join(choices[:-1]), choices[-1])))
