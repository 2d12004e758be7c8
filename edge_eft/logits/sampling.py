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

import numpy as np
from numpy.typing import NDArray

from ..errors import NoTokenError
from .nucleus import largest, nucleus
from .sampling_params import Sampling


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
        NoTokenError: no token is left.
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
        NoTokenError: no token is left.
    """
    logits = _penalised(logits, sampling, counts)
    best = int(logits.argmax())
    if not np.isfinite(logits[best]):
        raise NoTokenError("no token is left to choose from; is everything excluded by logit_bias?")
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
