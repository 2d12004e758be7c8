"""One step of the emulation against the three bare decodes that it cannot do without.

Step by step at the same position: one `Emulator.step` without drafts, and the bare decodes of the
same token on contexts of the same kind, twice, in an order that is drawn each time. The ratio of
the two bare ones (A/A) says what the machine's noise makes of a ratio that is 1.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_eft.bench.report import BARE_SUM, ratio
from edge_eft.bench.ways import active_contexts, bare_context, room_for
from edge_eft.engine.emulator import Emulator
from edge_eft.engine.request import Prompt, Request
from edge_eft.logits.combiner import Combiner, log_partition
from edge_eft.logits.sampling import sample
from edge_eft.logits.sampling_params import Sampling

N_PAIRS = 30  # at least
LARGE_VOCABULARY = 152_000


@dataclass(frozen=True)
class Overhead:
    """Seconds of each step, and of the bare decodes of its token, twice; one entry per pair."""

    steps: NDArray[np.float64]
    bare: NDArray[np.float64]
    bare_again: NDArray[np.float64]
    n_vocab: int


def measure_steps(
    emulator: Emulator,
    prompts: Sequence[Prompt],
    *,
    n_tokens: int,
    rounds: int,
    progress: Callable[[int], None],
) -> Overhead:
    """Measure greedy replies of at most `n_tokens`: one per round, and more until 30 pairs."""
    runners = active_contexts(emulator)
    n_ctx = room_for(emulator, prompts, n_tokens)
    bares = [bare_context(emulator, runner, n_ctx) for runner in runners]
    rng = random.Random(0)
    times: dict[str, list[float]] = {"step": [], "bare": [], "bare again": []}
    last = [0]
    steps: list[Any] = []

    def step() -> float:
        begun = perf_counter()
        steps.extend(emulator.step())
        return perf_counter() - begun

    def bare() -> float:
        begun = perf_counter()
        for context in bares:
            context.decode_each(last)
        seconds = perf_counter() - begun
        for context in bares:
            context.take_back(1)
        return seconds

    measured = {"step": step, "bare": bare, "bare again": bare}
    n_replies = 0
    try:
        while n_replies < rounds or len(times["step"]) < N_PAIRS:
            prompt = prompts[n_replies % len(prompts)]
            request = Request(prompt, max_tokens=n_tokens, temperature=0.0, draft=0)
            for runner, context in zip(runners, bares, strict=True):
                context.start(runner.encode(prompt))
            identity = emulator.submit(request)
            try:
                steps.clear()
                while not steps:  # a long prompt takes several
                    steps += emulator.step()
                while not steps[-1].finish_reason:
                    last[0] = steps[-1].token
                    for name in rng.sample(list(measured), len(measured)):
                        times[name].append(measured[name]())
                    for context in bares:
                        context.decode_each(last)
            finally:
                emulator.cancel(identity)
            n_replies += 1
            progress(n_replies)
            if n_replies >= rounds + 20 * N_PAIRS:
                break
    finally:
        for context in bares:
            context.close()
    return Overhead(
        np.array(times["step"]),
        np.array(times["bare"]),
        np.array(times["bare again"]),
        emulator.vocabulary.n_vocab,
    )


def measure_choice(n_vocab: int = LARGE_VOCABULARY, n: int = 50) -> dict[str, list[float]]:
    """Return seconds to combine three rows and choose a token: greedy, and by default.

    Args:
        n_vocab: tokens; the default is the vocabulary of the Qwen family.
        n: repetitions.
    """
    rng = np.random.default_rng(0)
    coefficients = {"base": 1.0, "tuned": 1.0, "reference": -1.0}
    rows = [
        {role: 3 * rng.standard_normal((1, n_vocab), np.float32) for role in coefficients}
        for _ in range(4)
    ]
    combiner = Combiner(n_vocab)
    out = np.empty((1, n_vocab), np.float32)
    scratch = np.empty_like(out)
    ways = {"greedy": Sampling(temperature=0.0), "sampled": Sampling()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(n):
        for name, sampling in ways.items():
            begun = perf_counter()
            combiner.combine(rows[i % 4], coefficients, out=out, scratch=scratch)
            log_partition(out, scratch)
            sample(out[0], sampling, i, {})
            seconds[name].append(perf_counter() - begun)
    return seconds


def overhead_object(overhead: Overhead, choice: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return the overhead of a step as plain data."""
    return {
        "pairs": len(overhead.steps),
        "n_vocab": overhead.n_vocab,
        "step_ms": 1000 * median(overhead.steps),
        "bare_sum_ms": 1000 * median(overhead.bare),
        "step_ratio": ratio(overhead.steps.tolist(), overhead.bare.tolist()),
        "aa_ratio": ratio(overhead.bare_again.tolist(), overhead.bare.tolist()),
        "choice_152k_ms": {name: 1000 * median(seconds) for name, seconds in choice.items()},
    }


def overhead_table(result: Mapping[str, Any]) -> str:
    """Return `overhead_object` as a table for people."""
    step, noise = result["step_ratio"], result["aa_ratio"]
    choice = ", ".join(f"{name} {ms:.2f} ms" for name, ms in result["choice_152k_ms"].items())
    return "\n".join(
        (
            f"{result['pairs']} pairs, vocabulary of {result['n_vocab']:,}",
            f"{'a step':<28}{result['step_ms']:.3f} ms",
            f"{BARE_SUM:<28}{result['bare_sum_ms']:.3f} ms",
            f"{'step / bare':<28}{_interval(step)}",
            f"{'bare / bare (A/A)':<28}{_interval(noise)}",
            f"{'combine + choose at 152,000':<28}{choice}",
        )
    )


def _interval(about: Mapping[str, float]) -> str:
    return f"{about['median']:.4f}   95 % interval {about['low']:.4f} … {about['high']:.4f}"
