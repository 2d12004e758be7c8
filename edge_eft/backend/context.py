"""Tokens and KV cache on one model, and the one way to move them: `Context.advance`."""

from __future__ import annotations

import ctypes
import logging
import sys
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AbortedError, EngineError, RequestError
from .batch import Batch, Span, chunks, n_tokens
from .library import CACHE_LADDER, KV_TYPES, CacheKind, L, last_error, native
from .model import Model
from .recurrent import RecurrentPast

log = logging.getLogger(__name__)

N_BATCH = 512


@dataclass
class _Sequence:
    """What the KV cache holds for one sequence: `tokens[:n]`, and more where `unsure`."""

    tokens: NDArray[np.int32]
    n: int = 0
    unsure: bool = False


class Context:
    """Tokens and KV cache of up to `n_slots` sequences on one model; belongs to one thread.

    Args:
        model: loaded with its weights.
        n_ctx: tokens per slot; each slot has a cache of its own.
        n_slots: sequences, numbered from 0.
        n_threads: of a decode. Another count may round differently, but for Q8_0 caches with
            flash attention, where tests found all logits bitwise the same.
        n_outputs: logit rows that one call of `advance` may ask for, over all sequences. The
            compute buffer holds this many rows, instead of n_batch.
        cache: KV type and flash attention.
        lora: an adapter from `model.load_adapter`, in force for the life of the context.
        n_rs_seq: of a model with recurrent layers: by how many tokens a block can be gone back.
            That many more states are kept per sequence, if llama.cpp can for the architecture.
        cb_eval: llama.cpp's tensor callback (a ctypes function), for calibration.

    Attributes:
        can_roll_back: whether a sequence can go back by any number of tokens.
        max_rollback: by how many it can for sure, after a block of more than those.

    Raises:
        EngineError: llama.cpp refuses the combination (the caller tries the next cache kind).
    """

    def __init__(
        self,
        model: Model,
        *,
        n_ctx: int,
        n_slots: int = 1,
        n_threads: int = 1,
        n_outputs: int = 1,
        cache: CacheKind = CACHE_LADDER[0],
        lora: Any = None,
        n_rs_seq: int = 0,
        cb_eval: Any = None,
    ) -> None:
        if model.vocab_only:
            raise EngineError(f"{model.name} was loaded without its weights")
        self.model = model
        self.n_ctx = n_ctx
        self.n_slots = n_slots
        self.n_threads = n_threads
        self.cache = cache
        params = L.llama_context_default_params()
        params.n_ctx = n_ctx * n_slots
        n_outputs = max(n_outputs, n_slots)  # llama.cpp asserts at least one row per sequence
        params.n_batch = max(N_BATCH, n_outputs)
        params.n_ubatch = N_BATCH
        params.n_seq_max = n_slots
        params.n_rs_seq = n_rs_seq
        # A unified cache refills freed cells out of order, and attention then sums in another
        # order: what one slot did would change another's logits.
        params.kv_unified = False
        params.swa_full = True  # otherwise a rollback past the window is silently wrong
        self.n_outputs = params.n_outputs_max = n_outputs
        params.n_threads = params.n_threads_batch = n_threads
        params.type_k = params.type_v = KV_TYPES[cache.kv_type]
        params.flash_attn_type = int(
            L.LLAMA_FLASH_ATTN_TYPE_ENABLED
            if cache.flash_attn
            else L.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        # strlen as the callback: no Python, and no GIL, at each of the 500 graph nodes of a
        # token. It returns 0 while the flag byte is 0 and 1 once it is set.
        self._abort_flag = ctypes.create_string_buffer(2)
        params.abort_callback = ctypes.cast(_STRLEN, L.ggml_abort_callback)
        params.abort_callback_data = ctypes.addressof(self._abort_flag)
        if cb_eval is not None:
            params.cb_eval = cb_eval
        self._cb_eval = cb_eval
        with native(f"making a context for {model.path}"):
            self._context = L.llama_init_from_model(model._model, params)
        if not self._context:
            raise EngineError(f"{model.name} cannot run with {cache}: {last_error()}")
        # The finaliser holds the model, so that weights outlive the contexts on them.
        self.close = weakref.finalize(self, _free_context, self._context, model, self._abort_flag)
        self._memory = L.llama_get_memory(self._context)
        # Recurrent state, of a part of the layers or of all, keeps little past to go back to.
        self.can_roll_back = not (
            L.llama_model_is_recurrent(model._model) or L.llama_model_is_hybrid(model._model)
        )
        self._past = None if self.can_roll_back else RecurrentPast(self._context, n_slots)
        self.max_rollback: int = self._past.n_rs_seq if self._past else n_ctx
        self.n_batch: int = L.llama_n_batch(self._context)
        self.n_vocab = model.n_vocab
        self._sequences = [_Sequence(np.empty(n_ctx, np.int32)) for _ in range(n_slots)]
        self._batch = Batch(self.n_batch, n_ctx)
        self._views: dict[tuple[int, int], NDArray[np.float32]] = {}
        self.decoded_tokens = 0
        self.decoded_anew = 0
        self._adapted = lora is not None
        if lora is not None:
            adapters = (L.llama_adapter_lora_p_ctypes * 1)(lora)
            if L.llama_set_adapters_lora(self._context, adapters, 1, (ctypes.c_float * 1)(1.0)):
                raise EngineError(f"{model.name} does not take the LoRA adapter: {last_error()}")

    def tokens(self, sequence: int) -> NDArray[np.int32]:
        """Return (n,) int32, a view: the tokens whose KV the cache holds for `sequence`."""
        held = self._sequences[sequence]
        return held.tokens[: held.n]

    def kept(self, sequence: int, tokens: NDArray[np.int32]) -> int:
        """Return how many of the first `tokens` the cache holds and can go on from."""
        held = self._sequences[sequence]
        n = common_prefix(held.tokens[: held.n], tokens)
        if self._past is None:
            return n
        n = min(n, len(tokens) - 1)  # the last token's logits are wanted as well
        return self._past.reachable(sequence, held.n, n, unsure=held.unsure)

    def save(self, sequence: int) -> None:
        """Make sure that a sequence can go back to what it holds now, however it goes on."""
        if self._past is not None:
            self._past.save(sequence, self._sequences[sequence].n)

    def copy(self, source: int, target: int, n: int) -> None:
        """Let `target` hold the first `n` tokens of `source`, instead of what it held.

        The whole sequence is copied, and then cut: llama.cpp aborts on less where slots have
        caches of their own. Not for models that cannot roll back.
        """
        held = self._sequences[target]
        held.n, held.unsure = 0, True  # as in `_roll_back`
        L.llama_memory_seq_cp(self._memory, source, target, -1, -1)
        held.tokens[:n] = self._sequences[source].tokens[:n]
        self._roll_back(target, n)

    def abort(self) -> None:
        """Stop the decode that is under way; from any thread. See `resume`."""
        self._abort_flag[0] = b"\1"

    def resume(self) -> None:
        """Take `abort` back, so that `advance` works again."""
        self._abort_flag[0] = b"\0"

    def advance(
        self, targets: Mapping[int, tuple[NDArray[np.int32], int]]
    ) -> dict[int, NDArray[np.float32]]:
        """Bring sequences to hold exactly the given tokens; the one way to move a context.

        What the cache already holds of each sequence is kept, what differs is rolled back, the
        rest is decoded, all sequences in one ragged batch (several, if it exceeds n_batch).

        Args:
            targets: sequence → (tokens, keep_last). tokens: (n ≥ 1,) int32, the whole content
                from position 0. keep_last: rows wanted, for the last 1 ≤ keep_last ≤ n tokens.

        Returns:
            sequence → (keep_last, n_vocab) float32 logits that follow those tokens. Views into
            llama.cpp's buffer: the next `advance` overwrites them.

        Raises:
            RequestError: more tokens than n_ctx, no token, or a token id out of range.
            EngineError: llama.cpp failed. AbortedError: `abort` was called.
            After either, and whenever an exception passes, `tokens` says what the cache holds.
        """
        if not targets:
            return {}
        # 1. What the cache holds already is kept; `kept` tokens of each sequence.
        kept = self._validate(targets)
        for sequence, start in kept.items():
            held = self._sequences[sequence]
            if start < held.n or held.unsure:
                kept[sequence] = self._roll_back(sequence, start)
        if self._past is not None and self._parts(targets, kept):
            return {i: self.advance({i: one})[i].copy() for i, one in targets.items()}
        head, tail, n_head, n_tail = [], [], 0, 0
        for sequence, (tokens, keep_last) in targets.items():
            start, split = kept[sequence], len(tokens) - keep_last
            if start < split:
                head.append(Span(sequence, start, tokens[start:split]))
                n_head += split - start
            tail.append(Span(sequence, split, tokens[split:]))
            n_tail += keep_last
        # 2. All wanted rows must come of the last decode: the next one overwrites them.
        if n_head + n_tail > self.n_batch:
            parts = list(chunks(head, self.n_batch))
            head, n_head = [], 0
            if parts and n_tokens(parts[-1]) + n_tail <= self.n_batch:
                head = parts.pop()
                n_head = n_tokens(head)
            for chunk in parts:
                self._decode(chunk, n_silent=n_tokens(chunk))
        self._decode(head + tail, n_silent=n_head)
        return self._rows(tail, first=n_head)

    def _parts(
        self, targets: Mapping[int, tuple[NDArray[np.int32], int]], kept: Mapping[int, int]
    ) -> bool:
        """Whether to decode sequences apart: else blocks move the states that others go back to."""
        if not self.max_rollback or len(targets) == 1:
            return False
        return any(len(tokens) - kept[i] > 1 for i, (tokens, _) in targets.items())

    def _validate(self, targets: Mapping[int, tuple[NDArray[np.int32], int]]) -> dict[int, int]:
        """Refuse what llama.cpp would abort on. Returns sequence → tokens that can be kept."""
        if not self.close.alive:
            raise EngineError(f"this context of {self.model.name} is closed")
        kept, n_rows = {}, 0
        for sequence, (tokens, keep_last) in targets.items():
            n = len(tokens)
            if not 0 <= sequence < len(self._sequences):
                raise RequestError(f"there is no sequence {sequence}")
            if not 1 <= keep_last <= n:
                raise RequestError(f"{keep_last} rows wanted after {n} tokens")
            if n > self.n_ctx:
                raise RequestError(f"{n} tokens do not fit a context of {self.n_ctx}")
            held = self._sequences[sequence]
            kept[sequence] = min(common_prefix(held.tokens[: held.n], tokens), n - keep_last)
            # What is kept was looked at when it came. A negative id is a large unsigned one.
            new = tokens[kept[sequence] :].view(np.uint32)
            if (new[0] if len(new) == 1 else new.max()) >= self.n_vocab:
                raise RequestError(f"a token id is outside 0 … {self.n_vocab - 1}")
            n_rows += keep_last
        if n_rows > self.n_outputs:
            raise RequestError(f"more than the {self.n_outputs} logit rows that were planned for")
        return kept

    def _roll_back(self, sequence: int, n: int) -> int:
        """Keep the first `n` tokens of a sequence, or fewer where its state has no such past.

        Returns how many are kept.
        """
        held, n_wanted = self._sequences[sequence], n
        n_held, unsure, past = held.n, held.unsure, self._past
        if past is not None:
            n = past.reachable(sequence, n_held, n, unsure=unsure)
            past.forget_after(sequence, n)
        # Before the native call: after an interrupt `n` must not exceed what the cache holds.
        held.n, held.unsure = n, True
        ready = past is None or past.go_back(sequence, n_held, n, unsure=unsure)
        if not (ready and L.llama_memory_seq_rm(self._memory, sequence, n, -1)):
            L.llama_memory_seq_rm(self._memory, sequence, -1, -1)
            held.n = n = 0
            if past is not None:
                past.forget_after(sequence, 0)
        if n < n_wanted:
            log.info("%s goes back to %d tokens instead of %d", self.model.name, n, n_wanted)
            self.decoded_anew += n_wanted - n
        held.unsure = False
        return n

    def _decode(self, spans: list[Span], *, n_silent: int) -> None:
        """One llama_decode, with logits for all but the first `n_silent` tokens.

        Micro-batches that were done before a failure stay in the cache. So the sequences count
        as unsure until all is noted, and are rolled back before they are used again.
        """
        if self._abort_flag[0] != b"\0":  # some backends never ask the callback
            raise AbortedError("generation was cancelled")
        n = self._batch.fill(spans, n_silent)
        before = [(held, held.unsure) for held in self._at_risk(spans)]
        for held, _ in before:
            held.unsure = True
        if self.decoded_tokens:
            status = L.llama_decode(self._context, self._batch.native)
        else:  # a file that llama.cpp loads and cannot run shows itself here
            with native(f"running {self.model.path}{' with an adapter' * self._adapted}"):
                status = L.llama_decode(self._context, self._batch.native)
        if status == 2:
            raise AbortedError("generation was cancelled")
        if status:
            reason = "no room is left in the KV cache" if status == 1 else last_error()
            raise EngineError(f"{self.model.name}: llama_decode returned {status}: {reason}")
        for span in spans:
            held = self._sequences[span.sequence]
            end = span.start + len(span.tokens)
            held.tokens[span.start : end] = span.tokens
            held.n = end
        if self._past is not None:
            self._past.decoded((span.sequence for span in spans), len(spans[-1].tokens))
        for held, unsure in before:
            held.unsure = unsure
        self.decoded_tokens += n

    def _at_risk(self, spans: list[Span]) -> list[_Sequence]:
        """The sequences of which nothing is known while a decode is under way, or broken off."""
        if self._past is not None and len({span.sequence for span in spans}) > 1:
            return self._sequences  # states of others may be moved
        return [self._sequences[span.sequence] for span in spans]

    def _rows(self, tail: list[Span], first: int) -> dict[int, NDArray[np.float32]]:
        """The logits of each span of the last batch; `first` is the batch index of the first."""
        rows = {}
        for sequence, _, tokens in tail:
            n = len(tokens)
            begin = self._address(first)
            if n == 1 or self._address(first + n - 1) - begin == (n - 1) * self.n_vocab * 4:
                known = self._views.get((begin, n))
                rows[sequence] = self._view(begin, n) if known is None else known
            else:  # micro-batches may leave rows apart
                parts = [self._view(self._address(i), 1) for i in range(first, first + n)]
                rows[sequence] = np.concatenate(parts)
            first += n
        return rows

    def _address(self, i: int) -> int:
        """Where llama.cpp has the logits of the i-th token of the last batch."""
        pointer = L.llama_get_logits_ith(self._context, i)
        if not pointer:
            raise EngineError(f"{self.model.name}: llama.cpp gave no logits")
        return ctypes.addressof(pointer.contents)

    def _view(self, address: int, n: int) -> NDArray[np.float32]:
        """(n, n_vocab) float32 at an address, not a copy; kept, as most decodes give the same."""
        memory = ((ctypes.c_float * self.n_vocab) * n).from_address(address)
        self._views[address, n] = view = np.ctypeslib.as_array(memory)
        return view


def common_prefix(a: NDArray[np.int32], b: NDArray[np.int32]) -> int:
    """Return how many leading tokens two sequences share."""
    n = min(len(a), len(b))
    if a[:n].tobytes() == b[:n].tobytes():  # at nearly every step
        return n
    differing = np.flatnonzero(a[:n] != b[:n])
    return int(differing[0]) if len(differing) else n


def _strlen() -> Any:
    """libc's strlen, used as an abort callback that needs no Python."""
    libc = ctypes.cdll.msvcrt if sys.platform == "win32" else ctypes.CDLL(None)
    return libc.strlen


_STRLEN = _strlen()


def _free_context(context: Any, *_kept_alive: Any) -> None:
    L.llama_free(context)
