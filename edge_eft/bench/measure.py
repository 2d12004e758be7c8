"""Rounds in which every way of generating answers every prompt, one way right after the other.

Whatever else a machine does changes a benchmark's figures more than most improvements do. So all
ways are measured in one process, prompt by prompt and in an order that is drawn anew each time, and
are compared by the ratios of the rounds.

Before each reply every cache holds the prompt but for its last token. So what counts is the whole
reply, up to and including its end token, from the decode of the prompt's last token on.
"""

from __future__ import annotations

import contextlib
import math
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from time import perf_counter

import numpy as np
import psutil

from ..backend.bare import Bare
from ..engine.emulator import Emulator
from ..engine.reply import Timings
from ..engine.request import MAX_DRAFT, Prompt, Request
from ..errors import PromptError, RequestError
from ..text.prompt_format import encode_raw
from .cost_model import BLOCKS
from .prompts import last_text, next_turn
from .ways import (
    BareWay,
    EmulatedWay,
    Opener,
    Plan,
    Reply,
    Way,
    active_contexts,
    bare_context,
    drafting_context,
    room_for,
)

AUTO = "auto"
EMULATED = "emulated"
PREFILL_TOKENS = 400
N_SECOND_TURNS = 4  # a round
N_DECODES = 5  # of each block length, a round


@dataclass
class Tally:
    """What a way did, round by round."""

    tokens: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    tested: int = 0
    accepted: int = 0
    compared: int = 0
    equal: int = 0
    timings: Timings = field(default_factory=Timings)

    def begin_round(self) -> None:
        """Begin another round, to which belongs what is added from now on."""
        self.tokens.append(0)
        self.seconds.append(0.0)

    def add(self, reply: Reply, expected: tuple[int, ...]) -> None:
        """Add one more reply of this round."""
        self.tokens[-1] += len(reply.tokens)
        self.seconds[-1] += reply.seconds
        self.tested += reply.tested
        self.accepted += reply.accepted
        self.compared += 1
        self.equal += reply.tokens == expected
        if reply.timings:
            self.timings.add(reply.timings)

    def rates(self) -> list[float]:
        """Return tokens per second of each round."""
        return [n / s if s else 0.0 for n, s in zip(self.tokens, self.seconds, strict=True)]


@dataclass
class Figures:
    """What came of it: the raw material of `report.py`.

    Attributes:
        tallies: way → what it did.
        roles: contexts in use, the base's first: name → the way of its bare decodes.
        drafter: the context that drafts.
        replies: per prompt, the tokens of the emulation without drafts.
        decodes: context → tokens in a batch → mean seconds of each round.
        prefill: (tokens of the base's prompt, seconds) of each measurement, all models.
        first_turns, second_turns: seconds to the first token.
        peak_bytes: of the process, after the emulator had answered everything in every way.
        extra: ways that were added to those of a session.
    """

    tallies: dict[str, Tally]
    roles: dict[str, str]
    drafter: str
    replies: list[tuple[int, ...]]
    decodes: dict[str, dict[int, list[float]]]
    prefill: list[tuple[int, float]] = field(default_factory=list)
    first_turns: list[float] = field(default_factory=list)
    second_turns: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    extra: list[str] = field(default_factory=list)


