"""What a delta does to the base's choices, and what that costs: a short look, not a benchmark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from ..engine.emulator import Emulator
from ..engine.prompting import runner_of
from ..engine.reply import Generation
from ..logits.weights import Weights
from .rows import AT_ONCE, LogProbs, Rows, greedy_reply, reply_rows, with_end

QUESTIONS = (
    "Why is the sky blue?",
    "What is the capital of Italy?",
    "How do I boil an egg?",
    "Name three primary colors.",
    "Write a short sentence about the sea.",
)
MAX_TOKENS = 32
_FOR_BASE = 5.0  # seconds, if there is no time left


@dataclass(frozen=True)
class Effect:
    """What a delta does along the emulation's greedy replies.

    Attributes:
        n_tokens: of these replies.
        changed: share of them that are not what the base would have chosen in their place.
        kl: mean KL(emulated ‖ base), in nats per token.
        emulated_speed, base_speed: tokens per second, drafts included; 0 if nothing was timed.
    """

    n_tokens: int
    changed: float
    kl: float
    emulated_speed: float
    base_speed: float


def measure(
    emulator: Emulator,
    *,
    questions: Sequence[str] = QUESTIONS,
    until: float = math.inf,
    on_step: Callable[[int, int, str], object] = lambda done, total, what: None,
) -> Effect:
    """Answer questions, and compare the emulation with its base at every token.

    Args:
        emulator: in which no request is in work; it has the recipe's weights.
        until: when to end, of `perf_counter`; one question is answered in any case, and the base
            has five seconds more.
        on_step: called before every step with done, total and what comes next.

    Raises:
        as `Emulator.generate`.
    """
    total = len(questions) + 1
    emulated, n_changed, kl, n = [], 0, 0.0, 0
    for i, question in enumerate(questions):
        if i and perf_counter() > until:
            break
        on_step(i, total, "emulating")
        done = greedy_reply(emulator, question, Weights(), MAX_TOKENS, until)
        emulated.append(done)
        if tokens := with_end(emulator, done):
            combined, base = _log_probs(emulator, question, tokens)
            n_changed += int((combined.argmax(axis=1) != base.argmax(axis=1)).sum())
            kl += float(divergence(combined, base).sum())
            n += len(tokens)
    on_step(len(questions), total, "the base alone")
    until = max(until, perf_counter() + _FOR_BASE)
    alone = [greedy_reply(emulator, questions[0], Weights.only("base"), MAX_TOKENS // 2, until)]
    on_step(total, total, "")
    speeds = (_speed(replies) for replies in (emulated, alone))
    return Effect(n, n_changed / max(n, 1), max(kl, 0.0) / max(n, 1), *speeds)


def divergence(p: Rows, q: Rows) -> np.ndarray:
    """Return (n,) float64 KL(p ‖ q) in nats of rows of log-probabilities; −inf in p counts 0."""
    weight = np.exp(p.astype(np.float64))
    with np.errstate(invalid="ignore"):
        terms = weight * (p.astype(np.float64) - q)
    return np.where(weight > 0.0, terms, 0.0).sum(axis=1)


def _log_probs(emulator: Emulator, question: str, reply: Sequence[int]) -> tuple[Rows, Rows]:
    """Return (n, vocab) log-probabilities of the emulation and of its base along a reply."""
    coefficients = Weights().coefficients(emulator.deltas)
    messages = [{"role": "user", "content": question}]
    rows = {}
    for role in (role for role, c in coefficients.items() if c):
        runner = runner_of(emulator, role)
        rows[role] = reply_rows(runner, runner.encode(messages, template_kwargs=AT_ONCE), reply)
    log_probs = LogProbs(emulator)
    return log_probs.combined(rows, coefficients), log_probs.alone("base", rows["base"])


def _speed(replies: Sequence[Generation]) -> float:
    """Return the tokens per second of replies, of those that did not come with the prompt."""
    n = sum(len(done.tokens) - done.came_with_prompt for done in replies)
    seconds = sum(done.timings.after_prompt for done in replies)
    return n / seconds if n > 0 and seconds > 0 else 0.0
