"""How likely a given completion is under the combined distribution.

What a draft is to speculation, a completion is here: all models see a block of it at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..backend import Model
from ..errors import PromptError
from ..logits.weights import Weights
from ..text.prompt_format import continue_raw
from ..text.vocabulary import CommonVocabulary
from ..validate import kind
from .contexts import Contexts
from .request import Prompt, Request, as_request
from .request_state import OUTPUTS_PER_SLOT, RequestState
from .verifier import Verifier


def completion_ids(completion: str | Iterable[int], model: Model) -> list[int]:
    """Return a completion as token ids, its text tokenised as the continuation of any prompt.

    Raises:
        RequestError: it is neither a text nor ids.
        PromptError: the text is no Unicode.
    """
    if isinstance(completion, str):
        return continue_raw(completion, model)
    kind("completion", completion, Iterable, "a text or token ids")
    ids = list(completion)
    for token in ids:
        kind("a token of the completion", token, int | np.integer, "a token id")
    return [int(token) for token in ids]


def request_to_score(
    prompt: Prompt | Request,
    completion: Sequence[int],
    weights: Weights | None,
    conservative: float | None,
) -> Request:
    """Return the request whose reply might be the completion.

    Raises RequestError if weights or `conservative` stand beside a whole one.
    """
    if isinstance(prompt, Request):
        options = {"weights": weights, "conservative": conservative}
        given = {name: value for name, value in options.items() if value is not None}
        return replace(as_request(prompt, given), max_tokens=max(1, len(completion)))
    return Request(
        prompt,
        weights=Weights() if weights is None else weights,
        conservative=conservative,
        max_tokens=max(1, len(completion)),
    )


def score(
    state: RequestState,
    completion: Sequence[int],
    contexts: Contexts,
    verifier: Verifier,
    vocabulary: CommonVocabulary,
) -> NDArray[np.float32]:
    """Return the log-probability of each token of a completion.

    Args:
        state: a request with a slot, its prompt and nothing else.
        completion: token ids.
        contexts, verifier, vocabulary: of the emulator.

    Returns:
        (len(completion),) float32.

    Raises:
        PromptError: prompt and completion do not fit the context together.
        RequestError: an id is not a token.
    """
    longest = state.longest_prompt + len(state.tokens)
    if longest + len(completion) - 1 > contexts.n_ctx:  # the last token is not decoded
        raise PromptError(
            f"prompt and completion are {longest + len(completion)} tokens and "
            f"{contexts.n_ctx + 1} fit"
        )
    ids = [vocabulary.slot_of(token) for token in completion]
    scores = np.empty(len(completion), np.float32)
    for begin in range(0, len(completion), OUTPUTS_PER_SLOT):
        block = completion[begin : begin + OUTPUTS_PER_SLOT]
        for token in block[:-1]:
            state.take(token)
        rows = contexts.advance([state], keep_last=len(block))[state.slot]
        logits, log_z = verifier.combine(state, rows)
        scores[begin : begin + len(block)] = (
            logits[np.arange(len(block)), ids[begin : begin + len(block)]] - log_z
        ) + 0.0  # −0.0 is 0
        state.take(block[-1])
    return scores
