"""From the rows of a block to its tokens: combine, choose, go on while drafts are right.

A draft is accepted iff it is the token that the emulation chooses itself at that position, so a
block gives its accepted drafts and one token more: the emulation's own where a draft was wrong, or
the bonus token after a wholly accepted block (arXiv 2310.12962 §3.4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from ..logits.combiner import Combiner, log_partition
from .constrained import choose
from .contexts import Rows
from .explain import Explainer
from .logprobs import likeliest, logprob_of
from .reply import FinishReason, Step, Timings
from .request_state import OUTPUTS_PER_SLOT, RequestState


class Verifier:
    """Chooses the tokens of requests.

    Args:
        combiner: for all requests.
        deltas: the recipe's, name → weight.
        piece: token id → bytes.
        n_ctx: tokens per slot.
    """

    def __init__(
        self,
        combiner: Combiner,
        deltas: Mapping[str, float],
        piece: Callable[..., bytes],
        n_ctx: int,
    ) -> None:
        self._combiner, self._deltas, self._piece, self._n_ctx = combiner, deltas, piece, n_ctx
        self._logits = np.empty((OUTPUTS_PER_SLOT, combiner.n_vocab), np.float32)
        self._scratch = np.empty_like(self._logits)
        self._explainer = Explainer(combiner, piece)

    def combine(
        self, state: RequestState, rows: Rows
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return combined logits by a request's weights, and their log-partition.

        Args:
            state: whose weights.
            rows: role → (n, n_vocab) float32.

        Returns:
            (n, vocab) float32, overwritten by the next call, and (n,) float32.
        """
        n = len(next(iter(rows.values())))
        out, scratch = self._logits[:n], self._scratch[:n]
        request = state.request
        if request.conservative is None:
            self._combiner.combine(rows, state.coefficients, out=out, scratch=scratch)
        else:
            self._combiner.combine_conservative(
                rows,
                state.coefficients,
                request.weights.conservative_role(self._deltas),
                request.conservative,
                out=out,
                scratch=scratch,
            )
        return out, log_partition(out, scratch)

    def verify(self, state: RequestState, rows: Rows) -> Iterator[Step]:
        """Choose tokens for as long as they are the drafted ones, and the one that follows.

        Args:
            state: its tokens become part of the reply; its draft is taken from it.
            rows: role → (n, n_vocab) float32, one row per draft and one for the token after them.

        Yields:
            A Step for each token, without the time of the block's decodes.

        Raises:
            EngineError: a model gave NaN, or no token is left.
        """
        proposals, n_draft = state.proposals, len(state.draft)
        with_prompt = not state.begun
        state.draft = []
        t0 = perf_counter()
        try:
            logits, log_z = self.combine(state, rows)
        except EngineError:
            if not n_draft:
                raise
            # The bad row may follow a wrong draft and never be reached: the drafts are let go.
            n_draft = 0
            logits, log_z = self.combine(state, {role: block[:1] for role, block in rows.items()})
        combined = perf_counter() - t0
        for j in range(n_draft + 1):
            draft = None
            if j < len(proposals) and (j < n_draft or proposals[j].ends):
                # The last proposal ended the draft and was not part of it, unless it was the end
                # token: that one is tested.
                draft = proposals[j].token
            index, request = len(state.tokens), state.request
            t1 = perf_counter()
            token = choose(logits[j], request, index, state.counts, state.grammar)
            t2 = perf_counter()
            more = self._more(state, token, (logits[j], log_z[j]), rows, j)
            t3 = perf_counter()
            is_end = token == self._combiner.end_token or token in state.stop_tokens
            text, finish_reason = self._take(state, token, is_end)
            timings = Timings(combine=combined, sample=t2 - t1, text=perf_counter() - t3)
            combined = 0.0
            accepted = None if draft is None else token == draft
            yield Step(
                state.id,
                index,
                token,
                text,
                logprob_of(token, logits[j], log_z[j]),
                timings,
                finish_reason,
                accepted=accepted,
                is_end_token=is_end,
                with_prompt=with_prompt,
                prompt_tokens=state.prompt_tokens,
                cached_tokens=state.cached_tokens or 0,
                stop_string=self._stop_string(state, token) if finish_reason == "stop" else None,
                **more,
            )
            if finish_reason or not accepted:
                return

    @staticmethod
    def _stop_string(state: RequestState, token: int) -> str | None:
        return state.text.stopped_by or state.stop_tokens.get(token)

    def _more(
        self,
        state: RequestState,
        token: int,
        combined: tuple[NDArray[np.float32], np.float32],
        rows: Rows,
        j: int,
    ) -> dict[str, Any]:
        """Return what a step has beyond the token: its piece, and what the request asks for."""
        n_top, n_explained = state.request.top_logprobs, state.request.explain
        more: dict[str, Any] = {"piece": self._piece(token, special=True)}
        top = likeliest(max(n_top, n_explained), *combined, self._piece)
        if n_top:
            more["top_logprobs"] = top[:n_top]
        if n_explained:
            more["explain"], more["candidates"] = self._explainer.explain(
                rows, j, token, n_explained, combined, top[:n_explained]
            )
        if state.prompt_scores and not state.tokens:
            more["prompt_logprobs"] = tuple(state.prompt_scores.scored)
        return more

    def _take(
        self, state: RequestState, token: int, is_end: bool
    ) -> tuple[str, FinishReason | None]:
        """Make the token part of the reply. Returns text to show, and whether the reply ends."""
        if is_end:
            return state.text.flush(), "stop"
        full = state.room(self._n_ctx) <= 1
        state.take(token)
        text = state.text.push(token)
        if state.text.finished:
            return text, "stop"
        if full:
            return text + state.text.flush(), "length"
        return text, None
