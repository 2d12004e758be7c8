"""What the delta did to each token of a reply: its log-probability, emulated and of the base alone.

Computed after the fact, by scoring the reply under both: a reply costs nothing more for it.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from ..engine.emulator import Emulator
from ..engine.request import Request
from ..engine.score import completion_ids
from ..logits.weights import Weights


class TokenShift(NamedTuple):
    """One token of a reply.

    Attributes:
        text: what it prints; a character of several tokens is the last one's.
        emulated, base: log-probabilities, before temperature and all other sampling options.
    """

    text: str
    emulated: float
    base: float

    @property
    def shift(self) -> float:
        """How much likelier the delta made it, in nats; 0 where both rule it out."""
        return 0.0 if self.emulated == self.base else self.emulated - self.base


def token_shifts(
    emulator: Emulator, request: Request, reply: str | Sequence[int]
) -> list[TokenShift]:
    """Return what the request's weights did to each token of a reply to it.

    Args:
        reply: the ids that were drawn; or a text, which may have been other tokens.

    Raises:
        as `Emulator.score`.
    """
    ids = completion_ids(reply, emulator.contexts[0].model)
    emulated = emulator.score(request, ids)
    alone = replace(request, weights=Weights.only("base"), conservative=None)
    base = emulator.score(alone, ids)
    piece = emulator.contexts.pieces(emulator.vocabulary.adopters)
    texts = texts_of([piece(token, special=True) for token in ids])
    return [
        TokenShift(*entry) for entry in zip(texts, emulated.tolist(), base.tolist(), strict=True)
    ]


def texts_of(pieces: Sequence[bytes]) -> list[str]:
    """Return what each token prints; a character of several tokens is the last one's."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    texts = [decoder.decode(piece) for piece in pieces]
    if texts:
        texts[-1] += decoder.decode(b"", final=True)
    return texts
