"""How long a draft should be: learnt from the run itself, and decided token by token.

A block of k drafts costs k+1 tuned decodes and one (k+1)-token decode of each other model, and
yields one token more than it has accepted drafts. Both sides are measured while it runs: what
blocks of each length take, and how often the tuned model is right when it is so sure of itself.

It is arithmetic on times and verdicts; it knows nothing of models.
"""

from __future__ import annotations

from bisect import bisect
from collections import defaultdict
from dataclasses import dataclass, field

from .request import MAX_DRAFT

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
_TRIAL_PLAIN, _TRIAL_DRAFTED = 4, 16  # blocks in which the worse one is tried again
_TRIAL_AFTER = (64, 512)  # blocks: the first pause between such trials, and the longest


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


class _Way:
    """Tokens per second of the blocks that were drafted, or of those that were not."""

    def __init__(self, uncounted: int) -> None:
        self._tokens, self._seconds = _Mean(_RATE_MEMORY), _Mean(_RATE_MEMORY)
        self.blocks = -uncounted

    def add(self, tokens: int, seconds: float) -> None:
        self.blocks += 1
        if self.blocks > 0:
            self._tokens.add(tokens)
            self._seconds.add(seconds)

    def doubt(self) -> None:
        """Let what comes now weigh more than what is remembered."""
        self._tokens.n = self._seconds.n = min(self._seconds.n, 4)

    @property
    def seconds(self) -> float:
        """Of a block; 0 before the first that counts."""
        return self._seconds.value

    @property
    def rate(self) -> float:
        return self._tokens.value / self.seconds if self.seconds else 0.0


class _Comparison:
    """Blocks with drafts against blocks without: the better way, and now and then the other."""

    def __init__(self) -> None:
        # The very first block builds the graphs, and there is nothing yet to tell a stall by.
        self.plain, self.drafted = _Way(uncounted=1), _Way(uncounted=_UNCOUNTED)
        self._pause = _TRIAL_AFTER[0]
        self._left = self._pause  # blocks until a trial begins
        self._trial: tuple[bool, int] | None = None  # whether it drafts, and its blocks left

    @property
    def best_rate(self) -> float:
        return max(self.plain.rate, self.drafted.rate)

    @property
    def _begun(self) -> bool:
        """Whether both ways were timed often enough to be compared."""
        return self.plain.blocks >= _FIRST_PLAIN and self.drafted.blocks >= _FIRST_DRAFTED

    @property
    def better(self) -> bool:
        """Whether drafts are, as far as is known; not before the plain way was timed."""
        if not self._begun:
            return self.plain.blocks >= _FIRST_PLAIN
        return self.drafted.rate > self.plain.rate

    def drafts(self) -> bool:
        """Whether the next block is to be drafted; each call stands for a block that is timed."""
        better = self.better
        if not self._begun:
            return better
        if self._trial is None:
            self._left -= 1
            if self._left > 0:
                return better
            (self.plain if better else self.drafted).doubt()
            self._trial = (not better, _TRIAL_PLAIN if better else _TRIAL_DRAFTED)
        drafted, left = self._trial
        self._trial = (drafted, left - 1) if left > 1 else None
        if self._trial is None:
            self._left = self._pause = min(2 * self._pause, _TRIAL_AFTER[1])
        return drafted


