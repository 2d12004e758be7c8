"""What each model thinks of a reply that is there already: its logits along the reply's tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from ..engine.contexts import ContextRunner
from ..engine.emulator import Emulator
from ..engine.reply import Generation, ReplyBuilder
from ..engine.request import Request
from ..engine.request_state import OUTPUTS_PER_SLOT
from ..logits.combiner import Combiner, log_partition
from ..logits.weights import Weights

Rows = NDArray[np.float32]  # (tokens of a reply, n_vocab)

# So that a reply of few tokens is one: templates that know this variable let the model think first.
AT_ONCE = {"enable_thinking": False}


def reply_rows(runner: ContextRunner, prompt: Sequence[int], reply: Sequence[int]) -> Rows:
    """Return (n, n_vocab) float32 logits, each the ones from which a token of a reply is chosen.

    Args:
        runner: a context in which no request is in work.
        prompt: token ids.
        reply: n ≥ 1 token ids; the last one is not decoded.
    """
    tokens = np.array([*prompt, *reply[:-1]], np.int32)
    blocks = []
    for begin in range(0, len(reply), OUTPUTS_PER_SLOT):
        end = min(begin + OUTPUTS_PER_SLOT, len(reply))
        rows = runner.advance({0: (tokens[: len(prompt) + end - 1], end - begin)})[0]
        blocks.append(rows.copy())  # the next block overwrites them
    return np.concatenate(blocks)


class LogProbs:
    """Log-probabilities over the vocabulary that an emulator's models share."""

    def __init__(self, emulator: Emulator) -> None:
        v = emulator.vocabulary
        self._combiner = Combiner(v.n_vocab, v.end_token, v.end_tokens, v.masked)

    def combined(self, rows: Mapping[str, Rows], coefficients: Mapping[str, float]) -> Rows:
        """Return (n, vocab) float32 log-probabilities of a weighted sum; arguments as `combine`."""
        n = len(next(iter(rows.values())))
        out = np.empty((n, self._combiner.n_vocab), np.float32)
        scratch = np.empty_like(out)
        self._combiner.combine(rows, coefficients, out=out, scratch=scratch)
        out -= log_partition(out, scratch)[:, None]
        return out

    def alone(self, role: str, rows: Rows) -> Rows:
        """Return (n, vocab) float32 log-probabilities of one role by itself."""
        return self.combined({role: rows}, {role: 1.0})


def greedy_reply(
    emulator: Emulator, question: str, weights: Weights, max_tokens: int, until: float
) -> Generation:
    """Return the greedy reply to a question, cut at the time `until` (of `perf_counter`)."""
    known = [name for name in AT_ONCE if any(each.prompt.reads(name) for each in emulator.contexts)]
    request = Request(
        [{"role": "user", "content": question}],
        weights=weights,
        chat_template_kwargs={name: AT_ONCE[name] for name in known},
        max_tokens=max_tokens,
        temperature=0.0,
    )
    reply = ReplyBuilder(request)
    for step in emulator.stream(request):
        reply.take(step)
        if perf_counter() > until:
            break
    return reply.generation()


def with_end(emulator: Emulator, reply: Generation) -> list[int]:
    """Return a reply's tokens, and the end token where it ended by itself."""
    end = emulator.vocabulary.end_token
    ended = reply.finish_reason == "stop" and end is not None
    return [*reply.tokens, end] if ended and end is not None else list(reply.tokens)
