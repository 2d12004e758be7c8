"""A request in work: what each context has been told, the reply so far, and the draft after it.

Plain state with the few moves that keep it consistent; it knows nothing of models. Whether and how
a request is over is decided by the scheduler alone, which sets `status`, `slot` and `outcome`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from ..text.detokenizer import TextStream
from .reply import FinishReason, Timings
from .request import MAX_DRAFT, Request

if TYPE_CHECKING:
    from ..backend import Grammar
    from .prompt_scores import PromptScores

OUTPUTS_PER_SLOT = MAX_DRAFT + 1  # logit rows of one decode: a draft and the token after it


class TokenSequence:
    """One context's prompt, followed by the reply that all contexts share.

    Args:
        prompt: token ids.
        capacity: longest prompt and reply together.
    """

    def __init__(self, prompt: Sequence[int], capacity: int) -> None:
        self.n_prompt = len(prompt)
        self.tokens = np.empty(capacity, np.int32)
        self.tokens[: self.n_prompt] = prompt

    @property
    def prompt(self) -> NDArray[np.int32]:
        """(n_prompt,) int32, not a copy."""
        return self.tokens[: self.n_prompt]


class Proposal(NamedTuple):
    """What the drafting model says at one position.

    Attributes:
        token: drawn from its own distribution.
        confidence: its probability in it, before temperature and all other options.
        ends: whether it is the end token, after which nothing is drafted.
    """

    token: int
    confidence: float
    ends: bool


@dataclass(eq=False)
class RequestState:
    """A request in work.

    Attributes:
        text: the reply so far, as it is shown.
        coefficients: role → coefficient, from the request's weights.
        contexts: numbers of the contexts whose rows are needed, in order.
        drafter: number of the context that drafts; None where drafts cannot help.
        sequences: context number → its tokens, for every context that was ever needed.
        prompt_tokens: length of the prompt in the first context that is needed.
        cached_tokens: how many of these were found in the cache; None before it was looked at.
        prefill: the time of chunks that were decoded before its first block.
        longest_prompt: in tokens, over all sequences.
        prompt_scores: how likely the prompt is, if that is asked for; the first token is chosen
            when all of it is scored.
        status: "waiting" for a slot, "running" in `slot`, or "ended" by `outcome`; its last steps
            may still be pending then.
        slot: sequence number in every context, while it is running.
        paused: whether it is not to go on for now.
        near: whether its slot holds all but what one block is to decode.
        catches_up: whether a context that is needed anew has yet to decode what came before.
        outcome: why it ended: a finish reason, or the error that it failed with.
        stop_tokens: id → text of tokens that print nothing and whose text is a stop string.
        grammar: after the reply so far, of a request with a constraint.
        draft_grammar: after the draft, while there is one.
        tokens, counts: the reply so far, `prefix_ids` included.
        noted: how many of the tokens a step tells of; all, but in the midst of choosing one.
        proposals: what the drafting model said at each position of the block, the last of which
            may not have become part of the draft.
        draft: tokens that were proposed and are not yet verified; they follow the reply in every
            sequence.
        draft_rows: (len(proposals), vocab) float32 logits that the proposals were drawn from; they
            serve verification as well.
    """

    id: int
    request: Request
    text: TextStream
    coefficients: dict[str, float] = field(default_factory=dict)
    contexts: tuple[int, ...] = ()
    drafter: int | None = None
    sequences: dict[int, TokenSequence] = field(default_factory=dict)
    prompt_tokens: int = 0
    cached_tokens: int | None = None
    prefill: Timings = field(default_factory=Timings)
    longest_prompt: int = 0
    prompt_scores: PromptScores | None = None
    status: Literal["waiting", "running", "ended"] = "waiting"
    slot: int = -1
    paused: bool = False
    near: bool = False
    catches_up: bool = False
    outcome: FinishReason | EngineError | None = None
    stop_tokens: Mapping[int, str] = field(default_factory=dict)
    grammar: Grammar | None = None
    draft_grammar: Grammar | None = None
    tokens: list[int] = field(default_factory=list)
    counts: Counter[int] = field(default_factory=Counter)
    noted: int = 0
    proposals: list[Proposal] = field(default_factory=list)
    draft: list[int] = field(default_factory=list)
    draft_rows: NDArray[np.float32] | None = None

    @property
    def n_prefix(self) -> int:
        """How many tokens of the reply the request brought."""
        return len(self.request.prefix_ids)

    @property
    def begun(self) -> bool:
        """Whether a token was chosen."""
        return len(self.tokens) > self.n_prefix

    @property
    def longest(self) -> int:
        """The most tokens that the reply may have."""
        return self.n_prefix + self.request.max_tokens

    def room(self, n_ctx: int) -> int:
        """Return how many more tokens fit: by max_tokens, and by the context's end."""
        return min(self.longest, n_ctx - self.longest_prompt + 1) - len(self.tokens)

    def view(self, context: int) -> NDArray[np.int32]:
        """Return (n,) int32: prompt, reply and draft as one context is to hold them, not a copy.

        Where they fill the context the last token is missing: nothing follows it.
        """
        sequence = self.sequences[context]
        return sequence.tokens[: sequence.n_prompt + len(self.tokens) + len(self.draft)]

    def begin_sequence(self, context: int, prompt: Sequence[int], n_ctx: int) -> None:
        """Let a context that was not needed so far hold its prompt and the reply."""
        capacity = min(n_ctx, len(prompt) + self.longest)
        sequence = self.sequences[context] = TokenSequence(prompt, capacity)
        reply = self.tokens[: capacity - len(prompt)]
        sequence.tokens[len(prompt) : len(prompt) + len(reply)] = reply
        self.longest_prompt = max(self.longest_prompt, len(prompt))

    def take(self, token: int) -> None:
        """Make the token part of the reply."""
        self._put(len(self.tokens), token)
        self.tokens.append(token)
        self.counts[token] += 1
        if self.grammar is not None:
            self.grammar.accept(token)

    def propose(self, token: int) -> None:
        """Extend the draft by a token."""
        self._put(len(self.tokens) + len(self.draft), token)
        self.draft.append(token)
        if self.draft_grammar is not None:
            self.draft_grammar.accept(token)

    def drop_draft(self) -> None:
        """Forget the draft: every view ends where the reply does."""
        self.draft, self.proposals, self.draft_rows = [], [], None
        self.draft_grammar = None

    def cut(self) -> None:
        """Let the reply end after the tokens that a step tells of, whatever came of the others."""
        self.drop_draft()
        del self.tokens[self.noted :]
        self.counts = Counter(self.tokens)
        self.text = self.text.again(self.tokens)
        if self.grammar is not None:
            self.grammar = self.grammar.after(self.tokens)

    def _put(self, index: int, token: int) -> None:
        for sequence in self.sequences.values():
            at = sequence.n_prompt + index
            if at < len(sequence.tokens):
                sequence.tokens[at] = token
