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
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backend import common_prefix
from .combiner import Combiner, Weights, log_partition
from .errors import EngineError, PromptError, RequestError
from .explain import explain
from .live import OUTPUTS_PER_SLOT, Live, TokenSequence
from .recipe import Recipe, from_files, load_recipe
from .request import FinishReason, Generation, Prompt, Request, Step, Timings
from .sampling import sample
from .seats import Rows, Seat, Seats
from .speculative import Drafter
from .template import continue_raw, encode_raw
from .text import TextStream

REMEMBERED_REPLIES = 256


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
        self._combiner = Combiner(
            self.vocabulary.n_vocab,
            self.vocabulary.end_token,
            self.vocabulary.end_tokens,
            self.vocabulary.masked,
        )
        self._drafter = Drafter(self.seats, self._combiner, self.n_ctx)
        self.drafts = self._drafter.policy
        self._combined = np.empty((1, self.vocabulary.n_vocab), np.float32)
        self._scratch = np.empty_like(self._combined)
        self._ids = itertools.count()
        self._waiting: deque[Live] = deque()
        self._live: dict[int, Live] = {}
        self._replies: OrderedDict[str, tuple[int, ...]] = OrderedDict()

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
        return self._submit(request).id

    def _submit(self, request: Request) -> Live:
        live = self._prepare(request)
        self._waiting.append(live)
        return live

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
            text=TextStream(self.seats[0].model.piece, request.stop),
            prompt_tokens=sequences[0].n,
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
            EngineError: llama.cpp failed or a model gave NaN. AbortedError: `interrupt`.
                Requests stay live and contexts consistent; `cancel` what should not go on.
        """
        self._admit()
        lives = list(self._live.values())
        if not lives:
            return []
        started = perf_counter()
        in_prefill = any(not live.tokens for live in lives)
        seconds: dict[str, float] = {}
        with contextlib.ExitStack() as stack:
            for live in lives:
                stack.enter_context(live.drafting())
            self._drafter.draft(lives, seconds)
            rows = self.setup.advance(lives, seconds)
        steps = []
        for live in lives:
            steps += self._verify(live, rows[live.slot], seconds, started)
        if not in_prefill:
            self._drafter.observe(lives, perf_counter() - started)
        return steps

    def _admit(self) -> None:
        """Give waiting requests the free slots, each the one that holds most of its prompt."""
        free = set(range(self.n_slots)) - {live.slot for live in self._live.values()}
        while self._waiting and free:
            live = self._waiting.popleft()
            live.slot = max(sorted(free), key=lambda slot: self._held(live, slot))
            free.remove(live.slot)
            self._live[live.id] = live

    def _held(self, live: Live, slot: int) -> int:
        """How many of the request's prompt tokens the caches of a slot hold already."""
        return sum(
            common_prefix(seat.context.tokens(slot), sequence.view())
            for seat, sequence in zip(self.seats, live.sequences, strict=True)
        )

    def _combine(
        self, live: Live, rows: Mapping[str, NDArray[np.float32]]
    ) -> tuple[NDArray[np.float32], float]:
        """(1, vocab) combined logits, overwritten by the next call, and their log-partition."""
        out, scratch = self._combined, self._scratch
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
        return out, float(log_partition(out, scratch)[0])

    def _verify(
        self, live: Live, rows: Rows, seconds: dict[str, float], started: float
    ) -> list[Step]:
        """Choose tokens for as long as they are the drafted ones, and the one that follows."""
        drafts: list[int | None] = [*live.draft]
        if live.draft_ends:
            drafts.append(self.vocabulary.end_token)
        steps: list[Step] = []
        n_rows = min(len(parts) for parts in rows.values())
        for j in range(n_rows):
            timings = Timings()
            if j == 0:  # the block's decodes are charged to its first token
                (timings.decode if live.tokens else timings.prefill).update(seconds)
            tested = j < len(drafts)
            step = self._choose(live, {role: parts[j] for role, parts in rows.items()}, timings)
            accepted = step.token == drafts[j] if tested else None
            now = perf_counter()
            timings.total, started = now - started, now
            steps.append(replace(step, accepted=accepted))
            if accepted is not None:
                self.drafts.observe_draft(accepted)
            if step.finish_reason:
                self._finish(live, step.finish_reason)
            if step.finish_reason or not accepted:
                break
        return steps

    def _choose(
        self, live: Live, rows: Mapping[str, NDArray[np.float32]], timings: Timings
    ) -> Step:
        """Combine → sample → text: one token of one request."""
        index, request = len(live.tokens), live.request
        t0 = perf_counter()
        logits, log_z = self._combine(live, rows)
        t1 = perf_counter()
        token = int(sample(logits, [request], [index], [live.counts])[0])
        logprob = float(logits[0, token]) - log_z
        t2 = perf_counter()
        text, finish_reason = self._take(live, token)
        t3 = perf_counter()
        timings.combine, timings.sample, timings.text = t1 - t0, t2 - t1, t3 - t2
        views = (
            explain(rows, token, request.explain, self._combiner, self.seats[0].model.piece)
            if request.explain
            else None
        )
        return Step(live.id, index, token, text, logprob, timings, finish_reason, views)

    def _take(self, live: Live, token: int) -> tuple[str, FinishReason | None]:
        """Make the token part of the reply; text to show, and whether the reply ends."""
        if token == self.vocabulary.end_token:
            return live.text.flush(), "stop"
        full = live.room(self.n_ctx) <= 1
        live.take(token)
        text = live.text.push(token)
        if live.text.finished:
            return text, "stop"
        if full:
            return text + live.text.flush(), "length"
        return text, None

    def _finish(self, live: Live, reason: FinishReason) -> None:
        """Free the slot, and remember the reply's ids for when it comes back in a prompt."""
        del self._live[live.id]
        live.finish_reason = reason
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
        self._weigh(self._find(request_id), weights)

    def cancel(self, request_id: int) -> None:
        """Stop a request; its slot is free at once. Nothing happens if it has ended already."""
        with contextlib.suppress(RequestError):
            live = self._find(request_id)
            if live.slot < 0:
                self._waiting.remove(live)
                live.finish_reason = "cancelled"
            else:
                live.text.flush()
                self._finish(live, "cancelled")

    def _find(self, request_id: int) -> Live:
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
        yield from self._steps_of(self._submit(_as_request(prompt, options)))

    def _steps_of(self, live: Live) -> Iterator[Step]:
        """Steps until this request ends; other live requests go on beside it."""
        try:
            while live.finish_reason is None:
                yield from (step for step in self.step() if step.request_id == live.id)
        finally:
            self.cancel(live.id)

    def generate(self, prompt: Prompt | Request, **options: Any) -> Generation:
        """One whole reply; arguments and errors as `stream`."""
        live = self._submit(_as_request(prompt, options))
        timings, text, verdicts = Timings(), [], []
        for step in self._steps_of(live):
            timings.add(step.timings)
            text.append(step.text)
            verdicts.append(step.accepted)
        assert live.finish_reason is not None
        return Generation(
            text="".join(text),
            tokens=live.tokens,
            finish_reason=live.finish_reason,
            prompt_tokens=live.prompt_tokens,
            timings=timings,
            seed=live.request.seed or 0,
            drafts_tested=len(verdicts) - verdicts.count(None),
            drafts_accepted=verdicts.count(True),
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
        # The completion takes the place of a draft: all models see a block of it at once.
        live.drafter = None
        scores = np.empty(len(completion), np.float32)
        for begin in range(0, len(completion), OUTPUTS_PER_SLOT):
            block = list(completion[begin : begin + OUTPUTS_PER_SLOT])
            with live.drafting():
                live.propose(block[:-1])
                rows = self.setup.advance([live], {})[live.slot]
            for j, token in enumerate(block):
                logits, log_z = self._combine(live, {role: part[j] for role, part in rows.items()})
                scores[begin + j] = logits[0, self._slot_token(token)] - log_z
                live.take(token)
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
