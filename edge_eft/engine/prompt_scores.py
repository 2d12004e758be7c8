"""How likely the prompt itself is: its log-probabilities under the combined distribution.

Before such a request generates, its prompt is decoded from its first token on, in blocks of as many
rows as a slot may ask for; what the cache holds of it does not help, as the logits are gone. There
is one block a step, and other requests go on meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from ..backend import common_prefix
from ..errors import EngineError, RequestError
from ..text.vocabulary import CommonVocabulary
from .contexts import Contexts, Rows
from .logprobs import likeliest, logprob_of
from .reply import PromptToken, Timings
from .request_state import OUTPUTS_PER_SLOT, RequestState
from .verifier import Verifier


@dataclass(eq=False)
class PromptScores:
    """The tokens of one prompt, scored one after the other.

    Contexts may begin a raw text differently: a BOS, or none. What follows is the same tokens for
    all of them, and these are told apart from the end: a token is scored where every context has
    something before it.

    Attributes:
        shared: (n,) int32, the tokens that all contexts have, the last of each of their prompts.
        leads: context number → how many tokens it has before them, 0 or 1.
        places: of the shared tokens in the combined row.
        scored: of the first context's prompt, so far.
    """

    shared: NDArray[np.int32]
    leads: dict[int, int]
    places: list[int]
    scored: list[PromptToken] = field(default_factory=list)

    @property
    def begin(self) -> int:
        """Index of the next shared token that is to be scored."""
        return len(self.scored) - next(iter(self.leads.values()))

    @property
    def end(self) -> int:
        """Index after the last token of the next block."""
        return min(self.begin + OUTPUTS_PER_SLOT, len(self.shared))

    @property
    def done(self) -> bool:
        """Whether all are scored."""
        return self.begin == len(self.shared)


class PromptScorer:
    """Scores prompts, a block at a time.

    Args:
        contexts, verifier, vocabulary: of the emulator.
        piece: token id → bytes.
        fail: called with a request that cannot be scored, and the reason.
    """

    def __init__(
        self,
        contexts: Contexts,
        verifier: Verifier,
        vocabulary: CommonVocabulary,
        piece: Callable[..., bytes],
        fail: Callable[[RequestState, EngineError], None],
    ) -> None:
        self._contexts, self._verifier, self._vocabulary = contexts, verifier, vocabulary
        self._piece, self._fail = piece, fail

    def begin(self, state: RequestState, contexts: Sequence[int]) -> PromptScores | None:
        """Return the unscored prompt of a request; None if it is not to be scored.

        Args:
            state: with a sequence for each of the contexts.
            contexts: numbers of those that are needed, in order.

        Raises:
            RequestError: the contexts' prompts differ in more than how they begin.
        """
        if state.request.prompt_logprobs is None:
            return None
        prompts = {i: state.sequences[i].prompt for i in contexts}
        shared = next(iter(prompts.values()))
        for prompt in prompts.values():
            n = common_prefix(shared[::-1], prompt[::-1])
            shared = shared[len(shared) - n :]
        leads = {i: len(prompt) - len(shared) for i, prompt in prompts.items()}
        if max(leads.values()) > 1:
            raise RequestError(
                "prompt_logprobs: the models cut this text into different tokens; give token ids"
            )
        places = [self._vocabulary.slot_of(token) for token in shared.tolist()]
        scores = PromptScores(shared, leads, places)
        first = prompts[contexts[0]]
        n_unscored = leads[contexts[0]] + (min(leads.values()) == 0)
        for token in first[:n_unscored].tolist():
            scores.scored.append(PromptToken(token, self._piece(token, special=True), None))
        return scores

    def advance(self, states: Sequence[RequestState]) -> list[RequestState]:
        """Score one more block of every prompt that is being scored.

        Args:
            states: all that run.

        Returns:
            The others, which can generate.
        """
        scoring = [
            (state, scores)
            for state in states
            if (scores := state.prompt_scores) and not scores.done
        ]
        if not scoring:
            return list(states)
        begun = perf_counter()
        self._contexts.start_clock()
        rows = self._rows(scoring)
        decodes = self._contexts.seconds()
        for state, scores in scoring:
            state.cached_tokens = 0  # whatever the cache had, it is decoded anew
            combining = perf_counter()
            try:
                self._score(state, scores, rows[state.slot])
            except EngineError as error:  # of this request alone: the others go on
                self._fail(state, error)
            now = perf_counter()
            state.prefill.add(Timings(decodes, combine=now - combining, total=now - begun))
        ids = {state.id for state, _ in scoring}
        return [state for state in states if state.id not in ids]

    def _rows(self, scoring: Sequence[tuple[RequestState, PromptScores]]) -> dict[int, Rows]:
        """Return slot → the logits that precede the tokens of the next block."""
        rows: dict[int, Rows] = {state.slot: {} for state, _ in scoring}
        for i, runner in enumerate(self._contexts):
            targets = {
                state.slot: (
                    state.sequences[i].prompt[: scores.leads[i] + scores.end - 1],
                    scores.end - scores.begin,
                )
                for state, scores in scoring
                if i in scores.leads
            }
            if targets:
                runner.give_rows(targets, rows)
        return rows

    def _score(self, state: RequestState, scores: PromptScores, rows: Rows) -> None:
        logits, log_z = self._verifier.combine(state, rows)
        n, block = state.request.prompt_logprobs or 0, slice(scores.begin, scores.end)
        tokens = scores.shared[block].tolist()
        # All at once: an interrupt leaves whole blocks.
        scores.scored += [
            PromptToken(
                token,
                self._piece(token, special=True),
                logprob_of(place, row, z),
                likeliest(n, row, z, self._piece),
            )
            for token, place, row, z in zip(
                tokens, scores.places[block], logits, log_z, strict=True
            )
        ]
