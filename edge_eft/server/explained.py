"""What each model thought of the tokens of a reply, as JSON has it; of no web framework."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..engine.reply import Candidate, RoleView, Step, TokenLogprob


def explained(steps: Iterable[Step], n: int) -> list[dict[str, Any]]:
    """Return what each model thought of each token: its log-probability and n likeliest tokens.

    And of all that are among these, what everyone thinks of them. A token of which the text does
    not say all, as a part of a character, has its `bytes`.
    """
    return [
        {
            **_named(step.token, step.piece),
            "drafted": step.accepted,
            "emulated": {
                "logprob": finite(step.logprob),
                "top": [_top(one) for one in step.top_logprobs[:n]],
            },
            **{role: _view(view) for role, view in (step.explain or {}).items()},
            "candidates": [_candidate(one) for one in step.candidates],
        }
        for step in steps
    ]


def text_of(piece: bytes) -> str:
    """Return a token's bytes as text; a part of a character shows as U+FFFD."""
    return piece.decode("utf-8", "replace")


def finite(logprob: float) -> float:
    """Return a log-probability; of what is impossible OpenAI's own number: JSON has no −inf."""
    return max(logprob, -9999.0)


def _named(token: int, piece: bytes) -> dict[str, Any]:
    text = text_of(piece)
    named = {"id": token, "token": text}
    return named if text.encode() == piece else named | {"bytes": list(piece)}


def _top(one: TokenLogprob) -> dict[str, Any]:
    return {"id": one.token, "token": text_of(one.piece), "logprob": finite(one.logprob)}


def _candidate(one: Candidate) -> dict[str, Any]:
    logprobs = {role: finite(logprob) for role, logprob in one.logprobs.items()}
    return _named(one.token, one.piece) | {"logprobs": logprobs}


def _view(view: RoleView) -> dict[str, Any]:
    top = [{"id": i, "token": text, "logprob": finite(p)} for i, text, p in view.top]
    return {"logprob": finite(view.logprob), "top": top}
