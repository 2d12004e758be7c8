"""The choice of a token under a grammar.

The token is chosen from the whole row and looked at; only where the grammar refuses it is the row
masked and chosen from again. Both choices share their noise, so without top-k, top-p and min-p the
token is the one that masking every row would give. With them it is drawn as llama.cpp's own tools
do it: what they keep of the whole row first, what they keep of the masked one on refusal.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from ..backend import Grammar, GrammarTokens
from ..errors import NoTokenError
from ..logits.sampling import sample
from ..logits.sampling_params import Sampling
from ..text.vocabulary import CommonVocabulary
from .contexts import Contexts
from .request import Request


class Grammars:
    """Makes the grammars of requests.

    Args:
        contexts: the base's pieces are what grammars read.
        vocabulary: that all roles share.
    """

    def __init__(self, contexts: Contexts, vocabulary: CommonVocabulary) -> None:
        printed = contexts.pieces(vocabulary.adopters)
        self._tokens = GrammarTokens(contexts[0].model, printed, vocabulary.n_vocab)
        self._end_token = vocabulary.end_token

    def begin(self, request: Request, stops: Collection[int]) -> Grammar | None:
        """Return the grammar of a request's constraint; None without one.

        Args:
            request: the request.
            stops: tokens that end its reply, besides the end token.

        Raises:
            RequestError: llama.cpp cannot read it, or there is no end token.
        """
        if request.constraint is None:
            return None
        return Grammar(self._tokens, request.constraint.grammar, self._end_token, stops)


def choose(
    logits: NDArray[np.float32],
    sampling: Sampling,
    position: int,
    counts: Mapping[int, int],
    grammar: Grammar | None,
) -> int:
    """Return one token id; arguments as `sample`, and the grammar where one holds.

    The mask comes before penalties, bias and all other options.

    Raises:
        NoTokenError: no token is left.
    """
    token = sample(logits, sampling, position, counts)
    if grammar is None or grammar.allows(token):
        return token
    masked = logits.copy()
    more = grammar.mask(masked)
    if not more and grammar.complete:  # the reply is over, whatever a bias makes of the end
        return grammar.end_token
    if not more:
        raise NoTokenError(
            "no token is left: the vocabulary has none with which the grammar goes on"
        )
    return sample(masked, sampling, position, counts)
