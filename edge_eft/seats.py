"""From a recipe to loaded models, each role with a context of its own, and their moving together.

A **seat** is one context and the roles it serves: deltas that share a reference and its prompt
share the seat. Models are loaded once per file, so a base that is also a reference, or a tuned
model that is the reference with a LoRA adapter, costs one set of weights.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import memory, vocabulary
from .backend import CACHE_LADDER, CacheKind, Context, Model, default_threads, gpu_available
from .checks import whole
from .errors import EngineError
from .gguf_check import GGUFHeader
from .live import OUTPUTS_PER_SLOT, Live
from .recipe import ModelSpec, Recipe, verify
from .template import PromptFormat

log = logging.getLogger(__name__)

# A decode of a model this small takes microseconds per operation, and threads wait for each other
# after every one: where another program holds a core, that costs 15 times what it saves.
SMALL = 32 << 20

Rows = dict[str, list[NDArray[np.float32]]]
Targets = Mapping[int, tuple[NDArray[np.int32], int]]  # of `Context.advance`

DEFAULT_N_CTX = 4096


@dataclass
class Seat:
    """One context and the roles that it serves."""

    roles: tuple[str, ...]
    model: Model
    context: Context
    prompt: PromptFormat
    lock: threading.Lock = field(default_factory=threading.Lock)
    turn: int = 0  # counts the moves

    def enters(self, coefficients: Mapping[str, float]) -> bool:
        """Whether a role of non-zero coefficient sits here."""
        return any(coefficients.get(role) for role in self.roles)

    @property
    def name(self) -> str:
        """The first of its roles."""
        return self.roles[0]

    def advance(
        self, targets: Targets, seconds: dict[str, float]
    ) -> dict[int, NDArray[np.float32]]:
        """`Context.advance`, timed."""
        if not targets:
            return {}
        with self.lock:
            self.turn += 1
            return self._advance(targets, seconds, None)

    def advance_beside(
        self, targets: Targets, seconds: dict[str, float], turn: int
    ) -> dict[int, NDArray[np.float32]]:
        """The same on one thread, unless the seat has moved since `turn`.

        On another thread than the caller's, who may have been interrupted and gone on meanwhile.
        """
        with self.lock:
            return self._advance(targets, seconds, 1) if turn == self.turn else {}

    def _advance(
        self, targets: Targets, seconds: dict[str, float], n_threads: int | None
    ) -> dict[int, NDArray[np.float32]]:
        begun = perf_counter()
        rows = self.context.advance(targets, n_threads)
        seconds[self.name] = seconds.get(self.name, 0.0) + perf_counter() - begun
        return rows


class Seats:
    """All seats of a recipe, and how they were set up.

    Attributes:
        seats: the base's first.
        n_ctx, n_slots: tokens per slot, slots.
        n_threads, threads_reason: of a decode, and why so many. A matter of the recipe and the
            machine, not of timing: another count may round differently.
        side_by_side: the thread on which a second model decodes, or None.
        cache, cache_reason: kind of KV cache, one for all roles, and why this one.
        vocabulary: what the models' vocabularies share.
        memory: the estimate made before loading.

    Raises:
        ModelFileError, RecipeError, VocabularyError, NotEnoughMemoryError, EngineError,
        RequestError: it cannot be loaded, and nothing stays loaded.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        n_ctx: int | None,
        n_threads: int | None,
        n_gpu_layers: int | None,
        n_slots: int,
    ) -> None:
        whole("n_slots", n_slots, 1, 64)
        for name, value, low, high in (
            ("n_ctx", n_ctx, 1, 2**24),
            ("n_threads", n_threads, 1, 512),
            ("n_gpu_layers", n_gpu_layers, 0, 10_000),
        ):
            if value is not None:
                whole(name, value, low, high)
        roles = recipe.roles()
        verify(recipe)
        headers = memory.headers(roles)
        trained = min(header.n_ctx_train for header in headers.values())
        self.n_ctx = n_ctx or min(recipe.n_ctx or DEFAULT_N_CTX, trained)
        self.n_slots = n_slots
        self.n_threads, self.threads_reason = n_threads or 0, "as given"
        self._adapts = n_threads is None
        if self._adapts:
            self.n_threads, self.threads_reason = default_threads()
            self.threads_reason += f"; one for models below {SMALL >> 20} MiB"
        self._weigh(roles, headers, CACHE_LADDER[0])
        if self.n_ctx > trained:
            log.warning("n_ctx is %d; the models were trained on %d", self.n_ctx, trained)
        with contextlib.ExitStack() as stack:
            models = self._models(roles, n_gpu_layers, stack)
            self.vocabulary = vocabulary.reconcile(models)
            for warning in self.vocabulary.warnings:
                log.warning("%s", warning)
            self.seats = self._open(roles, headers, models, stack)
            self._stack = stack.pop_all()
        self.side_by_side = self._beside()

    def advance(self, lives: Sequence[Live], seconds: dict[str, float]) -> dict[int, Rows]:
        """Bring every needed context to the end of each request's sequence, draft included.

        Args:
            lives: the requests, each in a slot of its own.
            seconds: seat → time, to which what the decodes took is added.

        Returns:
            slot → role → (1, n_vocab) float32 logits, one row per draft that is to be verified
            and one for the token behind them. Roles of coefficient 0 are left out, and their
            contexts where they are, unless the request wants explanations; they catch up when
            they are needed.
        """
        rows: dict[int, Rows] = {live.slot: {} for live in lives}
        wanted: list[tuple[Seat, Targets]] = []
        for i, seat in enumerate(self.seats):
            targets: dict[int, tuple[NDArray[np.int32], int]] = {}
            for live in lives:
                if live.drafter == i and live.draft_rows:
                    rows[live.slot] |= dict.fromkeys(seat.roles, live.draft_rows)
                elif live.request.explain or seat.enters(live.coefficients):
                    targets[live.slot] = (live.sequences[i].view(), len(live.draft) + 1)
            if targets:
                wanted.append((seat, targets))
        for seat, found in self._decode(wanted, seconds):
            for slot, logits in found.items():
                parts = [logits[j : j + 1] for j in range(len(logits))]
                rows[slot] |= dict.fromkeys(seat.roles, parts)
        return rows

    def _decode(
        self, wanted: list[tuple[Seat, Targets]], seconds: dict[str, float]
    ) -> list[tuple[Seat, dict[int, NDArray[np.float32]]]]:
        """Advance seats one after another, but two small ones at once where that helps."""
        small = [job for job in wanted if job[0] is not self.seats[0]]
        if self.side_by_side is None or len(small) != 2 or not all(_appends(*job) for job in small):
            return [(seat, seat.advance(targets, seconds)) for seat, targets in wanted]
        done = [(s, s.advance(targets, seconds)) for s, targets in wanted if s is self.seats[0]]
        (first, here), (second, there) = small
        copied = {slot: (tokens.copy(), n) for slot, (tokens, n) in there.items()}
        apart: dict[str, float] = {}
        begun = perf_counter()
        beside = self.side_by_side.submit(second.advance_beside, copied, apart, second.turn)
        done.append((first, first.advance_beside(here, apart, first.turn)))
        done.append((second, beside.result()))
        together = (perf_counter() - begun) / sum(apart.values())
        for name, spent in apart.items():  # so that the parts of a step add up to it
            seconds[name] = seconds.get(name, 0.0) + together * spent
        return done

    def prefills(self, live: Live) -> bool:
        """Whether a request's next step decodes more than one token of what is given."""
        return not live.tokens and any(
            sequence.n - len(seat.context.tokens(live.slot)) > 1
            for seat, sequence in zip(self.seats, live.sequences, strict=True)
            if seat.enters(live.coefficients)
        )

    def close(self) -> None:
        """Free contexts and models."""
        self._stack.close()

    def _beside(self) -> ThreadPoolExecutor | None:
        """A second thread to decode on, where that helps.

        Two cores are better used by two models than by two threads of one, which wait for each
        other a thousand times a token. With more cores each model would have several threads still,
        and a second team of OpenMP slows the first.
        """
        threaded = [seat for seat in self.seats[1:] if seat.context.n_threads == 2]
        rounds_alike = self.cache == CACHE_LADDER[0]
        if len(threaded) < 2 or not rounds_alike or gpu_available():
            return None
        pool = ThreadPoolExecutor(1, thread_name_prefix="edge_eft-decode")
        self._stack.callback(pool.shutdown)
        self.threads_reason += "; steps without drafts decode two small models side by side"
        return pool

    @staticmethod
    def _models(
        roles: Mapping[str, ModelSpec], n_gpu_layers: int | None, stack: contextlib.ExitStack
    ) -> dict[str, Model]:
        loaded: dict[str, Model] = {}
        for spec in roles.values():
            path = os.path.realpath(spec.file)
            if path not in loaded:
                loaded[path] = Model(spec.file, n_gpu_layers=n_gpu_layers)
                stack.callback(loaded[path].close)
        return {role: loaded[os.path.realpath(spec.file)] for role, spec in roles.items()}

    def _weigh(
        self, roles: Mapping[str, ModelSpec], headers: Mapping[str, GGUFHeader], kind: CacheKind
    ) -> None:
        """Refuse what does not fit. What a GPU has free is not known; unified memory counts."""
        self.memory = memory.estimate(
            roles,
            headers,
            n_ctx=self.n_ctx,
            n_slots=self.n_slots,
            n_outputs=OUTPUTS_PER_SLOT * self.n_slots,
            kv_bytes=memory.Q8_0_BYTES if kind.kv_type == "q8_0" else memory.F16_BYTES,
        )
        memory.check(self.memory)

    def _open(
        self,
        roles: Mapping[str, ModelSpec],
        headers: Mapping[str, GGUFHeader],
        models: Mapping[str, Model],
        stack: contextlib.ExitStack,
    ) -> list[Seat]:
        shared: dict[tuple[Any, ...], list[str]] = {}
        for role, spec in roles.items():
            side = role.partition(":")[0]
            shared.setdefault((side, models[role], spec.lora, spec.prompt), []).append(role)
        adapters = {key: key[2] and key[1].load_adapter(key[2]) for key in shared}
        reason = "the smallest, and every model takes it"
        for kind in CACHE_LADDER:
            if kind.kv_type != CACHE_LADDER[0].kv_type:
                self._weigh(roles, headers, kind)
            opened = contextlib.ExitStack()
            try:
                contexts = [self._context(key[1], adapters[key], kind, opened) for key in shared]
            except EngineError as error:
                opened.close()
                if kind == CACHE_LADDER[-1]:
                    raise
                reason = str(error)
                log.info("%s; trying the next kind of cache", reason)
                continue
            stack.push(opened)
            self.cache: CacheKind = kind
            self.cache_reason = reason
            break
        return [
            Seat(tuple(names), model, context, PromptFormat(prompt or "plain", model))
            for ((_, model, _, prompt), names), context in zip(
                shared.items(), contexts, strict=True
            )
        ]

    def _context(
        self, model: Model, adapter: Any, kind: CacheKind, stack: contextlib.ExitStack
    ) -> Context:
        context = Context(
            model,
            n_ctx=self.n_ctx,
            n_slots=self.n_slots,
            n_threads=1 if self._adapts and model.header.n_bytes < SMALL else self.n_threads,
            n_outputs=OUTPUTS_PER_SLOT * self.n_slots,
            cache=kind,
            lora=adapter,
        )
        stack.callback(context.close)
        return context


def _appends(seat: Seat, targets: Targets) -> bool:
    """Whether at most one token follows what a context holds, of every sequence."""
    return all(
        keep_last == 1 and 0 <= len(tokens) - len(seat.context.tokens(slot)) <= 1
        for slot, (tokens, keep_last) in targets.items()
    )