class _Costs:
    """Seconds that a block of so many drafts takes."""

    def __init__(self) -> None:
        self.proposing = _Mean(_COST_MEMORY)  # one token
        self._measured: dict[int, _Mean] = {}  # drafts → the rest of the step
        self._measured_at: dict[int, int] = {}
        self._blocks = 0
        # For 0, 1 … MAX_DRAFT drafts; [] if none was ever measured.
        self.verifying: list[float] = []

    def add(self, k: int, drafting: float, verifying: float) -> float:
        """A block of `k` drafts took so long; the same without a stall."""
        self._blocks += 1
        self._measured_at[k] = self._blocks
        cost = self._measured.setdefault(k, _Mean(_COST_MEMORY))
        drafting = _unstalled(drafting, (k + 1) * self.proposing.value)
        verifying = _unstalled(verifying, cost.value or self._guess(k))
        self.proposing.add(drafting / (k + 1))
        cost.add(verifying)
        if self._blocks % _CURVE_EVERY == 0 or not self.verifying:
            self._forget()
            self._draw()
        return drafting + verifying

    def _draw(self) -> None:
        known = self._measured
        self.verifying = [
            known[k].value if k in known else (1 - _OPTIMISM) * self._guess(k)
            for k in range(MAX_DRAFT + 1)
        ]
        # A shorter block costs no more than a longer one: what says otherwise is noise.
        for k in reversed(range(MAX_DRAFT)):
            self.verifying[k] = min(self.verifying[k], self.verifying[k + 1])

    def _guess(self, k: int) -> float:
        known = {m: cost.value for m, cost in self._measured.items() if cost.n}
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
            if self._blocks - at > _FORGET_AFTER and len(self._measured) > 1:
                del self._measured[k], self._measured_at[k]


@dataclass
class _Learnt:
    """What is known of blocks of some number of requests."""

    comparison: _Comparison = field(default_factory=_Comparison)
    costs: _Costs = field(default_factory=_Costs)


@dataclass
class DraftPolicy:
    """Decides token by token whether a draft goes on.

    A further draft is worth the tokens that it is expected to add, and costs the time in which
    so many could be had otherwise, at the rate of tokens per second that is being reached. Whether
    to draft at all is not left to this arithmetic: both ways are timed, the better one is taken,
    and the other is tried again now and then.

    All of that is kept per number of requests decoded together, since costs differ.

    Attributes:
        acceptance: share of the tuned model's tokens that were right, drafted or only considered.
        tested, accepted: how many of them there were.
    """

    acceptance: float = 0.75
    tested: int = 0
    accepted: int = 0
    _learnt: dict[int, _Learnt] = field(default_factory=lambda: defaultdict(_Learnt))
    _sure: list[_Mean] = field(
        default_factory=lambda: [
            # As if it had been right as often as it was sure, so far once.
            _Mean(_ACCEPTANCE_MEMORY, (low + high) / 2, 1)
            for low, high in zip((0.0, *CONFIDENCES), (*CONFIDENCES, 1.0), strict=True)
        ]
    )

    def drafts(self, n_live: int, *, timed: bool = True) -> bool:
        """Whether the next block of `n_live` requests is drafted at all.

        Ask once per block, and say if it will not be observed: such a one is no trial.
        """
        comparison = self._learnt[n_live].comparison
        return comparison.drafts() if timed else comparison.better

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
        costs = self._learnt[n_live].costs
        verifying = costs.verifying
        if not verifying or k >= most:
            return False
        rate = self._learnt[n_live].comparison.best_rate
        # Costs have steps, so that several more may pay where one more does not.
        tokens, expected = 0.0, chance
        for longer in range(k + 1, most + 1):
            tokens += expected
            expected *= self.acceptance
            seconds = (longer - k) * costs.proposing.value + verifying[longer] - verifying[k]
            if tokens > rate * seconds:
                return True
        return False

    def observe_plain(self, n_live: int, tokens: int, seconds: float) -> None:
        """A step without drafts gave so many tokens and took so long."""
        plain = self._learnt[n_live].comparison.plain
        plain.add(tokens, _unstalled(seconds, plain.seconds))

    def observe_block(
        self, n_live: int, k: int, tokens: int, drafting: float, seconds: float
    ) -> None:
        """A block of `k` drafts per request gave so many tokens.

        `seconds` is the time of the step, of which `drafting` went into proposals.
        """
        learnt = self._learnt[n_live]
        seconds = learnt.costs.add(k, drafting, seconds - drafting)
        learnt.comparison.drafted.add(tokens, seconds)

    def observe_draft(self, confidence: float, right: bool) -> None:
        """What the tuned model was so sure of was, or was not, what the emulation chose.

        Tokens behind a wrong one are not tested and do not count.
        """
        self.tested += 1
        self.accepted += right
        memory = max(_ACCEPTANCE_MEMORY, 1 / (self.tested + 8))
        self.acceptance += memory * (right - self.acceptance)
        self._sure[bisect(CONFIDENCES, confidence)].add(right)
