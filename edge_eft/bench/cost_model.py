"""What speculation should give, from the cost of single decodes and the acceptance rate.

A block of k drafts costs (k+1)·t_tuned(1) + t_base(k+1) + t_reference(k+1) and, if each draft is
accepted with probability a, yields 1 + a + … + aᵏ tokens (arXiv 2310.12962 §3.4). That is a reply
without end. A short one ends inside its last blocks, and what was drafted after the end is lost;
`seconds_of_reply` counts that in. Both are arithmetic: nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

Seconds = Mapping[int, float]  # tokens in a batch → time

# CPU kernels work in steps of 4 rows and GPU kernels in powers of two, so blocks (drafts + 1
# tokens) of these sizes are the ones worth comparing.
BLOCKS = (0, 1, 2, 3, 5, 7, 11, 15)


def expected_tokens(acceptance: float, k: int) -> float:
    """Return the mean tokens of a block of `k` drafts: 1 + a + … + aᵏ."""
    return sum(acceptance**j for j in range(k + 1))


class CostModel:
    """Times of single decodes, without anything around them.

    Args:
        drafter: seconds of one token of the tuned model that drafts.
        verifiers: for each of the other models, tokens in a batch → seconds; 1 is among them.
    """

    def __init__(self, drafter: float, verifiers: Sequence[Seconds]) -> None:
        self._drafter = drafter
        self._verifiers = verifiers

    def step(self) -> float:
        """Return the seconds of a step without drafts."""
        return self._drafter + self._verify(1)

    def block(self, k: int) -> float:
        """Return the seconds of a block of `k` drafts."""
        return (k + 1) * self._drafter + self._verify(k + 1)

    def last_block(self, n: int) -> float:
        """Return the seconds of a block that ends with its n-th draft, the end token."""
        return n * self._drafter + self._verify(n)

    def _verify(self, n: int) -> float:
        return sum(
            float(np.interp(n, sorted(costs), [costs[m] for m in sorted(costs)]))
            for costs in self._verifiers
        )

    def endless_rate(self, acceptance: float, k: int) -> float:
        """Return tokens per second in a reply that never ends."""
        return expected_tokens(acceptance, k) / (self.block(k) if k else self.step())

    def seconds_of_reply(self, acceptance: float, k: int, n: int) -> float:
        """Return the expected seconds of a reply of `n` tokens, of which the last ends it."""
        a, times = acceptance, [0.0]
        for left in range(1, n + 1):
            if not k:
                times.append(times[-1] + self.step())
                continue
            # j drafts are accepted, and the emulation's own token follows.
            seconds = 0.0
            for j in range(min(k, left)):
                seconds += a**j * (1 - a) * (self.block(k) + times[left - j - 1])
            if left <= k:
                seconds += a**left * self.last_block(left)
            else:
                seconds += a**k * (self.block(k) + times[left - k - 1])
            times.append(seconds)
        return times[n]

    def rate(self, acceptance: float, k: int, lengths: Sequence[int]) -> float:
        """Return tokens per second over replies of these lengths."""
        seconds = {n: self.seconds_of_reply(acceptance, k, n) for n in set(lengths)}
        total = sum(seconds[n] for n in lengths)
        return sum(lengths) / total if total else 0.0

    def best_rate(self, acceptance: float, lengths: Sequence[int]) -> float:
        """Return `rate` with the number of drafts that gives the most."""
        return max(self.rate(acceptance, k, lengths) for k in BLOCKS)

    def best_endless_rate(self, acceptance: float) -> float:
        """Return `endless_rate` with the number of drafts that gives the most."""
        return max(self.endless_rate(acceptance, k) for k in BLOCKS)
