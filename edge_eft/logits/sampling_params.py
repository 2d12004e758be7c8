"""How one request chooses its tokens, as plain data; `sampling` does it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import RequestError
from ..validate import number, whole

MAX_SEED = 2**64 - 1


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How one request chooses its tokens.

    Attributes:
        temperature: 0 is greedy.
        top_k: keep the k likeliest tokens; 0 keeps all.
        top_p: keep the smallest set of likeliest tokens whose probability is at least this.
        min_p: keep tokens at least this likely relative to the likeliest.
        repetition_penalty: divides positive and multiplies negative logits of tokens that the
            reply already has (arXiv 1909.05858 §4.1); 1 is off.
        presence_penalty: subtracted once from the logit of each token that the reply has.
        frequency_penalty: subtracted once per occurrence.
        logit_bias: token id → number added to its logit; −inf forbids it.
        seed: of the Gumbel noise, 0 … 2⁶⁴−1.

    Penalties look at the reply only: prompts differ between the roles, generated tokens do not.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("temperature", 0.0, 100.0),
            ("min_p", 0.0, 1.0),
            ("repetition_penalty", 0.01, 100.0),
            ("presence_penalty", -100.0, 100.0),
            ("frequency_penalty", -100.0, 100.0),
        ):
            object.__setattr__(self, name, number(name, getattr(self, name), low, high))
        number("top_p", self.top_p, 0.0, 1.0, open_low=True)
        whole("top_k", self.top_k, 0)
        whole("seed", self.seed, 0, MAX_SEED)
        bias = {} if self.logit_bias is None else self.logit_bias
        if not isinstance(bias, Mapping):
            raise RequestError(f"logit_bias is {bias!r:.40}; it must map token ids to numbers")
        checked = {}
        for token, value in bias.items():
            whole("a token id in logit_bias", token, 0)
            what = f"logit_bias of token {token}"
            forbidden = isinstance(value, float) and value == -math.inf
            checked[token] = -math.inf if forbidden else number(what, value, -1e4, 1e4)
        object.__setattr__(self, "logit_bias", checked)

    def check_vocabulary(self, n_vocab: int) -> None:
        """Raise RequestError if `logit_bias` names a token that does not exist."""
        if (last := max(self.logit_bias, default=0)) >= n_vocab:
            raise RequestError(f"logit_bias names token {last}; the ids end at {n_vocab - 1}")
