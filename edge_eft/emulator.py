"""Three contexts that move together: the emulation of a fine-tuned model, token by token.

`Emulator.submit` → `step` is the core, for one request or many; `stream` and `generate` wrap it.
At every step each role's context is brought to its own prompt followed by the shared reply, the
logit rows are combined, one token is chosen per slot and becomes part of every role's sequence.

An emulator belongs to one thread. Only `interrupt` may be called from another.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import memory, vocabulary
from .backend import CACHE_LADDER, CacheKind, Context, Model, default_threads, gpu_available
from .combiner import BASE, Combiner, Weights, log_partition
from .errors import EngineError, PromptError, RequestError
from .nucleus import largest
from .recipe import ModelSpec, Recipe, from_files, load_recipe, verify
from .request import FinishReason, Generation, Prompt, Request, RoleView, Step, Timings
from .sampling import sample
from .template import PromptFormat, continue_raw, encode_raw
from .text import TextStream

log = logging.getLogger(__name__)

DEFAULT_N_CTX = 4096
OUTPUTS_PER_SLOT = 16  # logit rows per slot in one decode: blocks of `score`, drafts
REMEMBERED_REPLIES = 256


@dataclass
class Seat:
    """One context and the roles that it serves: several deltas may share a reference."""

    roles: tuple[str, ...]
    model: Model
    context: Context
    prompt: PromptFormat

    @property
    def name(self) -> str:
        """The first of its roles."""
        return self.roles[0]


@dataclass
class _Sequence:
    """A role's prompt and the reply so far, (n_ctx,) int32 of which `n` are in use."""

    tokens: NDArray[np.int32]
    n: int

    @classmethod
    def of(cls, prompt: Sequence[int], n_ctx: int) -> _Sequence:
        tokens = np.empty(n_ctx, np.int32)
        tokens[: len(prompt)] = prompt
        return cls(tokens, len(prompt))

    def append(self, token: int) -> None:
        self.tokens[self.n] = token
        self.n += 1

    def view(self) -> NDArray[np.int32]:
        return self.tokens[: self.n]


@dataclass
class _Live:
    """A request in work: its slot, one sequence per seat, and the reply so far."""

    id: int
    request: Request
    coefficients: dict[str, float]
    sequences: list[_Sequence]
    text: TextStream
    prompt_tokens: int
    slot: int = -1
    tokens: list[int] = field(default_factory=list)
    counts: Counter[int] = field(default_factory=Counter)


