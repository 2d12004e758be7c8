"""Exact speculation: the tuned model drafts, the emulation decides.

The tuned model drafts a block of tokens, one at a time; the other models then score the whole
block in one batch each, which costs them little more than a single token (arXiv 2310.12962 §3.4).
A draft is accepted iff it is the token that the emulation chooses itself at that position. Since
draft and emulation share their noise (see `sampling`), the text is the same with and without
drafts, and only its speed depends on how many there are (see `draft_policy`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from time import perf_counter

import numpy as np

from .combiner import Combiner, log_partition
from .draft_policy import DraftPolicy
from .errors import EngineError
from .live import Live, Proposal
from .request import MAX_DRAFT
from .sampling import sample
from .seats import Seat


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

    def draft(self, lives: Sequence[Live], seconds: dict[str, float], *, timed: bool) -> None:
        """Extend requests and their sequences by drafts.

        Args:
            lives: the requests, between `begin_draft` and `end_draft`. Those of automatic length
                are drafted in step: llama.cpp computes unequal sequences one after another.
            seconds: seat → time, to which what the decodes took is added.
            timed: whether `observe` will be told of this step.
        """
        begun = perf_counter()
        most = {live.id: self._most(live) for live in lives}
        survival = dict.fromkeys(most, 1.0)
        ahead = [live for live in lives if most[live.id] > 0]
        timed = timed and _comparable(lives)
        if any(map(_automatic, ahead)) and not self.policy.drafts(len(lives), timed=timed):
            ahead = [live for live in ahead if not _automatic(live)]
        k = 0
        while ahead:
            self._propose(ahead, seconds)
            ahead = [
                live
                for live in ahead
                if live.proposals and not live.draft_ends and k < most[live.id]
            ]
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
            lives: its requests; those of another length than the automatic ones must have no
                drafts, or the step does not tell what such blocks cost.
            n_tokens: that the step gave.
            seconds: of the step, drafting included.
        """
        if not _comparable(lives):
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
                try:
                    live.proposals.append(self._proposal(live, seat.name))
                except EngineError:  # if the emulation comes to this token, it will say so
                    live.drop_draft()

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
    return live.request.draft == "auto" and live.drafter is not None


def _comparable(lives: Sequence[Live]) -> bool:
    """Whether all drafts of a step are of automatic length."""
    return any(map(_automatic, lives)) and all(
        _automatic(live) or live.drafter is None or not live.request.draft for live in lives
    )
