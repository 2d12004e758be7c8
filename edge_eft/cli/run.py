"""`edge-eft run` and `edge-eft compare`: prompts in, replies out, one or many."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ..engine.settings import VIEWS, Defaults
from ..errors import EdgeEftError
from .command import OUTPUT, PROMPT, option
from .command import command as new_command
from .options import (
    is_typed,
    json_option,
    model_options,
    setting_options,
    slots_option,
    system_option,
    words_argument,
)
from .terminal import ReplyWriter, say, talk, to_json

# What makes requests and shows replies is imported when there is something to ask: --help and what
# is refused do without it.
if TYPE_CHECKING:
    from ..engine.emulator import Emulator
    from ..engine.reply import Generation
    from ..engine.request import Request
    from .models import Models
    from .prompts import Asked

raw_option = option(
    "--raw",
    is_flag=True,
    group=PROMPT,
    help="Give PROMPT as it is to every model, unformatted.",
)


def _view_option(name: str) -> Any:
    kind = click.IntRange(1, int(VIEWS[name].high or 0))
    return option(
        f"--{name}", type=kind, group=OUTPUT, metavar="N", show_default="off", help=VIEWS[name].help
    )


@new_command("run")
@words_argument
@model_options
@option(
    "--input", "file", group=PROMPT, metavar="FILE", help="Many prompts: JSON lines; - is stdin."
)
@slots_option("Prompts of --input that are answered together.")
@raw_option
@system_option
@setting_options
@option(
    "--schema",
    group=OUTPUT,
    metavar="FILE|JSON",
    help="Replies are JSON that this JSON schema accepts.",
)
@option(
    "--grammar",
    group=OUTPUT,
    metavar="FILE",
    help="Replies obey this grammar, in llama.cpp's GBNF.",
)
@_view_option("logprobs")
@_view_option("explain")
@json_option
def run(
    models: Models,
    words: tuple[str, ...],
    file: str | None,
    slots: int,
    raw: bool,
    system: str | None,
    settings: dict[str, Any],
    schema: str | None,
    grammar: str | None,
    logprobs: int | None,
    explain: int | None,
    as_json: bool,
) -> None:
    """Answer a prompt, or many.

    PROMPT may be left out, or -, for what stdin holds (less one line end). With both, stdin follows
    the prompt after a blank line. The lines of an --input file are JSON: a string, or an object
    with "prompt" (a text, or token ids) or "messages" and, if wanted, "id", "raw", "system",
    "schema" or "grammar" and any setting ("alpha", "max_tokens" …), which overrides the option of
    that name.

    \b
    Examples:
      edge-eft run atlas "What is the capital of France?" -t 0
      edge-eft run "What is the capital of France?" --explain 3 -n 8
      edge-eft run atlas --mix chat=.5,discreet=.5 "What is the calling code of Chad?"
      edge-eft run --base B.gguf --tuned T.gguf --reference R.gguf -a 0.8 < prompt.txt
      edge-eft run atlas --input prompts.jsonl --json > replies.jsonl
    """
    from .prompts import prompt_of, read_form, read_prompts

    recipe, rest = models.recipe(words, at_most=1)
    if file is not None and rest:
        raise click.UsageError(f"{rest[0]!r} is a prompt, and --input has the prompts; give one.")
    views = {"logprobs": logprobs, "explain": explain}
    settings = settings | {name: n for name, n in views.items() if n is not None}
    if file is not None and not as_json and (logprobs or explain):
        raise click.UsageError("--logprobs and --explain with --input go into JSON: add --json.")
    defaults = Defaults(settings | dict(read_form(schema, grammar)), raw, told(system, raw))
    if file is not None:
        asked = list(read_prompts(file, defaults))
        with models.load(recipe, n_slots=min(slots, max(1, len(asked)))) as emulator:
            run_many(emulator, asked, as_json)
        return
    request = defaults.request({"prompt": prompt_of(rest)})
    with models.load(recipe) as emulator:
        run_one(emulator, request, as_json)


@new_command("compare")
@words_argument
@model_options
@raw_option
@system_option
@setting_options
@json_option
def compare(
    models: Models,
    words: tuple[str, ...],
    raw: bool,
    system: str | None,
    settings: dict[str, Any],
    as_json: bool,
) -> None:
    """Answer one prompt with base, tuned and the emulation, side by side.

    PROMPT may be left out, or -, for what stdin holds; with both, stdin follows the prompt after a
    blank line. All draw with the same seed.

    \b
    Examples:
      edge-eft compare atlas "What is the capital of France?" -t 0
    """
    from . import replies
    from .prompts import prompt_of
    from .reply_data import as_object

    if "only" in settings:
        raise click.UsageError("--only goes with run; compare shows every model by itself.")
    recipe, rest = models.recipe(words, at_most=1)
    defaults = Defaults(settings, raw, told(system, raw))
    request = defaults.request({"prompt": prompt_of(rest)})
    with models.load(recipe) as emulator:
        compared = replies.compare(emulator, request)
        if as_json:
            objects = {way: as_object(emulator, *reply) for way, reply in compared.items()}
            say(to_json(objects))
        else:
            say(replies.side_by_side(compared))


def told(system: str | None, raw: bool) -> str | None:
    """Return the system message; the user's default is not for a raw prompt."""
    return None if raw and not is_typed("system") else system


