"""The contexts of a recipe, each with the roles that it serves, and one step on all of them.

Deltas that share a reference and its prompt share a context (`Recipe.contexts`). A context whose
roles have no weight is not told the prompt and not moved; it catches up when it is needed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..backend import Context, Model, common_prefix
from ..errors import ContextLengthError, RequestError
from ..text.prompt_format import PromptFormat, ReplyCache, encode_raw
from .request import MAX_DRAFT, Messages, Prompt, Request, is_ids
from .request_state import RequestState

log = logging.getLogger(__name__)

Rows = dict[str, NDArray[np.float32]]  # role → (n, vocab) logits
Targets = dict[int, tuple[NDArray[np.int32], int]]  # of `Context.advance`
Told = Mapping[int, list[int]]  # number of a context → the ids of a request's prompt


@dataclass
class ContextRunner:
    """One context, the roles that it serves, and how its model is told a prompt.

    Attributes:
        seconds: what its decodes took since `Contexts.start_clock`.
    """

    roles: tuple[str, ...]
    model: Model
    context: Context
    prompt: PromptFormat
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """The first of its roles."""
        return self.roles[0]

    def enters(self, coefficients: Mapping[str, float]) -> bool:
        """Whether a role of non-zero coefficient is served here."""
        return any(coefficients.get(role) for role in self.roles)

    def encode(
        self,
        prompt: Prompt,
        replies: ReplyCache | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        check: Callable[[int], object] = lambda _: None,
    ) -> list[int]:
        """Return a prompt as this context's model is told it; `check` as of `PromptFormat`'s."""
        if isinstance(prompt, str):
            return encode_raw(prompt, self.model, check)
        if is_ids(prompt):
            return list(prompt)
        return self.prompt.encode(
            cast(Messages, prompt),
            replies=replies,
            template_kwargs=template_kwargs,
            tools=tools,
            check=check,
        )

    def advance(self, targets: Targets) -> dict[int, NDArray[np.float32]]:
        """`Context.advance`, timed."""
        begun = perf_counter()
        try:
            return self.context.advance(targets)
        finally:
            self.seconds += perf_counter() - begun

    def give_rows(self, targets: Targets, rows: Mapping[int, Rows]) -> None:
        """Advance, and put the logits into `rows`, slot → role → logits, for all roles here."""
        for slot, logits in self.advance(targets).items():
            for role in self.roles:
                rows[slot][role] = logits


class Contexts(Sequence[ContextRunner]):
    """All contexts, the base's first, and their moving together.

    Args:
        runners: in the order in which they are decoded.
        n_ctx: tokens per slot.
        stack: frees contexts and models.

    Attributes:
        max_draft: the longest draft that every context can take back.
    """

    def __init__(self, runners: Sequence[ContextRunner], n_ctx: int, stack: ExitStack) -> None:
        self._runners = list(runners)
        self.n_ctx = n_ctx
        self.n_slots = runners[0].context.n_slots
        self.close = stack.close
        # A context that cannot go back would decode everything anew for every wrong draft.
        self.max_draft = min(MAX_DRAFT, *(runner.context.max_rollback for runner in runners))
        self._said = False
        self._said_tools = False

    def pieces(self, adopters: Mapping[int, str]) -> Callable[..., bytes]:
        """Return `Model.piece` for replies: the base's, but for tokens that are another role's.

        Args:
            adopters: id → that role.
        """
        by_role = {role: runner.model for runner in self for role in runner.roles}
        models = {i: by_role[role] for i, role in adopters.items()}
        base = self[0].model
        if not models:
            return base.piece
        return lambda token, **kwargs: models.get(token, base).piece(token, **kwargs)

    def __getitem__(self, i: int) -> ContextRunner:  # type: ignore[override]
        return self._runners[i]

    def __len__(self) -> int:
        return len(self._runners)

    def __iter__(self) -> Iterator[ContextRunner]:
        return iter(self._runners)

    def enter(
        self,
        state: RequestState,
        coefficients: Mapping[str, float],
        replies: ReplyCache,
        n_given: int,
        told: Told | None = None,
    ) -> tuple[int, ...]:
        """Tell a request's prompt to every context that needs it and does not know it yet.

        Args:
            state: gets a sequence for each of them.
            coefficients: role → coefficient. Explanations need every role.
            replies: whose ids are spliced in where the prompt quotes them.
            n_given: tokens of the reply that were given out.
            told: what `encode` made of it, if it was asked before.

        Returns:
            The numbers of the contexts that are needed.

        Raises:
            PromptError: the prompt, with what was given out of the reply, does not fit.
            RequestError: no role's template reads one of the request's variables.
        """
        needed = self.needed(state.request, coefficients)
        if told is None:
            new = [i for i in needed if i not in state.sequences]
            told = self.encode(state.request, new, replies, n_given)
        self._say_what_folds()
        if state.request.tools:
            self._say_if_nobody_shows_tools()
        for i, ids in told.items():  # all or none: what is refused changes nothing
            state.begin_sequence(i, ids, self.n_ctx)
        return needed

    def needed(self, request: Request, coefficients: Mapping[str, float]) -> tuple[int, ...]:
        """Return the numbers of the contexts that a request needs; explanations need all."""
        return tuple(
            i
            for i, runner in enumerate(self._runners)
            if request.explain or runner.enters(coefficients)
        )

    def encode(
        self, request: Request, contexts: Iterable[int], replies: ReplyCache, n_given: int = 0
    ) -> dict[int, list[int]]:
        """Return number of a context → the request's prompt as its model is told it.

        Raises as `enter`. What is surely too long is not tokenised. Any thread may call it.
        """
        variables, told = request.chat_template_kwargs, {}
        n_given = max(n_given, len(request.prefix_ids))
        for i in contexts:
            runner = self._runners[i]
            check = partial(self.check_room, runner.name, n_given, least=True)
            told[i] = runner.encode(request.prompt, replies, variables, request.tools, check)
            self.check_room(runner.name, n_given, len(told[i]))
        self._refuse_unread(variables)
        return told

    def _refuse_unread(self, variables: Mapping[str, Any]) -> None:
        """Raise RequestError for a variable that no role's template reads: it would do nothing."""
        for name in variables:
            if not any(runner.prompt.reads(name) for runner in self._runners):
                raise RequestError(
                    f"chat_template_kwargs has {name!r}, which no role's template reads; "
                    "leave it out, or correct it"
                )

    def _say_what_folds(self) -> None:
        """Log, once, which roles are told the system message in another way than it was given."""
        folding = [runner.name for runner in self._runners if runner.prompt.folds_system]
        if folding and not self._said:
            self._said = True
            log.warning(
                "%s: the chat template has no system role, so the system message stands at the "
                "head of the first user message",
                ", ".join(folding),
            )

    def _say_if_nobody_shows_tools(self) -> None:
        """Log, once, that the definitions of a request's tools reach no model."""
        shown = any(runner.prompt.reads("tools") for runner in self._runners)
        if not shown and not self._said_tools:
            self._said_tools = True
            log.warning("no role's prompt format shows tools, so the models do not know of them")

    def check_room(self, name: str, n_reply: int, n_prompt: int, *, least: bool = False) -> None:
        """Raise ContextLengthError if a prompt does not fit; `least`: it may be longer still."""
        if n_prompt + n_reply >= self.n_ctx:
            reply = f" and {n_reply} of the reply" if n_reply else ""
            seen = f"at least {n_prompt}" if least else f"{n_prompt}"
            raise ContextLengthError(
                f"the prompt is {seen} tokens for {name}{reply}, and {self.n_ctx - 1} fit "
                f"(n_ctx {self.n_ctx} less one for the reply); shorten it, or raise n_ctx "
                "(--n-ctx)",
                n_prompt,
                self.n_ctx,
            )

    def advance(
        self, states: Sequence[RequestState], *, keep_last: int | None = None
    ) -> dict[int, Rows]:
        """Bring every needed context to the end of each request's sequence, draft included.

        Args:
            states: the requests, each in a slot of its own.
            keep_last: rows wanted of each; None: one per draft that is to be verified and one for
                the token after them.

        Returns:
            slot → role → (rows, n_vocab) float32 logits, overwritten by the next call.
        """
        rows: dict[int, Rows] = {state.slot: {} for state in states}
        for i, runner in enumerate(self._runners):
            targets: Targets = {}
            for state in states:
                if i not in state.contexts:
                    continue
                if i == state.drafter and state.draft_rows is not None:  # drafting decoded it
                    for role in runner.roles:
                        rows[state.slot][role] = state.draft_rows
                else:
                    targets[state.slot] = (state.view(i), keep_last or len(state.draft) + 1)
            if targets:
                runner.give_rows(targets, rows)
        for state in states:
            state.catches_up = False
        return rows

    def prefills(self, state: RequestState) -> bool:
        """Whether a request's next step decodes more than one token of what is given."""
        return state.catches_up or (
            not state.begun
            and any(
                len(state.view(i)) - len(self._runners[i].context.tokens(state.slot)) > 1
                for i in state.contexts
            )
        )

    def kept(self, state: RequestState, slot: int) -> float:
        """Return the share of what a slot's caches hold that the request's prompts keep."""
        n_held = n_kept = 0
        for i, runner in enumerate(self._runners):
            held = runner.context.tokens(slot)
            n_held += len(held)
            if i in state.sequences:
                n_kept += common_prefix(held, state.view(i))
        return n_kept / max(n_held, 1)

    def start_clock(self) -> None:
        """Count the time of decodes from here on."""
        for runner in self._runners:
            runner.seconds = 0.0

    def seconds(self) -> dict[str, float]:
        """Return name → seconds of decodes, of the contexts that were moved."""
        return {runner.name: runner.seconds for runner in self._runners if runner.seconds}

    def abort(self) -> None:
        """Stop the decode under way, from any thread."""
        for runner in self._runners:
            runner.context.abort()

    def resume(self) -> None:
        """Take `abort` back."""
        for runner in self._runners:
            runner.context.resume()