class Emulator:
    """A loaded recipe. Use it as a context manager, or `close` it.

    Args:
        recipe: the models and their prompt formats.
        n_ctx: tokens per slot; None: the recipe's, else 4,096, never more than the smallest
            training context of the models.
        n_threads: of every decode; None: the physical cores.
        n_gpu_layers: of every model; None: all that the backend offers.
        n_slots: requests that are decoded together; more wait in a queue.

    Raises:
        ModelFileError, RecipeError, VocabularyError, NotEnoughMemoryError, EngineError: the
            recipe cannot be loaded; nothing stays loaded.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        n_ctx: int | None = None,
        n_threads: int | None = None,
        n_gpu_layers: int | None = None,
        n_slots: int = 1,
    ) -> None:
        for name, value in (("n_ctx", n_ctx), ("n_threads", n_threads), ("n_slots", n_slots)):
            if value is not None and value < 1:
                raise RequestError(f"{name} is {value}; it must be 1 or more")
        self.recipe = recipe
        self.n_slots = n_slots
        self.deltas = {delta.name: delta.weight for delta in recipe.deltas.values()}
        self.n_threads, self.threads_reason = (
            default_threads() if n_threads is None else (n_threads, "as given")
        )
        self._stack = contextlib.ExitStack()
        try:
            self._load(n_ctx, n_gpu_layers)
        except BaseException:
            self._stack.close()
            raise
        self._ids = itertools.count()
        self._waiting: deque[_Live] = deque()
        self._live: dict[int, _Live] = {}
        self._replies: OrderedDict[str, tuple[int, ...]] = OrderedDict()
        width = self.vocabulary.n_vocab
        self._combined = np.empty((OUTPUTS_PER_SLOT, width), np.float32)
        self._scratch = np.empty((OUTPUTS_PER_SLOT, width), np.float32)

    @classmethod
    def load(
        cls,
        recipe: str | os.PathLike[str],
        *,
        n_ctx: int | None = None,
        n_threads: int | None = None,
        n_gpu_layers: int | None = None,
        n_slots: int = 1,
    ) -> Emulator:
        """An embedded recipe by its name ("atlas"), or one by the path of its TOML file."""
        return cls(
            load_recipe(recipe),
            n_ctx=n_ctx,
            n_threads=n_threads,
            n_gpu_layers=n_gpu_layers,
            n_slots=n_slots,
        )

    @classmethod
    def from_files(
        cls,
        *,
        base: str | os.PathLike[str],
        tuned: str | os.PathLike[str],
        reference: str | os.PathLike[str],
        prompt: str = "plain",
        n_ctx: int | None = None,
        n_threads: int | None = None,
        n_gpu_layers: int | None = None,
        n_slots: int = 1,
    ) -> Emulator:
        """Three GGUF files; `prompt` is the format of base and reference, tuned has its template.

        The one delta is named "tuned".
        """
        return cls(
            from_files(base=base, tuned=tuned, reference=reference, prompt=prompt),
            n_ctx=n_ctx,
            n_threads=n_threads,
            n_gpu_layers=n_gpu_layers,
            n_slots=n_slots,
        )

    def _load(self, n_ctx: int | None, n_gpu_layers: int | None) -> None:
        roles = self.recipe.roles()
        verify(self.recipe)
        headers = memory.headers(roles)
        trained = min(header.n_ctx_train for header in headers.values())
        self.n_ctx = n_ctx or min(self.recipe.n_ctx or DEFAULT_N_CTX, trained)
        if self.n_ctx > trained:
            log.warning("n_ctx %d exceeds the %d of the training", self.n_ctx, trained)
        n_outputs = OUTPUTS_PER_SLOT * self.n_slots
        self.memory = memory.estimate(
            roles, headers, n_ctx=self.n_ctx, n_slots=self.n_slots, n_outputs=n_outputs
        )
        if not gpu_available():
            memory.check(self.memory)

        models: dict[str, Model] = {}
        for spec in roles.values():
            key = os.path.realpath(spec.file)
            if key not in models:
                models[key] = Model(spec.file, n_gpu_layers=n_gpu_layers)
                self._stack.callback(models[key].close)
        by_role = {role: models[os.path.realpath(spec.file)] for role, spec in roles.items()}
        self.vocabulary = vocabulary.reconcile(by_role)
        for warning in self.vocabulary.warnings:
            log.warning("%s", warning)
        self._combiner = Combiner(
            self.vocabulary.n_vocab,
            self.vocabulary.end_token,
            self.vocabulary.end_tokens,
            self.vocabulary.masked,
        )
        self.seats = self._seats(roles, by_role, n_outputs)
        self._seat_of = {role: seat for seat in self.seats for role in seat.roles}

    def _seats(
        self, roles: Mapping[str, ModelSpec], models: Mapping[str, Model], n_outputs: int
    ) -> list[Seat]:
        """One context per distinct (side, model, adapter, prompt), all with one kind of cache."""
        shared: dict[tuple[Any, ...], list[str]] = {}
        for role, spec in roles.items():
            side = role.partition(":")[0]
            shared.setdefault((side, models[role], spec.lora, spec.prompt), []).append(role)
        formats = {key: PromptFormat(key[3], models[names[0]]) for key, names in shared.items()}
        for kind in CACHE_LADDER:
            with contextlib.ExitStack() as stack:
                try:
                    contexts = {
                        key: self._context(key[1], key[2], kind, n_outputs, stack) for key in shared
                    }
                except EngineError as error:
                    if kind == CACHE_LADDER[-1]:
                        raise
                    log.info("%s; trying the next kind of cache", error)
                    self.cache_reason = str(error)
                    continue
                self._stack.push(stack.pop_all())
                break
        self.cache: CacheKind = kind
        if kind == CACHE_LADDER[0]:
            self.cache_reason = "smallest, and every model takes it"
        return [
            Seat(tuple(names), key[1], contexts[key], formats[key]) for key, names in shared.items()
        ]

    def _context(
        self, model: Model, lora: Any, kind: CacheKind, n_outputs: int, stack: contextlib.ExitStack
    ) -> Context:
        context = Context(
            model,
            n_ctx=self.n_ctx,
            n_slots=self.n_slots,
            n_threads=self.n_threads,
            n_outputs=n_outputs,
            cache=kind,
            lora=lora and model.load_adapter(lora),
        )
        stack.callback(context.close)
        return context

    # -- the step loop ---------------------------------------------------------------------

    def submit(self, request: Request) -> int:
        """Queue a request; its id. It starts with the next `step` that finds a free slot.

        Raises:
            PromptError: the prompt does not fit the context, or a template fails on it.
            RequestError: the weights name what the recipe does not have.
        """
        live = self._prepare(request)
        self._waiting.append(live)
        return live.id

    def _prepare(self, request: Request) -> _Live:
        coefficients = self._coefficients(request, request.weights)
        sequences = []
        for seat in self.seats:
            ids = self._encode(seat, request.prompt)
            if len(ids) >= self.n_ctx:
                raise PromptError(
                    f"the prompt is {len(ids)} tokens for {seat.name}, and {self.n_ctx - 1} fit "
                    f"(n_ctx {self.n_ctx} less one for the reply); shorten it or raise n_ctx"
                )
            sequences.append(_Sequence.of(ids, self.n_ctx))
        return _Live(
            id=next(self._ids),
            request=request,
            coefficients=coefficients,
            sequences=sequences,
            text=TextStream(self.seats[0].model.piece, request.stop),
            prompt_tokens=sequences[0].n,
        )

    def _coefficients(self, request: Request, weights: Weights) -> dict[str, float]:
        if request.conservative is not None:
            weights.conservative_role(self.deltas)
        return weights.coefficients(self.deltas)

    def _encode(self, seat: Seat, prompt: Prompt) -> list[int]:
        if isinstance(prompt, str):
            return encode_raw(prompt, seat.model)
        return seat.prompt.encode(prompt, replies=self._replies)

    def step(self) -> list[Step]:
        """One more token for every live request, in one batch per model.

        Returns:
            one Step per live request; [] when there is nothing to do. A step with a
            `finish_reason` is the request's last.

        Raises:
            EngineError: llama.cpp failed or a model gave NaN. AbortedError: `interrupt`.
                Requests stay live and contexts consistent; `cancel` what should not go on.
        """
        self._admit()
        if not self._live:
            return []
        started = perf_counter()
        rows, decode_seconds = self._advance(list(self._live.values()))
        steps = []
        for live in list(self._live.values()):
            step = self._choose(live, rows[live.slot], decode_seconds, started)
            steps.append(step)
            if step.finish_reason:
                self._finish(live)
        return steps

    def _admit(self) -> None:
        """Give waiting requests the free slots, each the one that holds most of its prompt."""
        free = set(range(self.n_slots)) - {live.slot for live in self._live.values()}
        while self._waiting and free:
            live = self._waiting.popleft()
            live.slot = max(sorted(free), key=lambda slot: self._held(live, slot))
            free.remove(live.slot)
            self._live[live.id] = live

    def _held(self, live: _Live, slot: int) -> int:
        """How many of the request's prompt tokens the caches of a slot hold already."""
        total = 0
        for seat, sequence in zip(self.seats, live.sequences, strict=True):
            held, wanted = seat.context.tokens(slot), sequence.view()
            n = min(len(held), len(wanted))
            differing = np.flatnonzero(held[:n] != wanted[:n])
            total += int(differing[0]) if len(differing) else n
        return total

    def _advance(
        self, lives: Sequence[_Live], keep_last: int = 1
    ) -> tuple[dict[int, dict[str, NDArray[np.float32]]], dict[str, float]]:
        """Bring every needed seat up to date: slot → role → (keep_last, n_vocab) logits."""
        rows: dict[int, dict[str, NDArray[np.float32]]] = {live.slot: {} for live in lives}
        seconds = {}
        for i, seat in enumerate(self.seats):
            targets = {
                live.slot: (live.sequences[i].view(), keep_last)
                for live in lives
                if live.request.explain or any(live.coefficients[r] for r in seat.roles)
            }
            if not targets:
                continue
            begun = perf_counter()
            for slot, logits in seat.context.advance(targets).items():
                rows[slot] |= dict.fromkeys(seat.roles, logits)
            seconds[seat.name] = perf_counter() - begun
        return rows, seconds

    def _combine(
        self, live: _Live, rows: Mapping[str, NDArray[np.float32]]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(rows, vocab) combined logits and (rows,) their log-partition."""
        n = len(next(iter(rows.values())))
        out, scratch = self._combined[:n], self._scratch[:n]
        if live.request.conservative is None:
            self._combiner.combine(rows, live.coefficients, out=out, scratch=scratch)
        else:
            self._combiner.combine_conservative(
                rows,
                live.coefficients,
                live.request.weights.conservative_role(self.deltas),
                live.request.conservative,
                out=out,
                scratch=scratch,
            )
        return out, log_partition(out, scratch)

    def _choose(
        self,
        live: _Live,
        rows: Mapping[str, NDArray[np.float32]],
        decode_seconds: dict[str, float],
        started: float,
    ) -> Step:
        """Combine, sample, take the token into the reply: numbered as in the module's docstring."""
        index, request = len(live.tokens), live.request
        t0 = perf_counter()
        logits, log_z = self._combine(live, rows)
        t1 = perf_counter()
        token = int(sample(logits, [request], [index], [live.counts])[0])
        logprob = float(logits[0, token] - log_z[0])
        t2 = perf_counter()
        text, finish_reason = self._take(live, token)
        explain = self._explain(rows, token, request.explain) if request.explain else None
        t3 = perf_counter()
        timings = Timings(combine=t1 - t0, sample=t2 - t1, text=t3 - t2, total=t3 - started)
        if index == 0:
            timings.prefill = decode_seconds
        else:
            timings.decode = decode_seconds
        return Step(live.id, index, token, text, logprob, timings, finish_reason, explain)

    def _take(self, live: _Live, token: int) -> tuple[str, FinishReason | None]:
        """Append the token to the reply and to every role's sequence; text to show, and the end."""
        if token == self.vocabulary.end_token:
            return live.text.flush(), "stop"
        live.tokens.append(token)
        live.counts[token] += 1
        text = live.text.push(token)
        if live.text.finished:
            return text, "stop"
        full = max(sequence.n for sequence in live.sequences) >= self.n_ctx
        if full or len(live.tokens) >= live.request.max_tokens:
            return text + live.text.flush(), "length"
        for sequence in live.sequences:
            sequence.append(token)
        return text, None

    def _explain(
        self, rows: Mapping[str, NDArray[np.float32]], token: int, n: int
    ) -> dict[str, RoleView]:
        views = {}
        model = self.seats[0].model
        for role, row in rows.items():
            log_p = np.empty_like(self._combined[:1])
            self._combiner.combine(rows, {role: 1.0}, out=log_p, scratch=self._scratch[:1])
            log_p -= log_partition(log_p, self._scratch[:1])
            ids = largest(log_p[0], min(n, row.shape[-1]))
            top = sorted(((int(i), float(log_p[0, i])) for i in ids), key=lambda t: -t[1])
            views[role] = RoleView(
                float(log_p[0, token]),
                tuple(
                    (i, model.piece(i, special=True).decode("utf-8", "replace"), p) for i, p in top
                ),
            )
        return views

    def _finish(self, live: _Live) -> None:
        """Free the slot, and remember the reply's ids for when it comes back in a prompt."""
        self._live.pop(live.id, None)
        text = live.text.text
        if not live.tokens:
            return
        piece = self.seats[0].model.piece
        # A reply that was cut by a stop string is not what its tokens say: it is tokenised anew.
        if b"".join(map(piece, live.tokens)) == text.encode():
            self._replies[text] = tuple(live.tokens)
            self._replies.move_to_end(text)
            if len(self._replies) > REMEMBERED_REPLIES:
                self._replies.popitem(last=False)

    def set_weights(self, request_id: int, weights: Weights) -> None:
        """Change the weights of a request; acts from the next token.

        Raises:
            RequestError: no such request is in work, or the weights do not suit the recipe.
        """
        live = self._find(request_id)
        live.coefficients = self._coefficients(live.request, weights)
        live.request = replace(live.request, weights=weights)

    def cancel(self, request_id: int) -> None:
        """Stop a request; its slot is free at once. Nothing happens if it has ended already."""
        with contextlib.suppress(RequestError):
            live = self._find(request_id)
            if live.slot < 0:
                self._waiting.remove(live)
            else:
                live.text.flush()
                self._finish(live)

    def _find(self, request_id: int) -> _Live:
        for live in (*self._live.values(), *self._waiting):
            if live.id == request_id:
                return live
        raise RequestError(f"no request {request_id} is in work")

    def interrupt(self) -> None:
        """Stop the decode that is under way, within milliseconds; from any thread.

        `step` then raises AbortedError. `resume` lets it go on where it was.
        """
        for seat in self.seats:
            seat.context.abort()

    def resume(self) -> None:
        """Take `interrupt` back."""
        for seat in self.seats:
            seat.context.resume()

    # -- wrappers --------------------------------------------------------------------------

    def stream(self, prompt: Prompt | Request, **options: Any) -> Iterator[Step]:
        """The steps of one request as they come; closing the iterator cancels it.

        Args:
            prompt: text, messages, or a whole `Request` (then no options).
            options: the fields of `Request`: weights, max_tokens, temperature, top_k, top_p,
                min_p, seed, stop, conservative, explain, repetition_penalty …

        Raises:
            as `submit`, at the first step, and as `step`.
        """
        request_id = self.submit(_as_request(prompt, options))
        try:
            while True:
                for step in self.step():
                    if step.request_id == request_id:
                        yield step
                        if step.finish_reason:
                            return
        finally:
            self.cancel(request_id)

    def generate(self, prompt: Prompt | Request, **options: Any) -> Generation:
        """One whole reply; arguments as `stream`."""
        request = _as_request(prompt, options)
        timings, text, tokens = Timings(), "", []
        for step in self.stream(request):
            timings.add(step.timings)
            text += step.text
            if step.token != self.vocabulary.end_token:
                tokens.append(step.token)
        assert step.finish_reason is not None
        return Generation(
            text,
            tokens,
            step.finish_reason,
            len(self._encode(self.seats[0], request.prompt)),
            timings,
            request.seed or 0,
        )

    def score(
        self,
        prompt: Prompt,
        completion: str | Sequence[int],
        *,
        weights: Weights | None = None,
        conservative: float | None = None,
    ) -> NDArray[np.float32]:
        """Log-probability of each token of a completion under the combined distribution.

        Args:
            prompt: as in `generate`.
            completion: text, tokenised as the continuation of any prompt, or token ids.
            weights: default `Weights.upscale(1.0)`.
            conservative: as in `generate`.

        Returns:
            (n_tokens,) float32. The end token counts as "the reply ends here" of all roles.

        Raises:
            PromptError: prompt and completion do not fit the context together.
            EngineError: all slots are in use.
        """
        if isinstance(completion, str):
            completion = continue_raw(completion, self.seats[0].model)
        request = Request(prompt, weights=weights or Weights(), conservative=conservative)
        live = self._prepare(request)
        busy = {other.slot for other in self._live.values()}
        live.slot = next((s for s in range(self.n_slots) if s not in busy), -1)
        if live.slot < 0:
            raise EngineError(f"all {self.n_slots} slots are in use; step or cancel them first")
        longest = max(sequence.n for sequence in live.sequences)
        if longest + len(completion) > self.n_ctx:
            raise PromptError(
                f"prompt and completion are {longest + len(completion)} tokens and {self.n_ctx} fit"
            )
        scores = np.empty(len(completion), np.float32)
        for begin in range(0, len(completion), OUTPUTS_PER_SLOT):
            block = list(completion[begin : begin + OUTPUTS_PER_SLOT])
            # The row that predicts a token follows the token before it.
            for sequence in live.sequences:
                for token in block[:-1]:
                    sequence.append(token)
            rows, _ = self._advance([live], keep_last=len(block))
            logits, log_z = self._combine(live, rows[live.slot])
            ids = [self._slot_token(token) for token in block]
            scores[begin : begin + len(block)] = logits[np.arange(len(block)), ids] - log_z
            for sequence in live.sequences:
                sequence.append(block[-1])
        return scores

    def _slot_token(self, token: int) -> int:
        """A token id, with every role's end ids meaning the merged end slot."""
        ends = self.vocabulary.end_tokens.values()
        if self.vocabulary.end_token is not None and any(token in ids for ids in ends):
            return self.vocabulary.end_token
        if not 0 <= token < self.vocabulary.n_vocab:
            raise RequestError(f"token {token} is outside 0 … {self.vocabulary.n_vocab - 1}")
        return token

    def close(self) -> None:
        """Free contexts and models. Nothing else may be called afterwards."""
        self._live.clear()
        self._waiting.clear()
        self._stack.close()

    def __enter__(self) -> Emulator:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _as_request(prompt: Prompt | Request, options: Mapping[str, Any]) -> Request:
    if isinstance(prompt, Request):
        if options:
            raise RequestError(
                f"a Request takes no options beside it, such as {next(iter(options))}"
            )
        return prompt
    return Request(prompt, **options)


__all__ = ["BASE", "Emulator", "Seat"]
