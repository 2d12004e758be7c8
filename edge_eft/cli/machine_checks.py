"""What `doctor` looks at in the machine: threads, memory, its speed, disks, the hub.

And what that means for a recipe: decoding reads every weight once for each token, so bytes and
bandwidth say what can be had at most.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import TYPE_CHECKING, Any

import psutil

from .. import system
from ..errors import EdgeEftError, HubError
from ..files.plain_text import reason
from ..system import byte_size, cache_directory, container_limits, mebibytes, state_dir
from .finding import NOTE, WARNING, Finding, foreign

if TYPE_CHECKING:
    from ..files.gguf_check import GGUFHeader
    from ..files.recipe import Recipe

GB = 1e9
BUFFER = 256 << 20  # bytes, larger than nearly all caches
BUDGET = 0.6  # seconds of reading
IN_CACHE = 64 << 20  # weights of this size may stay in the processor's caches
LOW_DISK = 20 << 30  # a family of a 14B model at 4 bits takes about this


def threads(trial_steps: Mapping[str, Any]) -> Finding:
    """Return how many threads a decode takes, and whether the machine lets it have them."""
    if "threads" not in trial_steps:
        return Finding("threads", "not known without llama.cpp")
    n_threads, why = trial_steps["threads"]
    n_logical = os.cpu_count() or 1
    value = f"{n_threads} of {n_logical} ({why})"
    data: dict[str, Any] = {"threads": n_threads, "logical": n_logical}
    quota = container_limits()[1]
    if quota is not None and quota < n_threads:
        value += f", and a container leaves {quota:g} CPUs"
        fix = f"threads that wait for their turn hold up the others: --threads {max(1, int(quota))}"
        return Finding("threads", value, NOTE, fix, data=data | {"quota": quota})
    if hasattr(os, "getloadavg"):
        load = round(os.getloadavg()[0], 1)
        value += f"; load {load:g}"
        data["load"] = load
        if load > 0.5 * n_logical:
            fix = "other programs are busy, and what is measured here is lower for it; close some"
            return Finding("threads", value, NOTE, fix, data=data)
    return Finding("threads", value, data=data)


def memory() -> Finding:
    """Return what memory there is, and what is free of it."""
    ram, swap = psutil.virtual_memory(), psutil.swap_memory()
    available = system.memory().available
    value = f"{mebibytes(available)} of {mebibytes(ram.total)} MiB free"
    value += f"; swap: {mebibytes(swap.used)} of {mebibytes(swap.total)} MiB used"
    data = {"total": ram.total, "available": available}
    data |= {"swap_total": swap.total, "swap_used": swap.used}
    limit = container_limits()[0]
    if limit is not None and limit < ram.total:
        value += f"; a container leaves {mebibytes(limit)} MiB"
        fix = "what needs more is killed; give the container more memory for larger models"
        return Finding("memory", value, NOTE, fix, data=data | {"limit": limit})
    if swap.used > ram.total // 10:
        fix = "weights that are swapped out are read from disk for every token; close programs"
        return Finding("memory", value, NOTE, fix, data=data)
    return Finding("memory", value, data=data)


# -- speed ---------------------------------------------------------------------------------


def bandwidth(n_threads: int | None) -> Finding:
    """Return how fast `n_threads` threads read memory; None: as many as there are cores."""
    name, n_threads = "bandwidth", n_threads or psutil.cpu_count(logical=False) or 1
    if system.memory().available < 2 * BUFFER:
        return Finding(name, "not measured: too little memory is free", NOTE, "close programs")
    try:
        rate = read_rate(n_threads)
    except (ImportError, MemoryError, RuntimeError) as error:  # NumPy, memory, a thread
        return Finding(name, f"not measured: {foreign(str(error).splitlines()[0])}", WARNING)
    each = f"{n_threads} thread{'s' * (n_threads > 1)}"
    value = f"{rate / GB:.1f} GB/s of memory are read by {each} of the CPU"
    return Finding(name, value, data={"bytes_per_second": round(rate), "threads": n_threads})


def read_rate(n_threads: int, n_bytes: int = BUFFER, budget: float = BUDGET) -> float:
    """Return the bytes per second that `n_threads` threads read together, the best of a few."""
    import numpy as np

    buffer = np.ones(n_bytes, np.uint8)
    shares = np.array_split(buffer, n_threads)
    best, begun = math.inf, perf_counter()
    with ThreadPoolExecutor(n_threads) as pool:
        while True:
            before = perf_counter()
            for _ in pool.map(np.maximum.reduce, shares):  # without the GIL, 32 at once or more
                pass
            now = perf_counter()
            best = min(best, now - before)
            if now - begun > budget:
                return buffer.nbytes / best


def bytes_read(header: GGUFHeader) -> int:
    """Return the bytes of a model's weights that decoding one token reads.

    Of a table of embeddings that is not the output as well it is one row; of a mixture the experts
    that are used.
    """
    names = {tensor.name for tensor in header.tensors}
    used, count = (header.integer(f"expert{part}_count") for part in ("_used", ""))
    total = 0.0
    for tensor in header.tensors:
        if tensor.name == "token_embd.weight" and "output.weight" in names:
            continue
        if tensor.name == "per_layer_token_embd.weight":
            continue
        share = used / count if "_exps." in tensor.name and 0 < used < count else 1.0
        total += share * tensor.n_bytes
    return round(total)


def _sizes(recipe: Recipe) -> dict[str, int]:
    """Return the bytes that each context in use reads for a token; -1 where they are not known."""
    from ..files.memory import headers
    from ..files.recipe import HubFile, shared_contexts

    roles = recipe.roles()
    read = headers({role: spec for role, spec in roles.items() if not spec.needs_pull})
    used = {"base"}
    for delta in recipe.deltas.values():
        if delta.weight:  # else its models are loaded, and asked nothing
            used |= {f"tuned:{delta.name}", f"reference:{delta.name}"}
    sizes = {}
    for names, spec in shared_contexts(roles):
        if not used & {*names}:
            continue
        if spec.needs_pull:
            size = spec.source.size if isinstance(spec.source, HubFile) else None
            sizes[names[0]] = -1 if size is None else size
        else:
            adapter = spec.lora.stat().st_size if spec.lora else 0
            sizes[names[0]] = bytes_read(read[names[0]]) + adapter
    return sizes


def recipe_speed(recipe: Recipe, rate: float, has_gpu: bool) -> Finding:
    """Return how many tokens per second of `recipe` the bandwidth `rate` allows.

    A token of plain emulation takes one of each context. Drafts go beyond it; the KV cache, the
    arithmetic and everything else stay below.
    """
    name = "recipe"
    try:
        sizes = _sizes(recipe)
    except (EdgeEftError, OSError) as error:
        fix = "edge-eft show says more, with the files' paths"
        return Finding(name, foreign(str(error)), WARNING, fix)
    if min(sizes.values()) < 0:
        value = f"{foreign(recipe.name)}: not on this machine, and of unknown size"
        return Finding(name, value, advice=f"edge-eft pull {foreign(recipe.name)} gets it")
    each = ", ".join(f"{role} {mebibytes(size, 1)}" for role, size in sizes.items())
    value = f"{foreign(recipe.name)} reads {each} MiB a token"
    if recipe.needs_pull:
        value += " (by the sizes of the files, not pulled yet; a mixture of experts reads less)"
    data: dict[str, Any] = {"bytes_per_token": sizes}
    together = sum(sizes.values())
    if together < IN_CACHE:
        return Finding(name, f"{value}: it may stay in caches, where memory is no limit", data=data)
    if not rate:
        return Finding(name, value, data=data)
    base, plain = rate / sizes["base"], rate / together
    data |= {"base_tps": base, "plain_tps": plain}
    value += f": at most {base:.1f} tokens/s of the base alone, {plain:.1f} emulated without drafts"
    value += ", if the CPU did it all" * has_gpu
    return Finding(name, value, data=data)


# -- disks, the hub, the environment --------------------------------------------------------


def disks() -> Iterator[Finding]:
    """Yield what is free where models, recipes and fetched things are kept; equal ones once."""
    from ..files import hub_cache

    places: dict[int, tuple[list[str], int]] = {}
    for name, place in (
        ("hub cache", hub_cache.cache_directory),
        ("recipes", state_dir),
        ("cache", cache_directory),
    ):
        try:
            path = place().absolute()
            there = next(folder for folder in (path, *path.parents) if folder.exists())
            names, _ = places.setdefault(os.stat(there).st_dev, ([], shutil.disk_usage(there).free))
        except (OSError, HubError) as error:
            about = f"{name}: {foreign(reason(error))}"
            yield Finding("disk", about, WARNING, "set HOME, HF_HOME or EDGE_EFT_HOME")
            continue
        names.append(name)
    for names, free in places.values():
        value = f"{byte_size(free)} free for the {', '.join(names)}"
        data = {"places": names, "free": free}
        if "hub cache" in names and free < LOW_DISK:
            fix = "three files of a larger family may not fit; HF_HOME names another disk"
            yield Finding("disk", value, NOTE, fix, data=data)
        else:
            yield Finding("disk", value, data=data)


def hub(online: bool) -> Finding:
    """Return whether the hub can be reached, if that was asked for; nothing else is sent."""
    if not online:
        return Finding("hub", "not asked; --online asks it")
    try:
        from ..files.hub import reachable

        answers, words = reachable()
    except (ImportError, EdgeEftError) as error:
        answers, words = False, str(error)
    if answers:
        return Finding("hub", foreign(words))
    return Finding("hub", foreign(words), WARNING, "all but pull works without it")


_VARIABLES = ("EDGE_EFT_", "HF_", "HUGGINGFACE_", "GGML_", "LLAMA_", "CUDA_", "OMP_", "GOMP_")
_ALSO = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "CMAKE_ARGS", "LD_PRELOAD")


def environment() -> Finding:
    """Return which variables are set that change what happens; their values stay here."""
    names = sorted(
        name
        for name in os.environ
        if name.startswith(_VARIABLES) or name in _ALSO or name.lower() in _ALSO
    )
    return Finding("environment", f"set: {', '.join(names) or 'nothing'}", data={"names": names})
