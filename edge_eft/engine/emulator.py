"""Three contexts that move together: the emulation of a fine-tuned model, token by token.

`Emulator.submit` → `step` is the core, for one request or many; `stream`, `generate` and `collect`
wrap it. At every step each context is brought to its own prompt followed by the shared reply, the
logit rows are combined, and the tokens that are chosen become part of every sequence.

An emulator belongs to one thread. Only `interrupt` and `encode` may be called from another. The
models run in the caller's process: what kills llama.cpp kills the caller.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from time import perf_counter
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError, RecipeError
from ..files.recipe import Recipe, from_files
from ..files.recipe_names import load_recipe
from ..logits.combiner import Combiner
from ..logits.weights import Weights
from ..text.detokenizer import TextStream
from ..text.prompt_format import ReplyCache
from ..validate import checked_call, kind
from .constrained import Grammars
from .contexts import Rows, Told
from .drafter import Drafter
from .loader import LoadOptions, load
from .prefill import Prefill
from .prefix import begin_reply
from .prompt_scores import PromptScorer
from .readers import collect, steps_of
from .reply import Generation, ReplyBuilder, Step, Timings
from .request import Prompt, Request, as_request
from .request_state import RequestState
from .scheduler import Scheduler
from .score import completion_ids, request_to_score, score
from .verifier import Verifier

File = str | os.PathLike[str]


class Emulator(AbstractContextManager["Emulator"]):
    """A loaded recipe. Use it as a context manager, or `close` it.

    Args:
        recipe: the models and their prompt formats.
        options: how the models are loaded, see `LoadOptions`.

    Attributes:
        contexts: one for every group of roles that can share it, the base's first.
        record: what was decided while loading, and why.
        deltas: name → weight, as in the recipe.
        drafter: makes the drafts; its `policy` learns how long they should be.
        prefill: brings prompts into the caches; its `on_progress` is told how far that is.

    Raises:
        ModelFileError, RecipeError, VocabularyError, NotEnoughMemoryError, EngineError: the
            recipe cannot be loaded; nothing stays loaded.
    """

    @checked_call()
    def __init__(self, recipe: Recipe, **options: Unpack[LoadOptions]) -> None:
        kind("recipe", recipe, Recipe, "a Recipe; Emulator.load takes names and paths", RecipeError)
        self.recipe = recipe
        self.deltas = {delta.name: delta.weight for delta in recipe.deltas.values()}
        self.contexts, self.record = load(recipe, **options)
        self.n_ctx, self.n_slots = self.record.n_ctx, options.get("n_slots", 1)
        self.vocabulary = v = self.record.vocabulary
        combiner = Combiner(v.n_vocab, v.end_token, v.end_tokens, v.masked)
        self._piece = self.contexts.pieces(v.adopters)
        self._grammar = Grammars(self.contexts, v).begin
        self._scheduler = Scheduler(self.n_slots, self.contexts.kept)
        self.prefill = Prefill(self.contexts)
        self.drafter = Drafter(self.contexts, combiner)
        self._verifier = Verifier(combiner, self.deltas, self._piece, self.n_ctx)
        fail = self._scheduler.end
        self._prompts = PromptScorer(self.contexts, self._verifier, v, self._piece, fail)
        self._settled = True
        self._ids = itertools.count()
        self._replies = ReplyCache()

    @classmethod
    @checked_call()
    def load(
        cls, recipe: Recipe | File, *, lora: File | None = None, **options: Unpack[LoadOptions]
    ) -> Emulator:
        """Load a recipe by its name (`edge-eft list` shows them), or by the path of its TOML file.

        Args:
            recipe: name, path, or what `load_recipe` gave.
            lora: an adapter that is to lead its large instruct model (`Recipe.with_lora`).
            options: see `LoadOptions`.
        """
        loaded = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
        return cls(loaded if lora is None else loaded.with_lora(lora), **options)

    @classmethod
    @checked_call()
    def from_files(
        cls,
        *,
        base: File,
        tuned: File,
        reference: File,
        prompt: str | None = None,
        **options: Unpack[LoadOptions],
    ) -> Emulator:
        """Load three GGUF files as one delta, named "tuned".

        Args:
            base, tuned, reference: paths.
            prompt: format of base and reference (None: plain); tuned has its own template.
            options: see `LoadOptions`.
        """
        return cls(from_files(base, tuned, reference, prompt=prompt), **options)

    # -- the step loop ---------------------------------------------------------------------

    @checked_call()
    def submit(self, request: Request, *, told: Told | None = None) -> int:
        """Queue a request and return its id. It starts with the next `step` with a free slot.

        Args:
            told: what `encode` made of it, if it was asked before.

        Raises:
            PromptError: the prompt does not fit the context, or a template fails on it.
            RequestError: the weights name what the recipe lacks, or a grammar cannot be read.
        """
        kind("request", request, Request, "a Request; generate and stream take text and messages")
        state = self._prepare(request, told)
        self._scheduler.submit(state)
        return state.id

    def encode(self, request: Request) -> Told:
        """Return number of a context → the ids of a request's prompt, for `submit`; raises as it.

        A long prompt takes a while, and nothing else waits for it on another thread.
        """
        needed = self.contexts.needed(request, request.weights.coefficients(self.deltas))
        return self.contexts.encode(request, needed, ReplyCache(self._replies))

    def step(self) -> list[Step]:
        """Go on with every request that runs, in one batch per model.

        Returns:
            At least one Step per running request, several where drafts were accepted, and none
            of those whose prompt is still coming, a chunk a call, or that pause. So [] does not
            mean that there is nothing to do: `busy` says that. A step with a `finish_reason` is
            its request's last.

        Raises:
            EngineError: llama.cpp failed; requests keep running and contexts are consistent. Or
                one request, `request_id`, failed (a model gave NaN, its bias leaves no token): it
                has ended, the others go on, and what they had ready was given out before.
            AbortedError: `interrupt`.
        """
        self._scheduler.raise_failures()
        self._run_block()
        if not self._scheduler.pending:
            self._scheduler.raise_failures()
        return self._scheduler.give_out_all()

    def _run_block(self) -> None:
        """Choose tokens for every running request; their steps are pending until given out."""
        self._settle()
        begun = perf_counter()
        # 1. Schedule: free slots go to requests that wait; a prompt that is to be scored gets a
        # block of scores, and a long one a chunk nearer.
        states = self.prefill.bring_near(self._prompts.advance(self._scheduler.admit()))
        if not states:
            return
        ready = perf_counter()
        self.contexts.start_clock()
        self._settled = False
        # 2. Propose: tuned models draft, one token at a time.
        self.drafter.draft(states)
        # 3. Execute: every other context sees its block in one batch.
        rows = self.contexts.advance(states)
        # 4. Verify: as many tokens as were drafted right, and one more.
        chosen = [self._verify(state, rows[state.slot], begun) for state in states]
        self.drafter.observe(states, chosen, perf_counter() - ready)
        for state in states:  # sequences end where replies do
            state.drop_draft()
        self._settled = True

    def _settle(self) -> None:
        """Make whole what an exception left in the midst of a block, whenever it came."""
        if not self._settled:
            self._scheduler.settle()
            self._settled = True

    def _verify(self, state: RequestState, rows: Rows, started: float) -> list[int]:
        """Note the steps of one request, the first charged with all that came before it.

        Returns their tokens.
        """
        tokens: list[int] = []
        try:
            for step in self._verifier.verify(state, rows):
                if not tokens:
                    timings = step.timings
                    decodes = timings.prefill if step.with_prompt else timings.decode
                    decodes.update(self.contexts.seconds())
                    step.timings.add(state.prefill)
                    state.prefill = Timings()
                now = perf_counter()
                step.timings.total += now - started
                started = now
                self._scheduler.note(state, step)
                if step.finish_reason:
                    self._remember(state)
                tokens.append(step.token)
        except EngineError as error:  # of this request alone: the others go on
            self._scheduler.end(state, error)
        return tokens

    @checked_call()
    def set_weights(self, request_id: int, weights: Weights) -> int:
        """Change the weights of a request; they act from the next token that is given out.

        Returns how many were given out before it, `prefix_ids` not counted.

        Raises:
            RequestError: no such request is in work, or the weights do not suit the recipe.
            PromptError: a model that gets weight only now has no room for its prompt and the reply.
        """
        self._settle()
        state = self._scheduler.find(request_id)
        kind("weights", weights, Weights, "a Weights")
        self._weigh(state, weights)
        self._scheduler.retract(state)
        return len(state.tokens) - state.n_prefix

    @checked_call()
    def cancel(self, request_id: int) -> None:
        """Stop a request; its slot is free at once. Nothing happens if it has ended already."""
        self._settle()
        if state := self._scheduler.get(request_id):
            self._scheduler.retract(state)
            state.text.flush()
            self._scheduler.end(state, "cancelled")
            self._remember(state)
        self._scheduler.forget(request_id)

    @checked_call()
    def pause(self, request_id: int) -> None:
        """Let a request give no steps until `unpause`, and its slot to one that waits for any.

        Raises:
            RequestError: no such request is in work.
        """
        self._scheduler.find(request_id).paused = True

    @checked_call()
    def unpause(self, request_id: int) -> None:
        """Take `pause` back; raises as it."""
        self._scheduler.find(request_id).paused = False

    @property
    def busy(self) -> bool:
        """Whether `step` has anything to do: a request is in work, and does not pause."""
        return self._scheduler.busy

    def interrupt(self) -> None:
        """Stop the decode that is under way, within milliseconds; from any thread.

        `step` then raises AbortedError. `resume` lets it go on where it was.
        """
        self.contexts.abort()

    def resume(self) -> None:
        """Take `interrupt` back."""
        self.contexts.resume()

    def prompt_of(self, request_id: int) -> dict[str, NDArray[np.int32]]:
        """Return role → (n,) token ids: a request's prompt as the contexts in use are told it."""
        state = self._scheduler.find(request_id)
        return {self.contexts[i].name: state.sequences[i].prompt for i in state.contexts}

    # -- one request -----------------------------------------------------------------------

    def _prepare(self, request: Request, told: Told | None = None) -> RequestState:
        request = request.for_vocabulary(self.vocabulary)
        state = RequestState(next(self._ids), request, TextStream(self._piece, request.stop))
        begin_reply(state, self.vocabulary, self._grammar)
        self._weigh(state, request.weights, told)
        return state

    def _weigh(self, state: RequestState, weights: Weights, told: Told | None = None) -> None:
        """Put weights into force."""
        if state.request.conservative is not None:
            weights.conservative_role(self.deltas)
        coefficients = weights.coefficients(self.deltas)
        n_given = self._scheduler.n_given(state)
        needed = self.contexts.enter(state, coefficients, self._replies, n_given, told)
        catches_up = not set(needed) <= set(state.contexts)
        scores = state.prompt_scores if n_given else self._prompts.begin(state, needed)
        request = state.request.with_weights(weights)
        drafter = self.drafter.choose(coefficients)
        # All at once: an interrupt must not leave coefficients without their rows.
        state.catches_up, state.contexts, state.coefficients = catches_up, needed, coefficients
        state.request, state.drafter, state.prompt_scores = request, drafter, scores
        state.prompt_tokens = state.sequences[needed[0]].n_prompt + state.n_prefix

    def _remember(self, state: RequestState) -> None:
        """Keep the reply's ids for when it comes back in a prompt."""
        self._replies.remember(state.text.text, state.tokens, self._piece)

    # -- wrappers --------------------------------------------------------------------------

    @checked_call()
    def stream(self, prompt: Prompt | Request, **options: Any) -> Generator[Step, None, None]:
        """Yield the steps of one request as they come; closing the iterator cancels it.

        Args:
            prompt: text, messages, or a whole `Request` (then no options).
            options: the fields of `Request`: weights, max_tokens, temperature, top_k, top_p,
                min_p, seed, stop, conservative, explain, repetition_penalty …

        Raises:
            as `submit`, at the first step, and as `step`.
        """
        yield from self._steps_of(self._prepare(as_request(prompt, options)))

    def _steps_of(self, state: RequestState) -> Iterator[Step]:
        """Steps until this request ends; those of other requests stay pending for them."""
        try:
            self._scheduler.submit(state)
            yield from steps_of(state, self._scheduler, self._run_block)
        finally:
            self.cancel(state.id)

    @checked_call()
    def generate(self, prompt: Prompt | Request, **options: Any) -> Generation:
        """Return one whole reply; arguments and errors as `stream`."""
        state = self._prepare(as_request(prompt, options))
        reply = ReplyBuilder(state.request)
        for step in self._steps_of(state):
            reply.take(step)
        return reply.generation()

    @checked_call()
    def collect(self, request_ids: Iterable[int]) -> Iterator[tuple[int, Generation]]:
        """Go on until these submitted requests have ended, in as many slots as there are.

        Once begun, the iterator cancels those that have not ended when it is closed, or when one
        of them fails.

        Yields:
            (request id, reply), each as it ends.

        Raises:
            RequestError: a request is not in work; and as `step`.
        """
        return collect(request_ids, self._scheduler, self._run_block, self.cancel)

    @checked_call()
    def score(
        self,
        prompt: Prompt | Request,
        completion: str | Sequence[int],
        *,
        weights: Weights | None = None,
        conservative: float | None = None,
    ) -> NDArray[np.float32]:
        """Return the log-probability of each token of a completion, combined.

        Args:
            prompt: as in `generate`; a whole `Request` has its own weights.
            completion: text, tokenised as the continuation of any prompt, or token ids.
            weights: default `Weights.upscale(1.0)`.
            conservative: as in `generate`.

        Returns:
            (n_tokens,) float32. The end token counts as "the reply ends here" of all roles.

        Raises:
            PromptError: prompt and completion do not fit the context together.
            EngineError: all slots are in use.
        """
        ids = completion_ids(completion, self.contexts[0].model)
        state = self._prepare(request_to_score(prompt, ids, weights, conservative))
        self._scheduler.place(state)  # for as long as this call: it is not in work
        return score(state, ids, self.contexts, self._verifier, self.vocabulary)

    def close(self) -> None:
        """Free contexts and models. Nothing else may be called afterwards."""
        self._scheduler.forget_all()
        self.contexts.close()

    def __exit__(self, *_: object) -> None:
        self.close()
