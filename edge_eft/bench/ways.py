"""What is measured: the ways to answer a prompt, on the contexts whose models enter.

A **way** is the emulation with some number of drafts, or a model alone: bare decodes
(`backend/bare.py`) of the very tokens that the emulation chose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

import numpy as np

from ..backend.bare import Bare
from ..engine.contexts import ContextRunner
from ..engine.draft_policy import DraftPolicy
from ..engine.drafter import drafting_role
from ..engine.emulator import Emulator
from ..engine.reply import ReplyBuilder, Timings
from ..engine.request import MAX_DRAFT, Prompt, Request
from ..files.buffers import n_rs_seq
from ..logits.weights import Weights


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        tokens: longest reply.
        rounds: after one that is not counted.
        temperature, seed: of every request; each prompt has a seed of its own.
        ignore_end: replies go on to `tokens`.
        drafts: fixed numbers of drafts to try, in addition to none and "auto".
    """

    tokens: int = 64
    rounds: int = 5
    temperature: float = 0.0
    seed: int = 0
    ignore_end: bool = False
    drafts: tuple[int, ...] = (2, 4, 8)


@dataclass(frozen=True)
class Reply:
    """A reply, and how long it took.

    Attributes:
        tokens: ids in order, the end token included.
        seconds: from the decode of the prompt's last token to the end.
        tested, accepted: drafts.
        timings: where the time went; None for bare decodes.
    """

    tokens: tuple[int, ...]
    seconds: float
    tested: int = 0
    accepted: int = 0
    timings: Timings | None = None


Encoded = Mapping[str, Sequence[Sequence[int]]]  # context → the prompts as its model is told them


class Way(Protocol):
    """One way to answer prompt number `index`."""

    def answer(self, index: int) -> Reply:
        """Return the reply, timed."""


# Opens a way, given per prompt the tokens that its replies are compared with.
Opener = Callable[[Sequence[tuple[int, ...]]], AbstractContextManager[Way]]


class EmulatedWay:
    """The emulation with a fixed number of drafts, or "auto" with a policy of its own.

    Every way has its own policy, so that "auto" learns from no blocks but those that it chose.
    """

    def __init__(self, emulator: Emulator, requests: Sequence[Request], encoded: Encoded) -> None:
        self._emulator, self._requests, self._encoded = emulator, requests, encoded
        self.policy = DraftPolicy()

    def answer(self, index: int) -> Reply:
        """Submit, and step to the end."""
        emulator = self._emulator
        emulator.drafter.policy = self.policy
        for runner in emulator.contexts:
            if runner.name in self._encoded:
                prompt = self._encoded[runner.name][index]
                runner.context.advance({0: (np.array(prompt[:-1], np.int32), 1)})
        identity = emulator.submit(self._requests[index])
        try:
            begun = perf_counter()
            steps = emulator.step()
            while not steps[-1].finish_reason:
                steps += emulator.step()
            seconds = perf_counter() - begun
        finally:
            emulator.cancel(identity)
        reply = ReplyBuilder(self._requests[index])
        for step in steps:
            reply.take(step)
        done = reply.generation()
        return Reply(
            tuple(step.token for step in steps),
            seconds,
            tested=done.drafts_tested,
            accepted=done.drafts_accepted,
            timings=done.timings,
        )


class BareWay:
    """One model alone, decoding the tokens of given replies."""

    def __init__(
        self, bare: Bare, prompts: Sequence[Sequence[int]], replies: Sequence[tuple[int, ...]]
    ) -> None:
        self._bare, self._prompts, self._replies = bare, prompts, replies

    def answer(self, index: int) -> Reply:
        """Decode the prompt's last token and the reply's but its last: each gives the next."""
        prompt, reply = self._prompts[index], self._replies[index]
        self._bare.start(prompt[:-1])
        return Reply(reply, self._bare.decode_each([prompt[-1], *reply[:-1]]))


def active_contexts(emulator: Emulator) -> list[ContextRunner]:
    """Return the contexts whose models enter the emulation, the base's first."""
    coefficients = Weights().coefficients(emulator.deltas)
    return [runner for runner in emulator.contexts if runner.enters(coefficients)]


def drafting_context(emulator: Emulator) -> ContextRunner:
    """Return the context of the tuned model with the largest coefficient."""
    role = drafting_role(Weights().coefficients(emulator.deltas))
    return next(runner for runner in emulator.contexts if role in runner.roles)


def bare_context(emulator: Emulator, runner: ContextRunner, n_ctx: int) -> Bare:
    """Return a bare context on a context's model, set up as that one is."""
    lora = emulator.recipe.roles()[runner.name].lora
    return Bare(
        runner.model,
        n_ctx=n_ctx,
        n_threads=runner.context.n_threads,
        n_outputs=MAX_DRAFT + 1,
        cache=emulator.record.cache,
        lora=runner.model.load_adapter(lora) if lora else None,
        n_rs_seq=n_rs_seq(runner.model.header),
    )


def room_for(emulator: Emulator, prompts: Sequence[Prompt], n_tokens: int) -> int:
    """Return the length of a bare context that holds any prompt, a reply and a block."""
    longest = max(len(c.encode(p)) for c in active_contexts(emulator) for p in prompts)
    return -(-(longest + n_tokens + MAX_DRAFT + 1) // 256) * 256
