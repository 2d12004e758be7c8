"""How long a draft should be, and what came of it.

The tuned model drafts a block of tokens, one at a time; the other models then score the whole
block in one batch each, which costs them little more than a single token (arXiv 2310.12962 §3.4).
A draft is accepted iff it is the token that the emulation chooses itself at that position. Since
draft and emulation share their noise (see `sampling`), the text is the same with and without
drafts, and only its speed depends on what is decided here.

A block of k drafts costs k+1 tuned decodes and one (k+1)-token decode of each other model, and
yields one token more than it has accepted drafts. `DraftPolicy` learns while it runs what blocks
cost, and how often the tuned model is right when it is so sure of itself; it lets a draft go on
for as long as the next token is worth its time. `Drafter` proposes.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

from .combiner import Combiner, log_partition
from .live import Live, Proposal
from .request import MAX_DRAFT
from .sampling import sample
from .seats import Seat

# Probabilities that the tuned model gives its draft, between which acceptance is learnt apart.
CONFIDENCES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.995)

_COST_MEMORY = 0.2  # weight of the newest measurement in a running mean
_RATE_MEMORY = 0.02  # likewise, of tokens and seconds per block
_ACCEPTANCE_MEMORY = 0.02  # likewise, per tested draft
_OPTIMISM = 0.15  # an unmeasured block length is assumed to cost so much less than it may
_CURVE_EVERY = 4  # blocks; planning takes time as well, and steps may take half a millisecond
_FORGET_AFTER = 512  # blocks, until what was not measured again counts as unmeasured
_UNCOUNTED = 16  # drafted blocks at the start, in which lengths are tried out
_FIRST_PLAIN, _FIRST_DRAFTED = 4, 32  # blocks before the two are compared
_PROBE_PLAIN, _PROBE_DRAFTED = 4, 16  # blocks in which the worse one is tried again
_PROBE_AFTER = (64, 512)  # blocks: the first pause between such trials, and the longest


@dataclass
class _Mean:
    """A running mean in which the newest of n values weighs 1/n, and at least `memory`."""

    memory: float
    value: float = 0.0
    n: int = 0

    def add(self, value: float) -> None:
        self.n += 1
        self.value += max(self.memory, 1 / self.n) * (value - self.value)


def _unstalled(seconds: float, usual: float) -> float:
    """A stall counts for no more than twice the usual; 0 if that is not known."""
    return min(seconds, 2 * usual) if usual else seconds


class _Mode:
    """Tokens per second of the blocks that were drafted, or of those that were not."""

    def __init__(self, uncounted: int) -> None:
        self._tokens, self._seconds = _Mean(_RATE_MEMORY), _Mean(_RATE_MEMORY)
        self._uncounted = uncounted

    def add(self, tokens: float, seconds: float) -> None:
        if self._uncounted:
            self._uncounted -= 1
            return
        self._tokens.add(tokens)
        self._seconds.add(seconds)

    @property
    def seconds(self) -> float:
        """Of a block; 0 before the first."""
        return self._seconds.value

    def doubt(self) -> None:
        """What comes now weighs more than what is remembered."""
        self._tokens.n = self._seconds.n = min(self.blocks, 4)

    @property
    def blocks(self) -> int:
        return self._seconds.n

    @property
    def rate(self) -> float:
        return self._tokens.value / self.seconds if self.seconds else 0.0


class _Costs:
    """What blocks cost when so many requests are decoded together."""

    def __init__(self) -> None:
        self.blocks = 0
        # The first block builds the graphs, and there is nothing yet to tell a stall by.
        self.plain, self.drafted = _Mode(uncounted=1), _Mode(uncounted=_UNCOUNTED)
        self._pause = _PROBE_AFTER[0]
        self._probe_from = self._probe_to = 0
        self._probed = True
        self.round = _Mean(_COST_MEMORY)  # seconds to propose one token for each request
        self._verify: dict[int, _Mean] = {}  # drafts per request → seconds of the rest of a step
        self._measured_at: dict[int, int] = {}
        self._curve: list[float] = []

    def drafts(self) -> bool:
        """Whether to draft: what is faster, and now and then the other."""
        if self.plain.blocks < _FIRST_PLAIN:
            return False
        if self.drafted.blocks < _FIRST_DRAFTED:
            self._probe_from = self._probe_to = self.blocks + self._pause
            return True
        better = self.drafted.rate > self.plain.rate
        if self.blocks < self._probe_from:
            return better
        if self._probe_from == self._probe_to:  # a trial begins
            self._probed = not better
            (self.drafted if self._probed else self.plain).doubt()
            self._probe_to += _PROBE_DRAFTED if self._probed else _PROBE_PLAIN
        if self.blocks < self._probe_to:
            return self._probed
        self._pause = min(2 * self._pause, _PROBE_AFTER[1])
        self._probe_from = self._probe_to = self.blocks + self._pause
        return better

    def add_plain(self, tokens: int, seconds: float) -> None:
        """A step without drafts gave so many tokens and took so long."""
        self.blocks += 1
        self.plain.add(tokens, _unstalled(seconds, self.plain.seconds))

    def add_block(self, k: int, tokens: int, drafting: float, verifying: float) -> None:
        """A block of `k` drafts gave so many tokens and took so long."""
        self.blocks += 1
        cost = self._verify.setdefault(k, _Mean(_COST_MEMORY))
        drafting = _unstalled(drafting, (k + 1) * self.round.value)
        verifying = _unstalled(verifying, cost.value or self._guess(k))
        self.drafted.add(tokens, drafting + verifying)
        self.round.add(drafting / (k + 1))
        cost.add(verifying)
        self._measured_at[k] = self.blocks

    def verify(self) -> list[float]:
        """Seconds to verify 0, 1 … MAX_DRAFT drafts; [] if none was ever measured."""
        if not self._verify:
            return []
        if self.blocks % _CURVE_EVERY == 0 or not self._curve:
            self._forget()
            self._curve = [
                self._verify[k].value if k in self._verify else (1 - _OPTIMISM) * self._guess(k)
                for k in range(MAX_DRAFT + 1)
            ]
            # A shorter block costs no more than a longer one: what says otherwise is noise.
            for k in reversed(range(MAX_DRAFT)):
                self._curve[k] = min(self._curve[k], self._curve[k + 1])
        return self._curve

    def _guess(self, k: int) -> float:
        known = {m: cost.value for m, cost in self._verify.items() if cost.n}
        below = max((m for m in known if m < k), default=None)
        above = min((m for m in known if m > k), default=None)
        if below is not None and above is not None:
            share = (k - below) / (above - below)
            return known[below] + share * (known[above] - known[below])
        if above is not None:
            return known[above]
        # Another row should cost a fraction of a whole step.
        return known[below] * (1 + 0.2 * (k - below)) if below is not None else 0.0

    def _forget(self) -> None:
        for k, at in list(self._measured_at.items()):
            if self.blocks - at > _FORGET_AFTER and len(self._verify) > 1:
                del self._verify[k], self._measured_at[k]


@dataclass
class DraftPolicy:
    """Decides token by token whether a draft goes on.

    A further draft is worth the tokens that it is expected to add, and costs the time in which
    so many could be had otherwise, at the rate of tokens per second that is being reached. Whether
    to draft at all is not left to this arithmetic: both ways are timed, the better one is taken,
    and the other is tried again now and then.

    Costs are kept per number of requests decoded together, since they differ.

    Attributes:
        acceptance: share of the tuned model's tokens that were right, drafted or only considered.
        tested, accepted: how many of them there were.
    """

    acceptance: float = 0.75
    tested: int = 0
    accepted: int = 0
    _costs: dict[int, _Costs] = field(default_factory=dict)
    _sure: list[_Mean] = field(
        default_factory=lambda: [
            # As if it had been right as often as it was sure, so far once.
            _Mean(_ACCEPTANCE_MEMORY, (low + high) / 2, 1)
            for low, high in zip((0.0, *CONFIDENCES), (*CONFIDENCES, 1.0), strict=True)
        ]
    )

    def drafts(self, n_live: int) -> bool:
        """Whether the next block of `n_live` requests is drafted at all."""
        return self._costs.setdefault(n_live, _Costs()).drafts()

    def chance(self, confidence: float) -> float:
        """How likely a draft is accepted to which the tuned model gives this probability."""
        return self._sure[bisect(CONFIDENCES, confidence)].value

    def goes_on(self, n_live: int, k: int, most: int, chance: float) -> bool:
        """Whether a draft of `k` tokens per request is worth extending.

        Args:
            n_live: requests decoded together.
            k: drafts of each so far.
            most: drafts that there is room for.
            chance: how many of the next drafts are expected to be accepted, over all requests.
        """
        costs = self._costs[n_live]
        verify = costs.verify()
        if not verify or k >= most:
            return False
        rate = max(costs.plain.rate, costs.drafted.rate)
        # Costs have steps, so that several more may pay where one more does not.
        tokens, expected = 0.0, chance
        for longer in range(k + 1, most + 1):
            tokens += expected
            expected *= self.acceptance
            seconds = (longer - k) * costs.round.value + verify[longer] - verify[k]
            if tokens > rate * seconds:
                return True
        return False

    def observe_plain(self, n_live: int, tokens: int, seconds: float) -> None:
        """A step without drafts gave so many tokens and took so long."""
        self._costs.setdefault(n_live, _Costs()).add_plain(tokens, seconds)

    def observe_block(
        self, n_live: int, k: int, tokens: int, drafting: float, seconds: float
    ) -> None:
        """A block of `k` drafts per request gave so many tokens.

        `seconds` is the time of the step, of which `drafting` went into proposals.
        """
        costs = self._costs.setdefault(n_live, _Costs())
        costs.add_block(k, tokens, drafting, seconds - drafting)

    def observe_draft(self, confidence: float, right: bool) -> None:
        """What the tuned model was so sure of was, or was not, what the emulation chose.

        Tokens behind a wrong one are not tested and do not count.
        """
        self.tested += 1
        self.accepted += right
        memory = max(_ACCEPTANCE_MEMORY, 1 / (self.tested + 8))
        self.acceptance += memory * (right - self.acceptance)
        self._sure[bisect(CONFIDENCES, confidence)].add(right)


class Drafter:
    """Lets the tuned models propose tokens for live requests.

    A proposal is drawn from the tuned model's own distribution, after all sampling options and
    with the noise that the emulation will use at that position.

    Args:
        seats: of the emulator.
        combiner: merges end tokens in the drafter's rows as in the emulation's.
        n_ctx: tokens per slot.
    """

    def __init__(self, seats: Sequence[Seat], combiner: Combiner, n_ctx: int) -> None:
        self.policy = DraftPolicy()
        self._seats = seats
        self._combiner = combiner
        self._n_ctx = n_ctx
        self._drafting = 0.0
        self._logits = np.empty((1, combiner.n_vocab), np.float32)
        self._scratch = np.empty_like(self._logits)

    def draft(self, lives: Sequence[Live], seconds: dict[str, float]) -> None:
        """Extend requests and their sequences by drafts.

        Args:
            lives: the requests, between `begin_draft` and `end_draft`. Those of automatic length
                are drafted in step: llama.cpp computes unequal sequences one after another.
            seconds: seat → time, to which what the decodes took is added.
        """
        begun = perf_counter()
        most = {live.id: self._most(live) for live in lives}
        survival = dict.fromkeys(most, 1.0)
        ahead = [live for live in lives if most[live.id] > 0]
        if any(_automatic(live) for live in ahead) and not self.policy.drafts(len(lives)):
            ahead = [live for live in ahead if not _automatic(live)]
        k = 0
        while ahead:
            self._propose(ahead, seconds)
            ahead = [live for live in ahead if not live.draft_ends and k < most[live.id]]
            stepping = [live for live in ahead if _automatic(live)]
            for live in stepping:
                survival[live.id] *= self.policy.chance(live.proposals[-1].confidence)
            if stepping and not self.policy.goes_on(
                len(lives),
                k,
                max(most[live.id] for live in stepping),
                sum(survival[live.id] for live in stepping),
            ):
                ahead = [live for live in ahead if not _automatic(live)]
            for live in ahead:
                live.propose([live.proposals[-1].token])
            k += 1
        self._drafting = perf_counter() - begun

    def observe(self, lives: Sequence[Live], n_tokens: int, seconds: float) -> None:
        """What came of the last `draft`.

        Args:
            lives: its requests; only steps in which all are of automatic length tell what such
                blocks cost.
            n_tokens: that the step gave.
            seconds: of the step, drafting included.
        """
        if not all(_automatic(live) and live.drafter is not None for live in lives):
            return
        if any(live.proposals for live in lives):
            k = max(len(live.draft) for live in lives)
            self.policy.observe_block(len(lives), k, n_tokens, self._drafting, seconds)
        else:
            self.policy.observe_plain(len(lives), n_tokens, seconds)

    def _most(self, live: Live) -> int:
        if live.drafter is None:
            return 0
        # A model that cannot roll back would decode everything anew for every wrong draft.
        if any(seat.context.decoded_anew for seat in self._seats):
            return 0
        most = min(live.room(self._n_ctx) - 1, MAX_DRAFT)
        return most if live.request.draft == "auto" else min(live.request.draft, most)

    def _propose(self, lives: Sequence[Live], seconds: dict[str, float]) -> None:
        """One more row of each request's drafter, and the token that it says there."""
        for i, seat in enumerate(self._seats):
            drafting = {live.slot: live for live in lives if live.drafter == i}
            targets = {slot: (live.sequences[i].view(), 1) for slot, live in drafting.items()}
            for slot, row in seat.advance(targets, seconds).items():
                live = drafting[slot]
                live.draft_rows.append(row.copy())
                live.proposals.append(self._proposal(live, seat.name))

    def _proposal(self, live: Live, role: str) -> Proposal:
        rows, logits = {role: live.draft_rows[-1]}, self._logits
        self._combiner.combine(rows, {role: 1.0}, out=logits, scratch=self._scratch)
        counts = live.counts + Counter(live.draft)
        index = len(live.tokens) + len(live.draft)
        token = int(sample(logits, [live.request], [index], [counts])[0])
        log_z = log_partition(logits, self._scratch)[0]
        confidence = math.exp(min(0.0, float(logits[0, token] - log_z)))
        return Proposal(token, confidence, token == self._combiner.end_token)


def _automatic(live: Live) -> bool:
    return live.request.draft == "auto"