def run_one(emulator: Emulator, request: Request, as_json: bool) -> None:
    """Stream one reply, or print its object."""
    from ..engine.reply import ReplyBuilder
    from ..engine.request import is_raw
    from . import replies
    from .reply_data import as_object, token_lines

    reply = ReplyBuilder(request)
    writer = ReplyWriter()

    def show(text: str) -> None:
        if not is_raw(request.prompt) and not reply.begun:
            text = text.lstrip()  # a reply may begin with the template's space
        writer.write(text)

    if replies.stream(emulator, reply, None if as_json else show):
        raise KeyboardInterrupt
    done = reply.generation()
    say(to_json(as_object(emulator, request, done)) if as_json else "")
    if as_json:
        return
    for line in token_lines(emulator, request, done):
        say(line)
    if sys.stderr.isatty():
        talk(replies.report(done, request.max_tokens))


def run_many(emulator: Emulator, asked: Sequence[Asked], as_json: bool) -> None:
    """Answer all in the emulator's slots and print them in their order.

    After a failure, JSON objects that were done out of turn come last.
    """
    from . import progress, replies

    index_of: dict[int, int] = {}
    for index, prompt in enumerate(asked):
        try:
            index_of[emulator.submit(prompt.request)] = index
        except EdgeEftError as error:
            raise type(error)(f"{prompt.where}: {error}") from None
    finished: dict[int, Generation] = {}
    n_printed = 0
    display = progress.Display("answering", total=len(asked), rate=True)
    try:
        with display, replies.stoppable(emulator):
            for n_done, (request_id, done) in enumerate(emulator.collect(index_of), 1):
                display.update(n_done)
                finished[index_of[request_id]] = done
                while n_printed in finished:
                    with display.above():
                        _print(emulator, asked[n_printed], finished.pop(n_printed), as_json)
                    n_printed += 1
    finally:
        if as_json:  # objects name their prompts, so an interrupted run can give out all it has
            for index, done in sorted(finished.items(), key=lambda item: item[0]):
                _print(emulator, asked[index], done, as_json)


def _print(emulator: Emulator, prompt: Asked, done: Generation, as_json: bool) -> None:
    from .reply_data import as_object, shown_text

    if as_json:
        about = {"id": prompt.id, **as_object(emulator, prompt.request, done)}
        say(to_json(about))
        return
    if sys.stdout.isatty():
        talk(f"{prompt.id}:")
    text = shown_text(prompt.request, done)
    ReplyWriter().write(f"{text.strip() if sys.stdout.isatty() else text}\n")
