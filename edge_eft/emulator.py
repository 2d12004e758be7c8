"""Three contexts that move together: the emulation of a fine-tuned model, token by token.

`Emulator.submit` → `step` is the core, for one request or many; `stream` and `generate` wrap it.
At every step each role's context is brought to its own prompt followed by the shared reply, the
logit rows are combined, one token is chosen per slot and becomes part of every role's sequence.

An emulator belongs to one thread. Only `interrupt` may be called from another.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backend import common_prefix
from .chooser import Chooser
from .combiner import Combiner, Weights
from .draft_policy import DraftPolicy
from .errors import EngineError, PromptError, RequestError
from .live import OUTPUTS_PER_SLOT, Live, TokenSequence
from .recipe import Recipe, from_files, load_recipe
from .request import FinishReason, Generation, Prompt, Reply, Request, Step
from .seats import Seat, Seats
from .slots import Replies, Slots
from .speculative import Drafter
from .template import continue_raw, encode_raw
from .text import TextStream


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
        self.recipe = recipe
        self.deltas = {delta.name: delta.weight for delta in recipe.deltas.values()}
        self.setup = Seats(
            recipe, n_ctx=n_ctx, n_threads=n_threads, n_gpu_layers=n_gpu_layers, n_slots=n_slots
        )
        self.seats: list[Seat] = self.setup.seats
        self.n_ctx, self.n_slots = self.setup.n_ctx, n_slots
        self.vocabulary = self.setup.vocabulary
        combiner = Combiner(
            self.vocabulary.n_vocab,
            self.vocabulary.end_token,
            self.vocabulary.end_tokens,
            self.vocabulary.masked,
        )
        self._drafter = Drafter(self.seats, combiner, self.n_ctx)
        piece = self.seats[0].model.piece
        self._chooser = Chooser(combiner, self.deltas, piece, self.n_ctx)
        self._ids = itertools.count()
        self._slots = Slots(n_slots)
        self._replies = Replies()

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

    # -- the step loop ---------------------------------------------------------------------

    def submit(self, request: Request) -> int:
        """Queue a request; its id. It starts with the next `step` that finds a free slot.

        Raises:
            PromptError: the prompt does not fit the context, or a template fails on it.
            RequestError: the weights name what the recipe does not have.
        """
        live = self._prepare(request)
        self._slots.enqueue(live)
        return live.id

    def check(self, request: Request) -> int:
        """Length of the base's prompt; raises what `submit` would, and submits nothing."""
        return self._prepare(request).prompt_tokens

    def _prepare(self, request: Request) -> Live:
        request.check_vocabulary(self.vocabulary.n_vocab)
        sequences = []
        for seat in self.seats:
            ids = self._encode(seat, request.prompt)
            if len(ids) >= self.n_ctx:
                raise PromptError(
                    f"the prompt is {len(ids)} tokens for {seat.name}, and {self.n_ctx - 1} fit "
                    f"(n_ctx {self.n_ctx} less one for the reply); shorten it or raise n_ctx"
                )
            sequences.append(TokenSequence.of(ids, self.n_ctx))
        live = Live(
            id=next(self._ids),
            request=request,
            coefficients={},
            sequences=sequences,
            text=self._text_stream(request),
        )
        self._weigh(live, request.weights)
        return live

    def _weigh(self, live: Live, weights: Weights) -> None:
        """Put weights into force. The tuned model with the largest coefficient drafts."""
        if live.request.conservative is not None:
            weights.conservative_role(self.deltas)
        live.coefficients = weights.coefficients(self.deltas)
        live.request = replace(live.request, weights=weights)
        tuned = [role for role in live.coefficients if role.startswith("tuned:")]
        drafter = max(tuned, key=lambda role: live.coefficients[role])
        others = [role for role, c in live.coefficients.items() if c and role != drafter]
        live.drafter = None
        if others and live.coefficients[drafter] > 0:
            live.drafter = next(i for i, s in enumerate(self.seats) if drafter in s.roles)

    def _encode(self, seat: Seat, prompt: Prompt) -> list[int]:
        if isinstance(prompt, str):
            return encode_raw(prompt, seat.model)
        return seat.prompt.encode(prompt, replies=self._replies)

    def step(self) -> list[Step]:
        """Go on with every live request, in one batch per model.

        Returns:
            At least one Step per live request, several where drafts were accepted; [] when there
            is nothing to do. A step with a `finish_reason` is its request's last.

        Raises:
            EngineError: llama.cpp failed; requests stay live and contexts consistent. Or one
                request failed (a model gave NaN, its bias leaves no token): it has ended, the
                others go on, and what they had ready was given out before.
            AbortedError: `interrupt`.
        """
        for live in self._slots:
            self._raise_failure(live)
        self._fill()
        steps = [step for live in self._slots for step in self._give_out(live)]
        if not steps:
            for live in self._slots:
                self._raise_failure(live)
        return steps

    def _fill(self) -> None:
        """Choose tokens for every live request; they are pending until they are given out."""
        self._slots.admit(self._kept)
        lives = self._slots.live()
        if not lives:
            return
        started = perf_counter()
        timed = not any(self.setup.prefills(live) for live in lives)
        n_before = sum(len(live.pending) for live in lives)
        seconds: dict[str, float] = {}
        for live in lives:
            live.begin_draft()
        try:
            self._drafter.draft(lives, seconds, timed=timed)
            rows = self.setup.advance(lives, seconds)
        finally:
            for live in lives:
                live.end_draft()
        for live in lives:
            try:
                self._chooser.verify(live, rows[live.slot], seconds, started, self.drafts)
            except EngineError as error:  # of this request alone: the others go on
                live.failure, live.slot = error, -1
        if timed:
            n_tokens = sum(len(live.pending) for live in lives) - n_before
            self._drafter.observe(lives, n_tokens, perf_counter() - started)

    def _give_out(self, live: Live) -> Iterator[Step]:
        """The pending steps of a request, which ends with its last step."""
        while live.pending:
            step = live.pending.popleft()
            if step.finish_reason:
                self._finish(live, step.finish_reason)
            yield step

    def _raise_failure(self, live: Live) -> None:
        """End a request that failed, with its error, once its steps are given out."""
        if live.failure is not None and not live.pending:
            self._finish(live, "cancelled")
            raise live.failure

    def _retract(self, live: Live) -> None:
        """Make the reply what the reader has seen of it: tokens behind that are taken back."""
        if live.pending:
            live.retract()
            live.text = self._text_stream(live.request)
            for token in live.tokens:
                live.text.push(token)

    def _text_stream(self, request: Request) -> TextStream:
        return TextStream(self.seats[0].model.piece, request.stop)

    def _kept(self, live: Live, slot: int) -> float:
        """The share of what a slot's caches hold that the request's prompt keeps."""
        pairs = [
            (seat.context.tokens(slot), sequence.view())
            for seat, sequence in zip(self.seats, live.sequences, strict=True)
        ]
        n_held = sum(len(held) for held, _ in pairs)
        return sum(common_prefix(held, wanted) for held, wanted in pairs) / max(n_held, 1)

    def _finish(self, live: Live, reason: FinishReason) -> None:
        """Free the slot, and remember the reply's ids for when it comes back in a prompt."""
        self._slots.release(live, reason)
        self._replies.remember(live.text.text, live.tokens, self.seats[0].model.piece)

    def set_weights(self, request_id: int, weights: Weights) -> None:
        """Change the weights of a request; acts from the next token that is given out.

        Raises:
            RequestError: no such request is in work, or the weights do not suit the recipe.
        """
        live = self._slots.find(request_id)
        if not isinstance(weights, Weights):
            raise RequestError(f"weights is {weights!r:.40}; it must be a Weights")
        self._weigh(live, weights)
        self._retract(live)

    def cancel(self, request_id: int) -> None:
        """Stop a request; its slot is free at once. Nothing happens if it has ended already."""
        with contextlib.suppress(RequestError):
            live = self._slots.find(request_id)
            self._retract(live)
            live.text.flush()
            self._finish(live, "cancelled")

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

    @property
    def drafts(self) -> DraftPolicy:
        """What is known of drafts, their cost and their use; another may be put in its place."""
        return self._drafter.policy

    @drafts.setter
    def drafts(self, policy: DraftPolicy) -> None:
        self._drafter.policy = policy

    # -- wrappers --------------------------------------------------------------------------

    def stream(self, prompt: Prompt | Request, **options: Any) -> Generator[Step, None, None]:
        """The steps of one request as they come; closing the iterator cancels it.

        Args:
            prompt: text, messages, or a whole `Request` (then no options).
            options: the fields of `Request`: weights, max_tokens, temperature, top_k, top_p,
                min_p, seed, stop, conservative, explain, repetition_penalty …

        Raises:
            as `submit`, at the first step, and as `step`.
        """
        yield from self._steps_of(self._prepare(_as_request(prompt, options)))

    def _steps_of(self, live: Live) -> Iterator[Step]:
        """Steps until this request ends; those of other live requests stay pending for them."""
        try:
            self._slots.enqueue(live)
            while live.finish_reason is None:
                if not live.pending:
                    self._fill()
                yield from self._give_out(live)
                self._raise_failure(live)
        finally:
            self.cancel(live.id)

    def generate(self, prompt: Prompt | Request, **options: Any) -> Generation:
        """One whole reply; arguments and errors as `stream`."""
        live = self._prepare(_as_request(prompt, options))
        reply = Reply(live.request, live.prompt_tokens, self.vocabulary.end_token)
        for step in self._steps_of(live):
            reply.take(step)
        return reply.generation()

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
        self._slots.place(live, self._kept)
        longest = max(sequence.n for sequence in live.sequences)
        if longest + len(completion) - 1 > self.n_ctx:  # the last token is not decoded
            raise PromptError(
                f"prompt and completion are {longest + len(completion)} tokens and "
                f"{self.n_ctx + 1} fit"
            )
        slots = [self.vocabulary.slot_of(token) for token in completion]
        # The completion takes the place of a draft: all models see a block of it at once.
        live.drafter = None
        scores = np.empty(len(completion), np.float32)
        for begin in range(0, len(completion), OUTPUTS_PER_SLOT):
            block = list(completion[begin : begin + OUTPUTS_PER_SLOT])
            live.begin_draft()
            live.propose(block[:-1])
            try:
                rows = self.setup.advance([live], {})[live.slot]
            finally:
                live.end_draft()
            for j, token in enumerate(block):
                at = {role: parts[j] for role, parts in rows.items()}
                logits, log_z = self._chooser.combine(live, at)
                scores[begin + j] = logits[0, slots[begin + j]] - log_z
                live.take(token)
        return scores

    def close(self) -> None:
        """Free contexts and models. Nothing else may be called afterwards."""
        for live in self._slots:
            self._slots.release(live, "cancelled")
        self.setup.close()

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
