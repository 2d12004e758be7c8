"""Figures as one object.

Medians over rounds, with quartiles. Two ways are compared by the ratios of the rounds, in which
both answered the same prompts in the same minute; the interval is a bootstrap of their median.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil

from ..backend import gpu_available
from .cost_model import CostModel
from .measure import AUTO, EMULATED, Figures
from .ways import Plan

BASE, AGAIN = "base alone", "base alone, again"
BARE_SUM = "sum of the bare decodes"
N_BOOTSTRAP = 4000


# -- statistics ----------------------------------------------------------------------------


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median, and the quartiles below and above it."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    return float(middle), float(low), float(high)


def ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """Return the median of the paired ratios and its bootstrap interval of 95 %."""
    ratios = np.array(above) / np.array(below)
    drawn = np.random.default_rng(0).integers(len(ratios), size=(N_BOOTSTRAP, len(ratios)))
    low, high = np.percentile(np.median(ratios[drawn], axis=1), (2.5, 97.5))
    return {"median": float(np.median(ratios)), "low": float(low), "high": float(high)}


# -- the machine ---------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "cores": psutil.cpu_count(logical=False),
        "usable_cpus": usable,
        "memory_mib": round(psutil.virtual_memory().total / 2**20),
        "gpu": gpu_available(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "llama_cpp_python": _version("llama-cpp-python"),
        "edge_eft": _version("edge-eft"),
        "load_average": round(psutil.getloadavg()[0], 2),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


# -- one object ----------------------------------------------------------------------------


def rates(figures: Figures) -> dict[str, list[float]]:
    """Return way → tokens per second of each round; the sum of the bare decodes is a way too."""
    found = {name: tally.rates() for name, tally in figures.tallies.items()}
    alone = [found[way] for way in figures.roles.values()]
    found[BARE_SUM] = [1 / sum(1 / rate for rate in row) for row in zip(*alone, strict=True)]
    return found


def cost_model(figures: Figures) -> CostModel:
    """Return the cost model from the median times of the run's own bare decodes."""
    medians = {
        name: {n: median(seconds) for n, seconds in costs.items()}
        for name, costs in figures.decodes.items()
    }
    verifiers = [costs for name, costs in medians.items() if name != figures.drafter]
    return CostModel(medians[figures.drafter][1], verifiers)


def as_object(figures: Figures, plan: Plan, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures as plain data; tokens per second are medians over rounds.

    Args:
        figures: the figures of a run.
        plan: the plan that it followed.
        about: what was run, put first.
    """
    found = rates(figures)
    tps = {name: quartiles(values)[0] for name, values in found.items()}
    drafts = {str(k): f"drafts of {k}" for k in plan.drafts}
    # "auto" drafts what is likely right and leaves the rest: its rate says less than theirs.
    acceptance = _acceptance(figures, *drafts.values())
    lengths = [len(reply) for reply in figures.replies]
    costs = cost_model(figures)
    predicted = costs.best_rate(acceptance, lengths)
    return {
        **about,
        "base_alone_tps": tps[BASE],
        "tuned_alone_tps": tps[figures.roles[figures.drafter]],
        "bare_sum_tps": tps[BARE_SUM],
        "emulated_tps": tps[EMULATED],
        "drafted_tps": {k: tps[name] for k, name in drafts.items()},
        "auto_tps": tps[AUTO],
        "acceptance": acceptance,
        "acceptance_of": {
            **{k: _acceptance(figures, name) for k, name in drafts.items()},
            AUTO: _acceptance(figures, AUTO),
        },
        "predicted_auto_tps": predicted,
        "predicted_endless_tps": costs.best_endless_rate(acceptance),
        "predicted_emulated_tps": costs.rate(acceptance, 0, lengths),
        "prefill_tps": median(n / seconds for n, seconds in figures.prefill),
        "first_turn_ttft_s": median(figures.first_turns),
        "second_turn_ttft_s": median(figures.second_turns) if figures.second_turns else None,
        "peak_mib": figures.peak_bytes / 2**20,
        "quartiles_tps": {name: quartiles(values)[1:] for name, values in found.items()},
        "ratios": _ratios(found, drafts.values(), figures.extra),
        "equal": {
            name: [tally.equal, tally.compared]
            for name, tally in figures.tallies.items()
            if name in (EMULATED, AUTO, *figures.extra, *drafts.values())
        },
        "shares": {name: _shares(figures, name) for name in (EMULATED, AUTO)},
        "decode_ms": {
            name: {n: 1000 * median(seconds) for n, seconds in sorted(costs.items())}
            for name, costs in figures.decodes.items()
        },
        "reply_tokens": {
            "mean": sum(map(len, figures.replies)) / len(figures.replies),
            "least": min(map(len, figures.replies)),
            "most": max(map(len, figures.replies)),
        },
        "machine": machine(),
    }


def _acceptance(figures: Figures, *ways: str) -> float:
    """Return the accepted share of the tested drafts."""
    tallies = [figures.tallies[way] for way in ways]
    tested = sum(tally.tested for tally in tallies)
    return sum(tally.accepted for tally in tallies) / tested if tested else 0.0


def _ratios(
    found: Mapping[str, list[float]], drafted: Iterable[str], extra: Sequence[str]
) -> dict[str, dict[str, float]]:
    best = max((EMULATED, *drafted), key=lambda name: median(found[name]))
    pairs = {
        "base alone, again / base alone (A/A)": (AGAIN, BASE),
        "auto / base alone": (AUTO, BASE),
        "auto / emulated": (AUTO, EMULATED),
        "auto / best fixed": (AUTO, best),
        "emulated / sum of the bare decodes": (EMULATED, BARE_SUM),
        "emulated / base alone": (EMULATED, BASE),
    }
    for name in extra:
        pairs |= {f"{way} / {name}": (way, name) for way in (AUTO, EMULATED)}
    return {name: ratio(found[above], found[below]) for name, (above, below) in pairs.items()}


def _shares(figures: Figures, way: str) -> dict[str, float]:
    """Return part → share of the wall clock."""
    tally = figures.tallies[way]
    timings, total = tally.timings, sum(tally.seconds)
    # A first token's decodes count as the prompt's, of which only the last token is left here.
    parts = timings.decodes
    parts |= {"combine": timings.combine, "sample": timings.sample, "text": timings.text}
    shares = {name: seconds / total for name, seconds in parts.items()} if total else {}
    return shares | {"other": max(0.0, 1 - sum(shares.values()))}
