"""A reply as data for programs, and what each model thought of its tokens as lines for people."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..engine.request import is_raw
from .terminal import Styled, compose, dim, style, supports

if TYPE_CHECKING:
    from ..engine.emulator import Emulator
    from ..engine.reply import Generation, Step
    from ..engine.request import Request


def shown_text(request: Request, done: Generation) -> str:
    """Return a reply as people are shown it: one to messages may begin with a template's space."""
    return done.text if is_raw(request.prompt) else done.text.lstrip()


def as_object(emulator: Emulator, request: Request, done: Generation) -> dict[str, Any]:
    """Return a reply as plain data; docs/cli.md says what each key is."""
    about = done.to_dict()
    about.pop("steps")
    more: dict[str, Any] = {}
    if request.top_logprobs or request.explain:
        more["logprobs"] = [_token_data(step) for step in done.steps]
    return {
        **about,
        "text": shown_text(request, done),
        "tokens_per_second": done.tokens_per_second,
        "coefficients": request.weights.coefficients(emulator.deltas),
        "recipe": emulator.recipe.name,
        "models": {
            role: {"file": str(file.path), "type": file.quantisation}
            for role, file in emulator.record.files.items()
        },
        **more,
    }


def _token_data(step: Step) -> dict[str, Any]:
    """Return what is known of one token of a reply."""
    about: dict[str, Any] = {
        "token": step.token,
        "text": _text(step.piece),
        "logprob": _finite(step.logprob),
        "top": [
            {"token": each.token, "text": _text(each.piece), "logprob": _finite(each.logprob)}
            for each in step.top_logprobs
        ],
    }
    if step.explain is not None:
        about["explain"] = {
            role: {
                "logprob": _finite(view.logprob),
                "top": [
                    {"token": token, "text": text, "logprob": _finite(logprob)}
                    for token, text, logprob in view.top
                ],
            }
            for role, view in step.explain.items()
        }
        about["candidates"] = [
            {
                "token": each.token,
                "text": _text(each.piece),
                "logprobs": {role: _finite(p) for role, p in each.logprobs.items()},
            }
            for each in step.candidates
        ]
    return about


def _text(piece: bytes) -> str:
    return piece.decode("utf-8", "replace")


def _finite(logprob: float) -> float | None:
    return logprob if math.isfinite(logprob) else None


def token_lines(emulator: Emulator, request: Request, done: Generation) -> Iterator[Styled]:
    """Yield lines about each token of a reply: how likely it was, to the sum and to each model.

    Of the models those that have weight, each with its own likeliest tokens.
    """
    coefficients = request.weights.coefficients(emulator.deltas)
    roles = [role for role in coefficients if role == "base" or coefficients[role]]
    several = len({role.partition(":")[2] for role in roles}) > 2
    names = {role: role if several else role.partition(":")[0] for role in roles}
    width = max(map(len, ["emulated", *names.values()]))
    for step in done.steps:
        yield compose(style(_visible(_text(step.piece)), bold=True), f"  {_percent(step.logprob)}")
        ranked = [(_text(each.piece), each.logprob) for each in step.top_logprobs]
        if ranked:
            yield dim(f"  {'emulated':<{width}}  {'':>6}  {_ranked(ranked)}")
        views = step.explain or {}
        for role in roles if views else ():
            top = _ranked([(text, logprob) for _, text, logprob in views[role].top])
            share = _percent(views[role].logprob)
            yield dim(f"  {names[role]:<{width}}  {share:>6}  {top}".rstrip())


def _ranked(entries: Sequence[tuple[str, float]]) -> str:
    return "  ".join(f"{_visible(text)} {_percent(logprob)}" for text, logprob in entries)


def _visible(piece: str) -> str:
    """Return a token's text with what cannot be seen written out."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in piece)
    return shown.replace(" ", "·" if supports("·") else "_")


def _percent(logprob: float) -> str:
    return f"{math.exp(logprob):.1%}"
