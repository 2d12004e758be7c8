"""A request in work: what each role has been told, the reply so far, and the draft beyond it.

Plain state with the few moves that keep it consistent; it knows nothing of models.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import EngineError
from .request import MAX_DRAFT, FinishReason, Request, Step
from .text import TextStream

OUTPUTS_PER_SLOT = (
    MAX_DRAFT + 1
)  # logit rows per slot in one decode: a draft and the token behind it


@dataclass
class TokenSequence:
    """One role's prompt and the shared reply: (n_ctx,) int32, of which `n` are in use."""

    tokens: NDArray[np.int32]
    n: int
    n_prompt: int

    @classmethod
    def of(cls, prompt: Sequence[int], n_ctx: int) -> TokenSequence:
        """A sequence that holds a prompt and has room up to `n_ctx`."""
        tokens = np.empty(n_ctx, np.int32)
        tokens[: len(prompt)] = prompt
        return cls(tokens, len(prompt), len(prompt))

    def append(self, token: int) -> None:
        """One more token."""
        self.tokens[self.n] = token
        self.n += 1

    def view(self) -> NDArray[np.int32]:
        """(n,) int32, not a copy."""
        return self.tokens[: self.n]


class Proposal(NamedTuple):
    """What the drafter says at one position.

    Attributes:
        token: drawn from the drafter's own distribution.
        confidence: its probability in it, before temperature and all other options.
        ends: whether it is the end token, behind which nothing is drafted.
    """

    token: int
    confidence: float
    ends: bool


@dataclass
class Live:
    """A request in work.

    Attributes:
        coefficients: role → coefficient, from the request's weights.
        sequences: one per seat.
        drafter: index of the seat that drafts; None where drafts cannot help.
        slot: sequence number in every context; −1 without one.
        tokens, counts, text: the reply so far.
        pending: steps that are chosen and not yet given out.
        failure: what ended the request behind them, if it failed.
        draft: tokens that were drafted and are not yet verified.
        proposals: what the drafter said at each of their positions, and behind the last one.
        draft_rows: (1, vocab) logits of the drafter, a copy for each proposal.
    """

    id: int
    request: Request
    coefficients: dict[str, float]
    sequences: list[TokenSequence]
    text: TextStream
    drafter: int | None = None
    slot: int = -1
    tokens: list[int] = field(default_factory=list)
    counts: Counter[int] = field(default_factory=Counter)
    pending: deque[Step] = field(default_factory=deque)
    finish_reason: FinishReason | None = None
    failure: EngineError | None = None
    draft: list[int] = field(default_factory=list)
    proposals: list[Proposal] = field(default_factory=list)
    draft_rows: list[NDArray[np.float32]] = field(default_factory=list)

    def room(self, n_ctx: int) -> int:
        """How many more tokens the reply can take: by max_tokens, and by the context's end."""
        longest = max(sequence.n for sequence in self.sequences)
        return min(self.request.max_tokens - len(self.tokens), n_ctx - longest + 1)

    def take(self, token: int) -> None:
        """The token becomes part of the reply and of every role's sequence."""
        self.tokens.append(token)
        self.counts[token] += 1
        for sequence in self.sequences:
            if sequence.n < len(sequence.tokens):
                sequence.append(token)

    @property
    def prompt_tokens(self) -> int:
        """Length of the base's prompt."""
        return self.sequences[0].n_prompt

    @property
    def ended(self) -> bool:
        """Whether the last step is chosen, though perhaps not given out."""
        finished = bool(self.pending and self.pending[-1].finish_reason)
        return finished or self.failure is not None

    @property
    def draft_ends(self) -> bool:
        """Whether the end token is proposed behind the draft."""
        return bool(self.proposals and self.proposals[-1].ends)

    def retract(self) -> None:
        """Take back what nobody has seen: the tokens of the pending steps. `text` is left to do."""
        del self.tokens[self.pending[0].index :]
        self.pending.clear()
        self.counts = Counter(self.tokens)
        self._rewind()

    def _rewind(self) -> None:
        """Let the sequences end where the reply does (of one that is full a token is missing)."""
        for sequence in self.sequences:
            sequence.n = min(sequence.n_prompt + len(self.tokens), len(sequence.tokens))

    def propose(self, tokens: Sequence[int]) -> None:
        """Extend the draft; between `begin_draft` and `end_draft`."""
        self.draft += tokens
        for sequence in self.sequences:
            for token in tokens:
                sequence.append(token)

    def begin_draft(self) -> None:
        """From here to `end_draft` the sequences may hold a draft."""
        self.draft, self.proposals, self.draft_rows = [], [], []

    def drop_draft(self) -> None:
        """Begin again without drafts."""
        self.begin_draft()
        self._rewind()

    def end_draft(self) -> None:
        """The sequences hold what they held before; `draft` still says what was drafted."""
        self._rewind()
