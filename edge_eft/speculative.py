"""How long a draft should be, and what came of it.

The tuned model drafts a block of tokens, one at a time; the other models then score the whole
block in one batch each, which costs them little more than a single token (arXiv 2310.12962 §3.4).
A draft is accepted iff it is the token that the emulation chooses itself at that position. Since
draft and emulation share their noise (see `sampling`), the text is the same with and without
drafts, and only its speed depends on what is decided here.

A block of k drafts costs (k+1) tuned decodes and one (k+1)-token decode of each other model. If
each draft is accepted with probability a, it yields 1 + a + … + aᵏ tokens. `DraftPolicy` measures
both while it runs and takes the k that gives the most tokens per second; `Drafter` proposes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .combiner import Combiner
from .live import Live
from .request import MAX_DRAFT
from .sampling import sample
from .seats import Seat

# CPU kernels work in steps of 4 rows and GPU kernels in powers of two, so blocks (k + 1 tokens)
# of these sizes are the ones worth trying.
BLOCKS = (0, 1, 2, 3, 5, 7, 11, MAX_DRAFT)

_COST_MEMORY = 0.2  # weight of the newest measurement in a running mean
_LENGTH_MEMORY = 0.1  # likewise, of the length that drafts come to have
_ACCEPTANCE_MEMORY = 0.02  # likewise, per tested draft
_PLAN_EVERY = 4  # blocks
_EXPLORE_EVERY = 256  # blocks, until a rival of the best length is measured again
_OPTIMISM = 0.15  # an unmeasured block length is assumed to cost so much less than it may


def expected_tokens(acceptance: float, k: float) -> float:
    """Mean tokens of a block of `k` drafts: 1 + a + … + aᵏ; `k` may be a mean itself."""
    if acceptance > 0.999:
        return k + 1
    return (1 - acceptance ** (k + 1)) / (1 - acceptance)


@dataclass
class DraftPolicy:
    """Chooses the number of drafts from what blocks have cost and how many drafts were accepted.

    Costs are kept per number of requests decoded together, since they differ. What a block of a
    length not yet tried costs is interpolated, a little optimistically, so that it gets tried if
    it could win; noise is answered by measuring rivals again now and then.
    """

    acceptance: float = 0.75
    tested: int = 0
    accepted: int = 0
    _costs: dict[int, dict[int, float]] = field(default_factory=dict)
    _lengths: dict[int, float] = field(default_factory=dict)
    _chosen: dict[int, int] = field(default_factory=dict)
    _blocks: int = 0
    _measured_at: dict[tuple[int, int], int] = field(default_factory=dict)

    def plan(self, n_live: int, most: int = MAX_DRAFT) -> int:
        """How many tokens to draft, at most `most`, for each of `n_live` requests."""
        costs = self._costs.get(n_live, {})
        if not costs or most < 1:
            return 0
        # Planning takes time as well; where a step takes a millisecond that is felt.
        if self._blocks % _PLAN_EVERY == 0 or n_live not in self._chosen:
            self._chosen[n_live] = self._best(n_live, costs)
        return max(k for k in BLOCKS if k <= min(most, self._chosen[n_live]))

    def _best(self, n_live: int, costs: dict[int, float]) -> int:
        rates = {k: self._rate(k, costs) for k in BLOCKS}
        best = max(BLOCKS, key=lambda k: rates[k])
        if self._blocks % _EXPLORE_EVERY == 0 and self._blocks:
            i = BLOCKS.index(best)
            neighbours = BLOCKS[max(0, i - 1) : i + 2]
            rivals = [k for k in BLOCKS if rates[k] > 0.5 * rates[best] or k in neighbours]
            return min(rivals, key=lambda k: self._measured_at.get((n_live, k), 0))
        return best

    def observe_cost(self, n_live: int, k: int, seconds: float, drafted: float) -> None:
        """A block for which `k` drafts were planned took so long, all models together.

        `drafted` is how many there were: a draft that ends the reply is shorter, and cheaper, and
        where replies are short most of them are.
        """
        length = self._lengths.get(k, drafted)
        self._lengths[k] = length + _LENGTH_MEMORY * (drafted - length)
        costs = self._costs.setdefault(n_live, {})
        # A stall counts for no more than twice what the block should have taken.
        if k in costs:
            costs[k] += _COST_MEMORY * (min(seconds, 2 * costs[k]) - costs[k])
        else:
            costs[k] = min(seconds, 2 * self._guess(k, costs)) if costs else seconds
        self._blocks += 1
        self._measured_at[n_live, k] = self._blocks

    def observe_draft(self, accepted: bool) -> None:
        """One draft was tested. Those behind a rejected one are not tested and do not count."""
        self.tested += 1
        self.accepted += accepted
        memory = max(_ACCEPTANCE_MEMORY, 1 / (self.tested + 8))
        self.acceptance += memory * (accepted - self.acceptance)

    def _rate(self, k: int, costs: dict[int, float]) -> float:
        if k in costs:
            # A shorter block costs no more than a longer one: what says otherwise is noise.
            cost = min(cost for m, cost in costs.items() if m >= k)
        else:
            cost = (1 - _OPTIMISM) * self._guess(k, costs)
        return expected_tokens(self.acceptance, self._lengths.get(k, k)) / cost

    @staticmethod
    def _guess(k: int, costs: dict[int, float]) -> float:
        known = sorted(costs)
        below = max((m for m in known if m < k), default=known[0])
        above = min((m for m in known if m > k), default=None)
        if above is not None and below < above:
            share = (k - below) / (above - below)
            return costs[below] + share * (costs[above] - costs[below])
        if below > known[0]:
            slope = (costs[below] - costs[known[0]]) / (below - known[0])
            return costs[below] + slope * (k - below)
        # Only one length is known: another draft should cost a fraction of a whole step.
        return costs[below] * (1 + 0.2 * abs(k - below))


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
        self._planned: list[int] = []
        self._logits = np.empty((1, combiner.n_vocab), np.float32)
        self._scratch = np.empty_like(self._logits)

    def draft(self, lives: Sequence[Live], seconds: dict[str, float]) -> None:
        """Extend requests and their sequences by drafts; call it within `Live.drafting`.

        Args:
            lives: the requests.
            seconds: seat → time, to which what the decodes took is added.
        """
        self._planned = [self._length(live, len(lives)) for live in lives]
        lengths = {live.id: k for live, k in zip(lives, self._planned, strict=True)}
        for j in range(max(self._planned)):
            for i, seat in enumerate(self._seats):
                drafting = {
                    live.slot: live
                    for live in lives
                    if live.drafter == i and j < lengths[live.id] and not live.draft_ends
                }
                targets = {slot: (live.sequences[i].view(), 1) for slot, live in drafting.items()}
                for slot, row in seat.advance(targets, seconds).items():
                    self._propose(drafting[slot], seat.name, row.copy())

    def observe(self, lives: Sequence[Live], seconds: float) -> None:
        """A whole step took so long; it tells the cost of a block if the same was planned for all.

        Args:
            lives: the requests of the last `draft`.
            seconds: of the step, verification included.
        """
        if len(set(self._planned)) == 1:
            drafted = sum(len(live.draft) for live in lives) / len(lives)
            self.policy.observe_cost(len(lives), self._planned[0], seconds, drafted)

    def _length(self, live: Live, n_live: int) -> int:
        # The first token comes soonest without a draft, and its cost is the prompt's.
        if live.drafter is None or not live.tokens:
            return 0
        # A model that cannot roll back would decode everything anew for every wrong draft.
        if any(seat.context.decoded_anew for seat in self._seats):
            return 0
        most = min(live.room(self._n_ctx) - 1, MAX_DRAFT)
        if live.request.draft == "auto":
            return self.policy.plan(n_live, most)
        return min(live.request.draft, most)

    def _propose(self, live: Live, role: str, row: NDArray[np.float32]) -> None:
        self._combiner.combine({role: row}, {role: 1.0}, out=self._logits, scratch=self._scratch)
        counts = live.counts + Counter(live.draft)
        index = len(live.tokens) + len(live.draft)
        token = int(sample(self._logits, [live.request], [index], [counts])[0])
        live.draft_rows.append(row)
        if token == self._combiner.end_token:
            live.draft_ends = True
            return
        live.propose([token])
