"""memory_check: what fits, what is refused, and that what is advised really fits."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import psutil
import pytest
from helpers.tiny_models import write_random

from edge_eft.errors import NotEnoughMemoryError
from edge_eft.files import memory
from edge_eft.files.memory_check import Free, fit
from edge_eft.files.recipe import from_files

MIB = 2**20


class Device(NamedTuple):
    name: str
    kind: str
    free: int


def by_hand(n_bytes: int) -> memory.MemoryEstimate:
    return memory.MemoryEstimate((memory.RoleMemory("base", n_bytes, 0, 0, 0),))


@pytest.fixture(scope="module")
def roles(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("models")
    base = write_random(folder / "base.gguf", seed=1, d=512, n_layer=8)
    small = [write_random(folder / f"{i}.gguf", seed=i, d=64) for i in (2, 3)]
    return from_files(base, *small).roles()


def estimated(roles: dict, **changes: int | None) -> memory.MemoryEstimate:
    options = {"n_ctx": 4096, "n_slots": 4, "n_outputs": 64} | changes
    return memory.estimate(roles, memory.headers(roles), **options)


def test_check_refuses_with_numbers_just_above_what_is_free() -> None:
    rows = (memory.RoleMemory("base", 900 * MIB, 100 * MIB, 0, 0),)
    estimate = memory.MemoryEstimate(rows)
    memory.check(estimate, 1000 * MIB)
    with pytest.raises(NotEnoughMemoryError) as caught:
        memory.check(estimate, 999 * MIB)
    assert "need 1,000 MiB together (base alone 1,000), and 999 MiB are free" in str(caught.value)
    assert "smaller n_ctx" in str(caught.value)


def test_check_refuses_by_what_the_system_says_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    memory.check(by_hand(MIB))
    free = SimpleNamespace(available=MIB - 1, total=16 << 30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(NotEnoughMemoryError):
        memory.check(by_hand(MIB))


def test_what_is_advised_fits_and_the_next_larger_does_not(roles: dict) -> None:
    estimate = estimated(roles)
    free = Free(estimate.total - 40 * MIB)
    verdict = memory.fits(estimate, free)
    assert not verdict.fits
    assert verdict.n_ctx
    assert verdict.n_slots
    assert verdict.n_ctx % 256 == 0
    assert memory.fits(estimated(roles, n_ctx=verdict.n_ctx), free).fits
    assert not memory.fits(estimated(roles, n_ctx=verdict.n_ctx + 256), free).fits
    slots = verdict.n_slots
    assert memory.fits(estimated(roles, n_slots=slots, n_outputs=16 * slots), free).fits
    more = estimated(roles, n_slots=slots + 1, n_outputs=16 * (slots + 1))
    assert not memory.fits(more, free).fits
    assert f"an n_ctx of {verdict.n_ctx} or less (--n-ctx)" in verdict.text
    assert f"{slots} slot" in verdict.text
    assert "\n" not in verdict.text


def test_a_smaller_quantisation_of_the_largest_model_is_named_with_its_size(roles: dict) -> None:
    estimate = estimated(roles, n_ctx=256, n_slots=1, n_outputs=16)
    header = memory.headers(roles)["base"]
    verdict = memory.fits(estimate, Free(estimate.total - header.n_bytes // 3))
    assert (verdict.n_ctx, verdict.n_slots) == (None, None), "neither can be smaller"
    assert verdict.role == "base"
    assert verdict.role_bytes == header.n_bytes - header.n_bytes // 3
    assert verdict.role_type == "Q4_K_M", "5.7 bits of Q8_0's 8.5 are more than two thirds"
    assert verdict.text.endswith("MB or less, such as Q4_K_M")


def test_what_no_choice_makes_fit_needs_smaller_models(roles: dict) -> None:
    verdict = memory.fits(estimated(roles, n_ctx=256, n_slots=1, n_outputs=16), Free(MIB))
    assert (verdict.n_ctx, verdict.n_slots, verdict.role_type) == (None, None, "")
    assert "smaller models" in verdict.text


def test_a_gpu_is_weighed_on_its_own_and_fewer_layers_are_offered(roles: dict) -> None:
    estimate = estimated(roles, n_gpu_layers=None)
    on_gpu, here = estimate.on_device, estimate.total - estimate.on_device
    assert memory.fits(estimate, Free(here, on_gpu)).fits
    assert not memory.fits(estimate, Free(here - 1, on_gpu)).fits
    verdict = memory.fits(estimate, Free(10 * estimate.total, on_gpu // 2))
    assert (verdict.device_needed, verdict.device_free) == (on_gpu, on_gpu // 2)
    assert verdict.n_gpu_layers is not None
    fewer = estimated(roles, n_gpu_layers=verdict.n_gpu_layers)
    assert fewer.on_device <= on_gpu // 2
    assert estimated(roles, n_gpu_layers=verdict.n_gpu_layers + 1).on_device > on_gpu // 2
    assert "MiB of the GPU's memory" in verdict.text
    assert f"{verdict.n_gpu_layers} layers on the GPU (--gpu-layers)" in verdict.text


def test_unified_memory_counts_as_both(roles: dict) -> None:
    """Apple: the GPU's limit is smaller than the machine's memory, and all parts lie in that."""
    estimate = estimated(roles, n_gpu_layers=None)
    unified = Free(estimate.total, estimate.on_device, unified=True)
    assert memory.fits(estimate, unified).fits
    assert not memory.fits(estimate, Free(estimate.total - 1, 10**12, unified=True)).fits
    assert not memory.fits(estimate, Free(10**12, estimate.on_device - 1, unified=True)).fits


@pytest.mark.parametrize(
    ("devices", "device", "unified"),
    [
        ([], None, False),
        ([Device("CPU", "CPU", 99)], None, False),
        ([Device("CUDA0", "GPU", 5), Device("CUDA1", "GPU", 7)], 12, False),
        ([Device("MTL0", "GPU", 5), Device("CPU", "CPU", 99)], 5, True),
        ([Device("Vulkan0", "integrated GPU", 5)], 5, True),
        ([Device("Vulkan0", "integrated GPU", 5), Device("Vulkan1", "GPU", 7)], 7, False),
    ],
)
def test_what_counts_as_the_gpus_memory(
    devices: list[Device], device: int | None, unified: bool
) -> None:
    free = Free.now(devices)
    assert (free.device, free.unified) == (device, unified)
    assert free.host > 0


def test_this_build_has_no_gpu_or_says_what_is_free_on_it() -> None:
    from edge_eft.backend.devices import devices

    found = devices()
    assert any(device.kind == "CPU" for device in found)
    gpus = [device for device in found if "GPU" in device.kind]
    assert (Free.now(found).device is None) == (not gpus)


def test_an_estimate_that_fits_says_so_in_numbers(roles: dict, tmp_path: Path) -> None:
    verdict = memory.fits(estimated(roles), Free(10**12))
    assert verdict.fits
    assert verdict.text.endswith("MiB of 953,674 MiB that are free")


def test_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SimpleNamespace(available=6 << 30, total=16 << 30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert [fit(n << 30) for n in (6, 7, 14, 15, 100)] == ["yes", "tight", "tight", "no", "no"]
