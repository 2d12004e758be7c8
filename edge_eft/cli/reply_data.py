"""A reply as data for programs, and what each model thought of its tokens as a table for people."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..engine.request import is_raw

if TYPE_CHECKING:
    from rich.table import Table

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
    return about


def _text(piece: bytes) -> str:
    return piece.decode("utf-8", "replace")


def _finite(logprob: float) -> float | None:
    return logprob if math.isfinite(logprob) else None


def tokens_table(request: Request, done: Generation) -> Table:
    """Return a table of a reply's tokens: how likely each was, to the sum and to each model."""
    from rich import box
    from rich.table import Table

    from .console import text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    roles = list(done.steps[0].explain or ()) if done.steps else []
    headings = ["token", "emulated", *(["likeliest"] if request.top_logprobs else []), *roles]
    for heading in headings:
        table.add_column(text(heading, "bold"), overflow="fold")
    for step in done.steps:
        cells = [_visible(_text(step.piece)), _percent(step.logprob)]
        if request.top_logprobs:
            cells.append(_ranked([(_text(each.piece), each.logprob) for each in step.top_logprobs]))
        for view in (step.explain or {}).values():
            top = _ranked([(name, logprob) for _, name, logprob in view.top])
            cells.append(f"{_percent(view.logprob)}{chr(10) if top else ''}{top}")
        table.add_row(*map(text, cells))
    return table


def _ranked(entries: list[tuple[str, float]]) -> str:
    return "\n".join(f"{_visible(name)} {_percent(logprob)}" for name, logprob in entries)


def _visible(piece: str) -> str:
    """Return a token's text with what cannot be seen written out."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in piece)
    return shown.replace(" ", "·")


def _percent(logprob: float) -> str:
    return f"{math.exp(logprob):.1%}" if logprob > -math.inf else "never"
