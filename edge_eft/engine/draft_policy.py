"""How long a draft should be: learnt from the run itself, and decided proposal by proposal.

A block of k drafts costs k+1 tuned decodes and one (k+1)-token decode of each other model, and
yields one token more than it has accepted drafts; a step without drafts is a block of 0. Both
sides are measured while it runs: what blocks of each length take, and how often the tuned model
is right when it is so sure of itself.

It is arithmetic on times and verdicts; it knows nothing of models.
"""

from __future__ import annotations

from bisect import bisect
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .request import MAX_DRAFT

# Probabilities that the tuned model gives its proposal, between which acceptance is learnt apart.
CONFIDENCES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.995)

_COST_MEMORY = 0.2  # weight of the newest measurement in a running mean
_RATE_MEMORY = 0.02  # the same of tokens and seconds per block
_ACCEPTANCE_MEMORY = 0.02  # the same per tested proposal
_OPTIMISM = 0.15  # an unmeasured length is assumed to cost so much less than it may
_ANOTHER_DRAFT = 0.2  # of a block's cost, beyond the longest that was measured
_CURVE_EVERY = 4  # blocks; planning takes time as well, and steps may take half a millisecond
_FORGET_AFTER = 512  # blocks, until what was not measured again counts as unmeasured
_FORCED = (0, 4)  # drafts that a block has in any case, so that their costs stay known:
_FORCED_FIRST, _FORCED_EVERY = 8, 128  # in turn at the start, then each once in so many blocks


@dataclass
class _Mean:
    """A running mean in which the newest of n values weighs 1/n, and at least `memory`."""

    memory: float
    value: float = 0.0
    n: int = 0

    def add(self, value: float) -> None:
        self.n += 1
        self.value += max(self.memory, 1 / self.n) * (value - self.value)


class _Blocks:
    """What is known of blocks of some number of requests.

    Attributes:
        n: how many were observed.
        costs: seconds of a block of 0, 1 … MAX_DRAFT drafts; [] before the first.
    """

    def __init__(self) -> None:
        self.n = 0
        self.costs: list[float] = []
        self._tokens, self._seconds = _Mean(_RATE_MEMORY), _Mean(_RATE_MEMORY)
        self._measured: dict[int, _Mean] = {}  # by drafts
        self._measured_at: dict[int, int] = {}

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self._tokens.value / self._seconds.value

    @property
    def forced(self) -> int | None:
        """Drafts that the next block is to have; None: those that pay."""
        turn = self.n % (len(_FORCED) if self.n < _FORCED_FIRST else _FORCED_EVERY)
        return _FORCED[turn] if turn < len(_FORCED) else None

    def add(self, k: int, tokens: int, seconds: float) -> None:
        """Learn from a block of `k` drafts. A stall counts for no more than twice the usual."""
        if self.costs:
            seconds = min(seconds, 2 * self.costs[k])
        self.n += 1
        self._tokens.add(tokens)
        self._seconds.add(seconds)
        self._measured.setdefault(k, _Mean(_COST_MEMORY)).add(seconds)
        self._measured_at[k] = self.n
        if self.n % _CURVE_EVERY == 0 or self.n <= _FORCED_FIRST:
            self.costs = self._curve()

    def _curve(self) -> list[float]:
        for k in [k for k, at in self._measured_at.items() if self.n - at > _FORGET_AFTER]:
            del self._measured[k], self._measured_at[k]
        lengths = sorted(self._measured)
        known = [self._measured[k].value for k in lengths]
        end = known[-1] * (1 + _ANOTHER_DRAFT * (MAX_DRAFT - lengths[-1]))
        costs = np.interp(range(MAX_DRAFT + 1), [*lengths, MAX_DRAFT], [*known, end])
        costs *= 1 - _OPTIMISM
        costs[lengths] = known
        # A shorter block costs no more than a longer one: what says otherwise is noise.
        return [float(cost) for cost in np.minimum.accumulate(costs[::-1])[::-1]]


@dataclass
class DraftPolicy:
    """Decides proposal by proposal whether a draft goes on.

    A further draft is worth the tokens that it is expected to add, and costs the time in which
    so many could be had otherwise, at the rate of tokens per second that is being reached. Costs
    and rate are kept per number of requests decoded together.

    Attributes:
        acceptance: share of the tuned model's proposals that were right, drafted or not.
        tested, accepted: how many of them there were.
    """

    acceptance: float = 0.75
    tested: int = 0
    accepted: int = 0
    _blocks: dict[int, _Blocks] = field(default_factory=lambda: defaultdict(_Blocks))
    _sure: list[_Mean] = field(
        default_factory=lambda: [
            # Prior: one observation, right with the probability that the tuned model stated.
            _Mean(_ACCEPTANCE_MEMORY, (low + high) / 2, 1)
            for low, high in zip((0.0, *CONFIDENCES), (*CONFIDENCES, 1.0), strict=True)
        ]
    )

    def begins(self, n_running: int) -> bool:
        """Return whether a draft may pay at all: whether one would that is surely right."""
        return self.goes_on(n_running, 0, MAX_DRAFT, n_running)

    def chance(self, confidence: float) -> float:
        """Return how likely a proposal of this probability is accepted."""
        return self._sure[bisect(CONFIDENCES, confidence)].value

    def goes_on(self, n_running: int, k: int, most: int, chance: float) -> bool:
        """Return whether a draft of `k` tokens per request is worth extending.

        Args:
            n_running: requests decoded together.
            k: drafts of each so far.
            most: drafts that there is room for.
            chance: how many of the next drafts are expected to be accepted, over all requests.
        """
        blocks = self._blocks[n_running]
        if not blocks.costs or k >= most:
            return False
        forced = blocks.forced
        if forced is not None:
            return k < forced
        costs, rate = blocks.costs, blocks.rate
        # Costs have steps, so that several more may pay where one more does not.
        tokens, expected = 0.0, chance
        for longer in range(k + 1, most + 1):
            tokens += expected
            expected *= self.acceptance
            if tokens > rate * (costs[longer] - costs[k]):
                return True
        return False

    def observe_block(self, n_running: int, k: int, tokens: int, seconds: float) -> None:
        """Learn from a block of `k` drafts per request: its tokens, and the time of the step."""
        self._blocks[n_running].add(k, tokens, seconds)

    def observe_proposals(self, verdicts: Sequence[tuple[float, bool]]) -> None:
        """Learn which proposals were what the emulation chose, drafted or only considered.

        Args:
            verdicts: (confidence, accepted). Proposals after a wrong one are not tested and do not
                count.
        """
        for confidence, accepted in verdicts:
            self.tested += 1
            self.accepted += accepted
            memory = max(_ACCEPTANCE_MEMORY, 1 / (self.tested + 8))
            self.acceptance += memory * (accepted - self.acceptance)
            self._sure[bisect(CONFIDENCES, confidence)].add(accepted)
