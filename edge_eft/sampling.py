"""From a row of combined logits to a token, by rules that depend on nothing but their arguments.

The order is fixed: repetition, presence and frequency penalties → logit bias → temperature →
top-k → top-p → min-p → choose. `candidates` does all but the last and returns the distribution
that is left; `choose` picks from it.

The choice is argmax(log p + g) with g a Gumbel variate (the Gumbel-max trick draws exactly from
p) that is a function of (seed, position, token id). So a seed means one text: batching, drafts
and timing cannot change it, and a draft model that shares the noise agrees with the emulation as
often as their distributions allow.

NumPy only; it knows nothing of models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .checks import number, whole
from .errors import EngineError, RequestError
from .nucleus import largest, nucleus

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
        number("temperature", self.temperature, 0.0, 100.0)
        whole("top_k", self.top_k, 0)
        number("top_p", self.top_p, 0.0, 1.0, open_low=True)
        number("min_p", self.min_p, 0.0, 1.0)
        number("repetition_penalty", self.repetition_penalty, 0.01, 100.0)
        number("presence_penalty", self.presence_penalty, -100.0, 100.0)
        number("frequency_penalty", self.frequency_penalty, -100.0, 100.0)
        whole("seed", self.seed, 0, MAX_SEED)
        bias = {} if self.logit_bias is None else self.logit_bias
        if not isinstance(bias, Mapping):
            raise RequestError(f"logit_bias is {bias!r:.40}; it must map token ids to numbers")
        for token, value in bias.items():
            whole("a token id in logit_bias", token, 0)
            if value != -math.inf:
                number(f"logit_bias of token {token}", value, -1e4, 1e4)
        object.__setattr__(self, "logit_bias", dict(bias))

    def check_vocabulary(self, n_vocab: int) -> None:
        """Raise RequestError if `logit_bias` names a token that does not exist."""
        if (last := max(self.logit_bias, default=0)) >= n_vocab:
            raise RequestError(f"logit_bias names token {last}; the ids end at {n_vocab - 1}")


def sample(
    logits: NDArray[np.float32], sampling: Sampling, position: int, counts: Mapping[int, int]
) -> int:
    """Return one token id, drawn from a row of combined logits.

    Args:
        logits: (vocab,) float32, not changed; −inf excludes a token.
        sampling: the options; they must have passed `check_vocabulary`.
        position: index of the token in its reply (0 is the first).
        counts: token id → occurrences in the reply so far.

    Raises:
        EngineError: no token is left.
    """
    ids, log_p = candidates(logits, sampling, counts)
    return int(ids[0]) if len(ids) == 1 else choose(ids, log_p, sampling.seed, position)


def candidates(
    logits: NDArray[np.float32], sampling: Sampling, counts: Mapping[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the distribution that is left after all options.

    Args:
        logits: (vocab,) float32, not changed.
        sampling: the options.
        counts: token id → occurrences in the reply so far, for the penalties.

    Returns:
        (n,) token ids and (n,) their log-probabilities, normalised over these n.

    Raises:
        EngineError: no token is left.
    """
    logits = _penalised(logits, sampling, counts)
    best = int(logits.argmax())
    if not np.isfinite(logits[best]):
        raise EngineError("no token is left to choose from; is everything excluded by logit_bias?")
    if sampling.temperature == 0.0:
        return np.array([best]), np.zeros(1)

    vocab = len(logits)
    top_k = min(sampling.top_k or vocab, vocab)
    ids = largest(logits, top_k)
    with np.errstate(over="ignore"):  # a temperature near 0 leaves the best token alone
        scaled = (logits[ids].astype(np.float64) - logits[best]) / sampling.temperature
    ids, scaled = ids[np.isfinite(scaled)], scaled[np.isfinite(scaled)]
    log_p = scaled - np.log(np.exp(scaled).sum())
    if sampling.top_p < 1.0:
        kept = nucleus(log_p, sampling.top_p)
        ids, log_p = ids[kept], log_p[kept]
    if sampling.min_p > 0.0:
        kept = log_p >= log_p.max() + math.log(sampling.min_p)
        ids, log_p = ids[kept], log_p[kept]
    return ids, log_p - np.log(np.exp(log_p).sum())


def choose(ids: NDArray[np.int64], log_p: NDArray[np.float64], seed: int, position: int) -> int:
    """Return argmax(log p + g) over the candidates: an exact draw from p, fixed by the noise."""
    return int(ids[np.argmax(log_p + gumbel(seed, position, ids))])


def gumbel(seed: int, position: int, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (n,) standard Gumbel variates, each a function of (seed, position, token id) alone.

    SplitMix64 (Steele, Lea, Flood 2014) started at a hash of seed and position; token ids count
    its steps. A counter-based generator lets any subset of a vocabulary be drawn alone, which
    np.random's streams do not.
    """
    start = _mix(np.array([position], np.uint64) + _mix(np.array([seed], np.uint64) + _GOLDEN))
    bits = _mix(start + (ids.astype(np.uint64) + np.uint64(1)) * _GOLDEN)
    uniform = ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52  # never 0 or 1
    return -np.log(-np.log(uniform))


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Apply SplitMix64's finaliser; arrays wrap modulo 2⁶⁴ silently, as it needs."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _penalised(
    logits: NDArray[np.float32], s: Sampling, counts: Mapping[int, int]
) -> NDArray[np.float32]:
    """Apply penalties, then bias. Returns the row itself if none is asked for."""
    penalised = s.repetition_penalty != 1.0 or s.presence_penalty or s.frequency_penalty
    if not (penalised and counts) and not s.logit_bias:
        return logits
    logits = logits.copy()
    if penalised and counts:
        ids = np.fromiter(counts.keys(), np.int64, len(counts))
        times = np.fromiter(counts.values(), np.float32, len(counts))
        seen = logits[ids]
        penalty = np.float32(s.repetition_penalty)
        seen = np.where(seen > 0, seen / penalty, seen * penalty)
        logits[ids] = seen - s.presence_penalty - s.frequency_penalty * times
    for token, bias in s.logit_bias.items():
        logits[token] += bias
    return logits