class Session:
    """A loaded emulator, the prompts, and everything that is measured on them.

    Args:
        emulator: with one slot.
        prompts: two or more that fit its context.
        plan: what to measure.

    Raises:
        PromptError: a prompt does not fit. RequestError: a prompt is a single token, or no reply
            has a second one.
    """

    def __init__(self, emulator: Emulator, prompts: Sequence[Prompt], plan: Plan) -> None:
        self.emulator, self.prompts, self.plan = emulator, list(prompts), plan
        self._contexts = active_contexts(emulator)
        self._encoded = {c.name: [c.encode(prompt) for prompt in prompts] for c in self._contexts}
        if any(len(ids) < 2 for encoded in self._encoded.values() for ids in encoded):
            raise RequestError("a prompt is a single token for a model; give longer ones")
        for i in range(len(prompts)):  # what does not fit is refused before anything is measured
            emulator.cancel(emulator.submit(self._request(i, 0)))
        emulated: dict[str, EmulatedWay] = {}
        drafts: dict[str, int | str] = {EMULATED: 0}
        drafts |= {f"drafts of {k}": k for k in plan.drafts} | {AUTO: AUTO}
        for name, draft in drafts.items():
            requests = [self._request(i, draft) for i in range(len(prompts))]
            emulated[name] = EmulatedWay(emulator, requests, self._encoded)
        self._auto = emulated[AUTO]
        self.ways: dict[str, Way] = {**emulated}
        self._random = random.Random(plan.seed)
        self._bares: dict[str, Bare] = {}

    def _request(self, index: int, draft: int | str) -> Request:
        end = self.emulator.vocabulary.end_token
        return Request(
            self.prompts[index],
            max_tokens=self.plan.tokens,
            temperature=self.plan.temperature,
            seed=self.plan.seed + index,
            logit_bias={end: -math.inf} if self.plan.ignore_end and end is not None else {},
            draft=draft,  # type: ignore[arg-type]
        )

    def warm_up(self) -> Figures:
        """Answer everything once in every emulated way, uncounted; then open the bare contexts."""
        emulated = self.ways[EMULATED]
        replies = [emulated.answer(i).tokens for i in range(len(self.prompts))]
        if max(map(len, replies)) < 2:
            raise RequestError("no reply has a second token; give other prompts or more --tokens")
        for name, way in self.ways.items():
            if name != EMULATED:
                for i in range(len(self.prompts)):
                    way.answer(i)
        peak = peak_bytes()
        n_ctx = room_for(self.emulator, self.prompts, self.plan.tokens)
        drafter = drafting_context(self.emulator)
        roles = {}
        for runner in self._contexts:
            self._bares[runner.name] = bare_context(self.emulator, runner, n_ctx)
            side = runner.name.partition(":")[0]
            single = sum(c.name.startswith(side) for c in self._contexts) == 1
            roles[runner.name] = f"{side if single else runner.name} alone"
            self.ways[roles[runner.name]] = BareWay(
                self._bares[runner.name], self._encoded[runner.name], replies
            )
        self.ways["base alone, again"] = self.ways[roles[self._contexts[0].name]]
        return Figures(
            tallies={},
            roles=roles,
            drafter=drafter.name,
            replies=replies,
            decodes={runner.name: {} for runner in self._contexts},
            peak_bytes=peak,
        )

    def run(self, figures: Figures, progress: Callable[[int], None]) -> None:
        """Run the rounds; `progress` is told the number of each that is done."""
        figures.tallies = {name: Tally() for name in self.ways}
        for number in range(self.plan.rounds):
            for tally in figures.tallies.values():
                tally.begin_round()
            for i in range(len(self.prompts)):
                for name in self._random.sample(list(self.ways), len(self.ways)):
                    figures.tallies[name].add(self.ways[name].answer(i), figures.replies[i])
            self._measure_decodes(figures)
            self._measure_prefill(figures)
            self._measure_turns(figures, number)
            progress(number + 1)

    def close(self) -> None:
        """Free the bare contexts; the emulator stays."""
        for bare in self._bares.values():
            bare.close()

    def _measure_decodes(self, figures: Figures) -> None:
        """Measure single decodes of every block length, after a prompt."""
        index = max(range(len(self.prompts)), key=lambda i: len(figures.replies[i]))
        reply = figures.replies[index]
        block = (reply * (MAX_DRAFT + 1))[: MAX_DRAFT + 1]
        jobs = [
            (runner, k + 1)
            for runner in self._contexts
            for k in BLOCKS
            if not k or runner.name != figures.drafter
        ]
        for runner, n in self._random.sample(jobs, len(jobs)):
            bare = self._bares[runner.name]
            bare.start(self._encoded[runner.name][index])
            # The first decode of a new length also builds its graph.
            seconds = [bare.decode_block(block[:n]) for _ in range(1 + N_DECODES)][1:]
            figures.decodes[runner.name].setdefault(n, []).append(mean(seconds))

    def _measure_prefill(self, figures: Figures) -> None:
        """Measure a prompt of some hundred tokens, on caches that hold nothing of it."""
        emulator = self.emulator
        text, base = " ".join(map(last_text, self.prompts)), self._contexts[0]
        words = (text.split() * PREFILL_TOKENS)[: 2 * PREFILL_TOKENS]
        per_word = len(encode_raw(" ".join(words), base.model)) / len(words)
        n_words = int(min(PREFILL_TOKENS, 0.8 * emulator.n_ctx) / per_word)
        request = Request(" ".join(words[:n_words]), max_tokens=1, temperature=0.0)
        self._forget()
        begun = perf_counter()
        done = emulator.generate(request)
        figures.prefill.append((done.prompt_tokens, perf_counter() - begun))

    def _measure_turns(self, figures: Figures, number: int) -> None:
        """Measure the first token's seconds: on empty caches, and as a conversation goes on."""
        n = len(self.prompts)
        self.emulator.drafter.policy = self._auto.policy
        for i in range(number * N_SECOND_TURNS, (number + 1) * N_SECOND_TURNS):
            prompt, following = self.prompts[i % n], last_text(self.prompts[(i + 1) % n])
            self._forget()
            figures.first_turns.append(self._first_token(prompt))
            reply = self.emulator.generate(self._request(i % n, AUTO)).text
            second = next_turn(prompt, reply, following) if reply.strip() else None
            if second is not None:
                with contextlib.suppress(PromptError):
                    figures.second_turns.append(self._first_token(second))

    def _first_token(self, prompt: Prompt) -> float:
        begun = perf_counter()
        with contextlib.closing(self.emulator.stream(prompt, temperature=0.0)) as steps:
            next(steps)
            return perf_counter() - begun

    def _forget(self) -> None:
        """Let every cache hold a token with which the next prompt does not begin."""
        for runner in self._contexts:
            held = runner.context.tokens(0)
            other = 1 if len(held) and held[0] == 0 else 0
            runner.context.advance({0: (np.array([other], np.int32), 1)})


def measure(
    emulator: Emulator,
    prompts: Sequence[Prompt],
    plan: Plan,
    progress: Callable[[int], None],
    extra: Mapping[str, Opener] | None = None,
) -> Figures:
    """Return the figures of all rounds.

    Args:
        emulator, prompts, plan: as of `Session`, with its errors.
        progress: told the number of each round that is done.
        extra: name → one more way; opened after the warm-up, and closed in the end.
    """
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(contextlib.closing(Session(emulator, prompts, plan)))
        figures = session.warm_up()
        for name, opened in (extra or {}).items():
            session.ways[name] = stack.enter_context(opened(figures.replies))
            figures.extra.append(name)
        session.run(figures, progress)
    return figures


def peak_bytes() -> int:
    """Return the most resident memory that this process has had so far."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
