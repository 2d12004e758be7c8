"""`edge-eft run` and `edge-eft compare`: prompts in, replies out, one or many."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..engine.reply import ReplyBuilder
from ..engine.request import is_raw
from ..engine.settings import Defaults
from ..errors import EdgeEftError, RequestError
from ..files.plain_text import decode, read_at_most, reason, utf8
from ..files.recipe import absolute
from . import progress, replies
from .options import (
    HELP,
    Models,
    json_option,
    model_options,
    setting_options,
    slots_option,
    system_option,
    words_argument,
)
from .terminal import ReplyWriter, say, talk, to_json

if TYPE_CHECKING:
    from ..engine.emulator import Emulator
    from ..engine.reply import Generation
    from ..engine.request import Request


_MAX_PROMPT_BYTES = 64 << 20  # more than any context holds
_MAX_INPUT_BYTES = 256 << 20


@click.command("run", context_settings=HELP)
@words_argument
@model_options
@click.option("--input", "file", metavar="FILE", help="Many prompts: JSON lines; - is stdin.")
@slots_option("Prompts of --input that are answered together.")
@click.option("--raw", is_flag=True, help="Give PROMPT as it is to every model, unformatted.")
@system_option
@setting_options
@json_option
def run(
    models: Models,
    words: tuple[str, ...],
    file: str | None,
    slots: int,
    raw: bool,
    system: str | None,
    settings: dict[str, Any],
    as_json: bool,
) -> None:
    """Answer a prompt, or many.

    PROMPT comes from stdin where it is left out (less one line end). The lines of an --input file
    are JSON: a string, or an object with "prompt" (a text, or token ids) or "messages" and, if
    wanted, "id", "raw", "system" and any setting ("alpha", "max_tokens" …), which goes before the
    option of its name.

    \b
    Examples:
      edge-eft run atlas "What is the capital of France?" --temperature 0
      edge-eft run atlas --mix chat=.5,discreet=.5 "What is the calling code of Chad?"
      edge-eft run --base B.gguf --tuned T.gguf --reference R.gguf --alpha 0.8 < prompt.txt
      edge-eft run atlas --input prompts.jsonl --json > replies.jsonl
    """
    recipe, rest = models.recipe(words, at_most=1)
    if file is not None and rest:
        raise click.UsageError(f"{rest[0]!r} is a prompt, and --input has the prompts; give one.")
    defaults = Defaults(settings, raw, system)
    if file is not None:
        asked = list(read_prompts(file, defaults))
        with models.load(recipe, n_slots=min(slots, max(1, len(asked)))) as emulator:
            run_many(emulator, asked, as_json)
        return
    request = defaults.request({"prompt": prompt_of(rest)})
    with models.load(recipe) as emulator:
        run_one(emulator, request, as_json)


@click.command("compare", context_settings=HELP)
@words_argument
@model_options
@click.option("--raw", is_flag=True, help="Give PROMPT as it is to every model, unformatted.")
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

    PROMPT comes from stdin where it is left out. All draw with the same seed.

    \b
    Examples:
      edge-eft compare atlas "What is the capital of France?" --temperature 0
    """
    if "only" in settings:
        raise click.UsageError("--only goes with run; compare shows every model by itself.")
    recipe, rest = models.recipe(words, at_most=1)
    defaults = Defaults(settings, raw, system)
    request = defaults.request({"prompt": prompt_of(rest)})
    with models.load(recipe) as emulator:
        compared = replies.compare(emulator, request)
        if as_json:
            objects = {way: as_object(emulator, *reply) for way, reply in compared.items()}
            say(to_json(objects))
        else:
            say(replies.side_by_side(compared))


class Asked(NamedTuple):
    """One prompt of an input file: where it stands, what it is called, and the request."""

    where: str
    id: Any
    request: Request


def prompt_of(words: Sequence[str]) -> str:
    """Return the prompt: the word that is left, else what stdin holds."""
    if not words:
        return read_stdin()
    try:
        return decode(words[0].encode())
    except UnicodeEncodeError:
        raise RequestError("the prompt is not UTF-8; convert it, as with iconv") from None


def read_stdin() -> str:
    """Return the prompt from stdin, less one line end and a byte-order mark.

    Its lines end in \\n as the models' training texts do, also where Windows wrote \\r\\n.
    """
    if sys.stdin.isatty():
        say("edge-eft: type the prompt, then Ctrl-D", err=True)
    try:
        return decode(read_at_most(sys.stdin.buffer, _MAX_PROMPT_BYTES)).removesuffix("\n")
    except UnicodeDecodeError:
        raise RequestError("the prompt on stdin is not UTF-8; convert it, as with iconv") from None
    except OSError as error:
        raise RequestError(f"the prompt on stdin cannot be read ({reason(error)})") from None


def read_prompts(file: str, defaults: Defaults) -> Iterator[Asked]:
    """Yield the prompts of a file of JSON lines; RequestError names the line that is wrong."""
    n = 0
    for number, line in enumerate(_lines(file), 1):
        if not line.strip():
            continue
        n += 1
        where = f"{file} line {number}"
        try:
            # Files that were put together have the mark of each part.
            entry = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError:
            raise RequestError(f"{where}: is not UTF-8") from None
        except (ValueError, RecursionError) as error:
            raise RequestError(f"{where}: is not JSON ({error}); quote a plain text") from None
        if isinstance(entry, str):
            entry = {"prompt": entry}
        if not isinstance(entry, dict):
            raise RequestError(f"{where}: is neither a text nor an object")
        name = entry.pop("id", None)
        try:
            yield Asked(where, n if name is None else name, defaults.request(entry))
        except EdgeEftError as error:
            raise type(error)(f"{where}: {error}") from None
    if not n:
        raise RequestError(f"{file}: holds no prompt; give one JSON text or object per line")


def _lines(file: str) -> list[bytes]:
    """Return the lines of a file or of stdin, in UTF-8."""
    try:
        if file == "-":
            return utf8(read_at_most(sys.stdin.buffer, _MAX_INPUT_BYTES)).split(b"\n")
        with open(absolute(file), "rb") as opened:
            return utf8(read_at_most(opened, _MAX_INPUT_BYTES)).split(b"\n")
    except UnicodeDecodeError:
        raise RequestError(f"{file}: begins as UTF-16 and is not; save it as UTF-8") from None
    except (OSError, ValueError) as error:
        raise RequestError(
            f"{file}: cannot be read ({reason(error)}); give a file of JSON lines"
        ) from None


def run_one(emulator: Emulator, request: Request, as_json: bool) -> None:
    """Stream one reply, or print its object."""
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
    if not as_json and sys.stderr.isatty():
        talk(replies.report(done))


def run_many(emulator: Emulator, asked: Sequence[Asked], as_json: bool) -> None:
    """Answer all in the emulator's slots and print them in their order.

    After a failure, JSON objects that were done out of turn come last.
    """
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
    if as_json:
        about = {"id": prompt.id, **as_object(emulator, prompt.request, done)}
        say(to_json(about))
        return
    if sys.stdout.isatty():
        talk(f"{prompt.id}:")
    # As in `run_one`: a reply to messages may begin with the template's space.
    text = done.text if is_raw(prompt.request.prompt) else done.text.lstrip()
    ReplyWriter().write(f"{text.strip() if sys.stdout.isatty() else text}\n")


def as_object(emulator: Emulator, request: Request, done: Generation) -> dict[str, Any]:
    """Return a reply as plain data."""
    return done.to_dict() | {
        "tokens_per_second": done.tokens_per_second,
        "coefficients": request.weights.coefficients(emulator.deltas),
    }
