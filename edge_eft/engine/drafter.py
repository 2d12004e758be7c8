"""Exact speculation: the tuned model drafts, the emulation decides.

The tuned model proposes a block of tokens, one at a time; the other models then score the whole
block in one batch each, which costs them little more than a single token (arXiv 2310.12962 §3.4).
A draft is accepted iff it is the token that the emulation chooses itself at that position. Since
draft and emulation share their noise (see `sampling`), the text is the same with and without
drafts, and only its speed depends on how many there are (see `draft_policy`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from ..logits.combiner import Combiner, log_partition
from .constrained import choose
from .contexts import Contexts, Targets
from .draft_policy import DraftPolicy
from .request_state import OUTPUTS_PER_SLOT, Proposal, RequestState


class Drafter:
    """Lets the tuned models propose tokens.

    A proposal is drawn from the tuned model's own distribution, after all sampling options and
    with the noise that the emulation will use at that position.

    Args:
        contexts: of the emulator.
        combiner: merges end tokens in the drafting model's rows as in the emulation's.
    """

    def __init__(self, contexts: Contexts, combiner: Combiner) -> None:
        self.policy = DraftPolicy()
        self._contexts = contexts
        self._combiner = combiner
        self._rows: dict[tuple[int, int], NDArray[np.float32]] = {}
        self._logits = np.empty((1, combiner.n_vocab), np.float32)
        self._scratch = np.empty_like(self._logits)
        self._learns = False

    def choose(self, coefficients: Mapping[str, float]) -> int | None:
        """Return the number of the context that drafts: the tuned model of the largest coefficient.

        None if drafts cannot help: that model has no weight, or no other model has any.
        """
        drafter = drafting_role(coefficients)
        others = [role for role, c in coefficients.items() if c and role != drafter]
        if not others or coefficients[drafter] <= 0:
            return None
        return next(i for i, runner in enumerate(self._contexts) if drafter in runner.roles)

    def draft(self, states: Sequence[RequestState]) -> None:
        """Extend requests by drafts.

        Args:
            states: all that run. Those of automatic length are drafted in step: llama.cpp computes
                unequal sequences one after another.
        """
        most = {state.id: self._most(state) for state in states}
        survival = dict.fromkeys(most, 1.0)
        ahead = [state for state in states if most[state.id] > 0]
        # Blocks of fixed lengths, or with a prompt in them, do not tell what drafts cost.
        self._learns = _all_automatic(states) and not any(map(self._contexts.prefills, states))
        if not self.policy.begins(len(states)):
            ahead = [state for state in ahead if not _automatic(state)]
        k = 0
        while ahead:
            self._propose(ahead)
            ahead = [
                state
                for state in ahead
                if state.proposals and not state.proposals[-1].ends and k < most[state.id]
            ]
            stepping = [state for state in ahead if _automatic(state)]
            for state in stepping:
                survival[state.id] *= self.policy.chance(state.proposals[-1].confidence)
            if stepping and not self.policy.goes_on(
                len(states),
                k,
                max(most[state.id] for state in stepping),
                sum(survival[state.id] for state in stepping),
            ):
                ahead = [state for state in ahead if not _automatic(state)]
            for state in ahead:
                if not k and state.drafter is not None:
                    self._contexts[state.drafter].context.save(state.slot)
                state.propose(state.proposals[-1].token)
            k += 1

    def observe(
        self, states: Sequence[RequestState], chosen: Sequence[list[int]], seconds: float
    ) -> None:
        """Learn what came of the last `draft`.

        Args:
            states: its requests.
            chosen: the tokens that each got.
            seconds: of the step, drafting included.
        """
        verdicts = [
            (proposal.confidence, proposal.token == token)
            for state, tokens in zip(states, chosen, strict=True)
            for proposal, token in zip(state.proposals, tokens, strict=False)
        ]
        self.policy.observe_proposals(verdicts)
        if self._learns:
            k = max(len(state.proposals) for state in states) - 1
            n_tokens = sum(map(len, chosen))
            self.policy.observe_block(len(states), max(k, 0), n_tokens, seconds)

    def _most(self, state: RequestState) -> int:
        if state.drafter is None:
            return 0
        most = min(state.room(self._contexts.n_ctx) - 1, self._contexts.max_draft)
        return most if state.request.draft == "auto" else min(state.request.draft, most)

    def _propose(self, states: Sequence[RequestState]) -> None:
        """Decode one more row of each request's drafting model, and note the token it says."""
        targets: dict[int, Targets] = {}
        for state in states:
            if state.drafter is not None:
                drafting = targets.setdefault(state.drafter, {})
                drafting[state.slot] = (state.view(state.drafter), 1)
        for i, drafting in targets.items():
            runner = self._contexts[i]
            rows = runner.advance(drafting)
            for state in states:
                if state.drafter == i:
                    # A copy: the next decode overwrites the row, and verification needs it too.
                    kept, n = self._kept_rows(i, state.slot), len(state.draft)
                    kept[n] = rows[state.slot][0]
                    state.draft_rows = kept[: n + 1]
                    try:
                        state.proposals.append(self._proposal(state, runner.roles[0]))
                    except EngineError:  # if the emulation comes to this token, it will say so
                        state.drop_draft()

    def _kept_rows(self, context: int, slot: int) -> NDArray[np.float32]:
        if (context, slot) not in self._rows:
            shape = (OUTPUTS_PER_SLOT, self._contexts[context].model.n_vocab)
            self._rows[context, slot] = np.empty(shape, np.float32)
        return self._rows[context, slot]

    def _proposal(self, state: RequestState, role: str) -> Proposal:
        assert state.draft_rows is not None
        logits = self._combiner.combine(
            {role: state.draft_rows[-1:]}, {role: 1.0}, out=self._logits, scratch=self._scratch
        )
        counts = state.counts + Counter(state.draft) if state.draft else state.counts
        log_z = log_partition(logits, self._scratch)[0]
        index = len(state.tokens) + len(state.draft)
        if state.grammar is not None and state.draft_grammar is None:
            state.draft_grammar = state.grammar.copy()
        token = choose(logits[0], state.request, index, counts, state.draft_grammar)
        confidence = math.exp(min(0.0, float(logits[0, token] - log_z)))
        return Proposal(token, confidence, token == self._combiner.end_token)


def drafting_role(coefficients: Mapping[str, float]) -> str:
    """Return the tuned role of the largest coefficient."""
    tuned = [role for role in coefficients if role.startswith("tuned:")]
    return max(tuned, key=lambda role: coefficients[role])


def _automatic(state: RequestState) -> bool:
    return state.request.draft == "auto" and state.drafter is not None


def _all_automatic(states: Sequence[RequestState]) -> bool:
    """Whether all drafts of a step are of automatic length, and there are some."""
    return any(map(_automatic, states)) and all(
        _automatic(state) or state.drafter is None or not state.request.draft for state in states
    )
