"""What a reply begins with: `Request.prefix_ids`, taken as if it had been generated.

It comes before the first token is chosen, and what was chosen after it may be taken back, but not
itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from ..errors import RequestError
from ..text.detokenizer import TextStream
from ..text.vocabulary import CommonVocabulary
from .request import Request
from .request_state import RequestState

if TYPE_CHECKING:
    from ..backend import Grammar


def begin_reply(
    state: RequestState,
    vocabulary: CommonVocabulary,
    grammar: Callable[[Request, Collection[int]], Grammar | None],
) -> None:
    """Let a reply begin, with the tokens that the request brings if it brings any.

    Args:
        state: a request that is new.
        vocabulary: of all models.
        grammar: request, tokens that end its reply → what holds it to its form.

    Raises:
        RequestError: a reply with these tokens would have ended, or its grammar forbids them; or
            the grammar cannot be read.
    """
    state.stop_tokens = stops = vocabulary.silent_tokens(state.request.stop)
    state.grammar = grammar(state.request, stops)
    if state.request.prefix_ids:
        _take(state, vocabulary)


def _take(state: RequestState, vocabulary: CommonVocabulary) -> None:
    ends = {*vocabulary.masked.tolist(), vocabulary.end_token}
    for i, token in enumerate(state.request.prefix_ids):
        if token in ends:
            raise RequestError(f"prefix_ids has token {token}, which ends a reply; leave it out")
        if token in state.stop_tokens:
            raise _stopped(state.stop_tokens[token])
        if state.grammar is not None and not state.grammar.allows(token):
            raise RequestError(
                f"prefix_ids has token {token} in place {i}, where the grammar does not allow it"
            )
        state.take(token)
    state.noted = len(state.tokens)
    state.text = state.text.again(state.tokens)
    if state.text.stopped_by is not None:
        raise _stopped(state.text.stopped_by)


def prefix_parts(request: Request, piece: Callable[..., bytes]) -> list[str]:
    """Return the prefix as text, for who reads marks in it.

    Args:
        request: whose.
        piece: token id → bytes.

    Returns:
        In turns what steps would have given out, and the text of one token that prints nothing.
    """
    stream, parts = TextStream(piece, request.stop), [""]
    for silent, tokens in itertools.groupby(request.prefix_ids, lambda token: not piece(token)):
        if not silent:
            parts[-1] += stream.push(*tokens)
            continue
        for token in tokens:
            parts += [piece(token, special=True).decode("utf-8", "replace"), ""]
    return parts


def _stopped(stop: str) -> RequestError:
    return RequestError(f"prefix_ids has the stop string {stop!r:.40}, where the reply has ended")
