"""`edge-eft inspect`: one reply, and what the delta did to each of its tokens; also as a page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .command import OUTPUT, option
from .command import command as new_command
from .options import model_options, setting_options, system_option, words_argument
from .run import raw_option, told
from .terminal import counted, harmless, one_line, say_bytes, talk, writing_to

if TYPE_CHECKING:
    from ..engine.emulator import Emulator
    from ..engine.reply import Generation
    from ..engine.request import Request
    from .models import Models

_N_LIKELIEST = 5  # of each model, as the page shows them
_LONGEST = 60  # characters of a title


@new_command("inspect")
@words_argument
@model_options
@raw_option
@system_option
@setting_options
@option(
    "--html",
    "file",
    group=OUTPUT,
    metavar="FILE",
    help="Write a page that needs nothing else, with each token's view; - is stdout.",
)
@option("--force", group=OUTPUT, is_flag=True, help="Replace FILE if it is there.")
def command(
    models: Models,
    words: tuple[str, ...],
    raw: bool,
    system: str | None,
    settings: dict[str, Any],
    file: str | None,
    force: bool,
) -> None:
    """Show what the delta did to each token of a reply.

    The reply is shaded by how much likelier the delta made each token. With --html it becomes one
    file for a browser, where each token tells what every model thought of it: for a paper, an
    issue or a talk. PROMPT may be left out, or -, for what stdin holds.

    \b
    Examples:
      edge-eft inspect atlas "What is the capital of Peru?" -t 0
      edge-eft inspect atlas "What is the capital of Peru?" -t 0 --html peru.html
    """
    from ..engine.settings import Defaults
    from .prompts import prompt_of

    if force and file is None:
        raise click.UsageError("--force replaces the FILE of --html; give one.")
    recipe, rest = models.recipe(words, at_most=1)
    if file is not None and file != "-":
        _check_place(Path(file), force)
    views = {"logprobs": _N_LIKELIEST, "explain": _N_LIKELIEST}
    defaults = Defaults(settings | views, raw, told(system, raw))
    prompt = prompt_of(rest)
    request = defaults.request({"prompt": prompt})
    with models.load(recipe) as emulator:
        done = _reply(emulator, request)
        if file is None:
            _show(done)
            return
        made = _page(emulator, prompt, request, done).encode()
    _write(made, file, force)
    if file != "-":
        talk(f"{file}: {counted(len(done.tokens), 'token')}, {len(made) / 1000:.0f} kB")


def _check_place(path: Path, force: bool) -> None:
    """Refuse before models are loaded what could not be written after."""
    if path.is_dir():
        raise click.UsageError(f"--html {path} is a directory; name a file in it.")
    if not path.absolute().parent.is_dir():
        raise click.UsageError(f"--html {path}: there is no directory {path.parent}.")
    if os.path.lexists(path) and not force:
        raise click.UsageError(f"{path} is there already; --force replaces it.")
    written = path if path.exists() else path.absolute().parent
    if not os.access(written, os.W_OK):
        raise click.UsageError(f"--html {path}: {written} cannot be written.")


def _write(made: bytes, file: str, force: bool) -> None:
    """Write the page as it is: in another encoding its policy would forbid its own script."""
    with writing_to("stdout" if file == "-" else file):
        if file == "-":
            say_bytes(made)
            return
        with open(file, "wb" if force else "xb") as page:
            page.write(made)


def _reply(emulator: Emulator, request: Request) -> Generation:
    from ..engine.reply import ReplyBuilder
    from . import replies

    reply = ReplyBuilder(request)
    if replies.stream(emulator, reply, None):
        raise KeyboardInterrupt
    return reply.generation()


def _show(done: Generation) -> None:
    from ..evaluate.token_shifts import TokenShift, texts_of
    from .shading import show_shifts

    texts = texts_of([step.piece for step in done.steps])
    bases = [(step.explain or {})["base"].logprob for step in done.steps]
    shown = zip(texts, (step.logprob for step in done.steps), bases, strict=True)
    show_shifts([TokenShift(*each) for each in shown])


def _page(emulator: Emulator, prompt: str, request: Request, done: Generation) -> str:
    from ..server.explained import explained
    from .inspect_page import page
    from .reply_data import shown_text

    reply = {
        "deltas": dict(emulator.deltas),
        "marks": [{"at": 0, "weights": request.weights.to_dict()}],
        "explain": [_short(entry) for entry in explained(done.steps, _N_LIKELIEST)],
    }
    title = one_line(prompt)
    return page(
        title if len(title) <= _LONGEST else f"{title[: _LONGEST - 1]}…",
        harmless(prompt),
        harmless(shown_text(request, done)),
        [(name, harmless(value)) for name, value in _figures(emulator, request, done)],
        reply,
    )


def _short(entry: dict[str, Any]) -> dict[str, Any]:
    """Return what the page reads of a token: no list that its candidates have, five decimals."""
    views = {key: v for key, v in entry.items() if isinstance(v, dict)}
    return {
        **entry,
        **{role: {"logprob": round(view["logprob"], 5)} for role, view in views.items()},
        "candidates": [
            one | {"logprobs": {role: round(p, 5) for role, p in one["logprobs"].items()}}
            for one in entry["candidates"]
        ],
    }


def _figures(emulator: Emulator, request: Request, done: Generation) -> Iterator[tuple[str, str]]:
    """Yield what a reader needs to get the reply again, and how fast it came."""
    weights = request.weights
    yield "recipe", emulator.recipe.name
    used = {name for name, c in weights.coefficients(emulator.deltas).items() if c}
    for role, about in emulator.record.files.items():
        if role in used:
            yield role, f"{about.path.name} ({about.quantisation})"
    given = weights.to_dict() or {"alpha": 1.0}
    for name, value in given.items():
        yield {"alpha": "α", "beta": "β"}.get(name, name), _written(value)
    yield "temperature", f"{request.temperature:g}"
    yield "seed", str(done.seed)
    yield "tokens", str(len(done.tokens))
    if done.tokens_per_second:
        yield "speed", f"{done.tokens_per_second:.1f} tokens/s"
    if done.drafts_tested:
        yield "drafts accepted", f"{done.drafts_accepted} of {done.drafts_tested}"


def _written(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {weight:g}" for name, weight in value.items())
    return f"{value:g}" if isinstance(value, float | int) else str(value)
