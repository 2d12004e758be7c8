"""llama.cpp's decode and nothing around it: the floor that the benchmark measures against.

A `Bare` context has the same cache, threads and weights as an emulator's, but no abort callback,
and what is timed is `llama_decode` and `llama_get_logits_ith` alone: no prefix search, no
bookkeeping, no choice of a token. For measuring only; it trusts its caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from .batch import Span
from .context import Context
from .library import CacheKind, L
from .model import Model


class Bare:
    """One sequence on a context of its own.

    Args:
        model: loaded with its weights; shared with other contexts.
        n_ctx: tokens.
        n_threads: of every decode.
        n_outputs: tokens of the longest block.
        cache: KV type and flash attention.
        lora: an adapter from `model.load_adapter`.
        n_rs_seq: as of `Context`.

    Raises:
        EngineError: llama.cpp refuses.
    """

    def __init__(
        self,
        model: Model,
        *,
        n_ctx: int,
        n_threads: int,
        n_outputs: int,
        cache: CacheKind,
        lora: Any = None,
        n_rs_seq: int = 0,
    ) -> None:
        self._owner = Context(
            model,
            n_ctx=n_ctx,
            n_threads=n_threads,
            n_outputs=n_outputs,
            cache=cache,
            lora=lora,
            n_rs_seq=n_rs_seq,
        )
        self.close = self._owner.close
        self._context, self._memory = self._owner._context, self._owner._memory
        L.llama_set_abort_callback(self._context, L.ggml_abort_callback(), None)
        self._token = (L.llama_token * 1)()
        self._single = L.llama_batch_get_one(self._token, 1)
        self._n = 0

    def start(self, prompt: Sequence[int]) -> NDArray[np.float32]:
        """Hold exactly this prompt. Returns the (n_vocab,) float32 logits after it, a view."""
        # What was decoded behind the owner's back is rolled back first.
        self._owner._sequences[0].unsure = True
        self._n = len(prompt)
        return self._owner.advance({0: (np.array(prompt, np.int32), 1)})[0][0]

    def decode_each(self, tokens: Sequence[int]) -> float:
        """Decode tokens one by one, each with the pointer to its logits. Returns the seconds."""
        decode, logits, context, single = (
            L.llama_decode,
            L.llama_get_logits_ith,
            self._context,
            self._single,
        )
        failed = 0
        begun = perf_counter()
        for token in tokens:
            self._token[0] = token
            failed |= decode(context, single)
            logits(context, -1)
        seconds = perf_counter() - begun
        if failed:
            raise EngineError(f"{self._owner.model.name}: llama_decode returned {failed}")
        self._n += len(tokens)
        return seconds

    def decode_block(self, tokens: Sequence[int]) -> float:
        """Decode tokens in one batch with logits for each and forget them. Returns the seconds."""
        batch, past = self._owner._batch, self._owner._past
        if past is not None:
            past.save(0, self._n)
        batch.fill([Span(0, self._n, np.array(tokens, np.int32))], n_silent=0)
        begun = perf_counter()
        failed = L.llama_decode(self._context, batch.native)
        L.llama_get_logits_ith(self._context, -1)
        seconds = perf_counter() - begun
        if failed:
            raise EngineError(f"{self._owner.model.name}: llama_decode returned {failed}")
        if past is not None:
            past.go_back(0, self._n, self._n, unsure=True)
        self._roll_back_to(self._n)
        return seconds

    def take_back(self, n: int) -> None:
        """Forget the last `n` tokens; not of models with recurrent layers."""
        self._roll_back_to(self._n - n)

    def _roll_back_to(self, n: int) -> None:
        if not L.llama_memory_seq_rm(self._memory, 0, n, -1):
            raise EngineError(f"{self._owner.model.name} cannot roll back, so it is not measured")
        self._n = n
