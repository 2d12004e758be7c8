"""What a llama_decode is given: spans of tokens, each of one sequence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .library import L


class Span(NamedTuple):
    """Consecutive tokens of one sequence, from position `start`."""

    sequence: int
    start: int
    tokens: NDArray[np.int32]


def n_tokens(spans: list[Span]) -> int:
    """Return how many tokens spans have together."""
    return sum(len(span.tokens) for span in spans)


def chunks(spans: list[Span], n_max: int) -> Iterator[list[Span]]:
    """Yield the same tokens in the same order, in lists of at most `n_max` tokens."""
    chunk: list[Span] = []
    for sequence, start, tokens in spans:
        while len(tokens):
            taken = tokens[: n_max - n_tokens(chunk)]
            chunk.append(Span(sequence, start, taken))
            start, tokens = start + len(taken), tokens[len(taken) :]
            if n_tokens(chunk) == n_max:
                yield chunk
                chunk = []
    if chunk:
        yield chunk


class Batch:
    """A llama_batch over NumPy memory, so that filling it is a few slice assignments."""

    def __init__(self, n_max: int, n_ctx: int) -> None:
        self._places = np.arange(n_ctx, dtype=np.int32)
        self._token = np.zeros(n_max, np.int32)
        self._position = np.zeros(n_max, np.int32)
        self._sequence = np.zeros(n_max, np.int32)
        self._logits = np.zeros(n_max, np.int8)
        self._n_sequences = np.ones(n_max, np.int32)
        # seq_id is an array of pointers, one per token, each to that token's sequence ids.
        addresses = self._sequence.ctypes.data + 4 * np.arange(n_max, dtype=np.uintp)
        self._sequence_pointers = np.ascontiguousarray(addresses, dtype=np.uintp)
        fields: dict[str, Any] = {name: kind for name, kind, *_ in L.llama_batch._fields_}
        self.native = L.llama_batch(
            n_tokens=0,
            token=self._token.ctypes.data_as(fields["token"]),
            pos=self._position.ctypes.data_as(fields["pos"]),
            n_seq_id=self._n_sequences.ctypes.data_as(fields["n_seq_id"]),
            seq_id=self._sequence_pointers.ctypes.data_as(fields["seq_id"]),
            logits=self._logits.ctypes.data_as(fields["logits"]),
        )

    def fill(self, spans: list[Span], n_silent: int) -> int:
        """Put spans one after the other, the first `n_silent` tokens without logits.

        Returns how many tokens there are.
        """
        n = 0
        for sequence, start, tokens in spans:
            end = n + len(tokens)
            self._token[n:end] = tokens
            self._position[n:end] = self._places[start : start + len(tokens)]
            self._sequence[n:end] = sequence
            n = end
        self._logits[:n_silent] = 0
        self._logits[n_silent:n] = 1
        self.native.n_tokens = n
        return n
