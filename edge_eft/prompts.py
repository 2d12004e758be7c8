"""Prompts in, replies out: stdin, JSON lines, one reply or many."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import click

from . import replies
from .emulator import Emulator
from .errors import EdgeEftError, RequestError
from .options import parse_mix, request_for
from .reply import Generation, ReplyBuilder
from .request import Request
from .text import ControlFilter


@dataclass(frozen=True)
class Defaults:
    """What the command line says of every prompt; a line of an input file may say otherwise."""

    settings: Mapping[str, Any]
    raw: bool
    system: str | None

    def request(self, entry: Mapping[str, Any]) -> Request:
        """From "prompt" or "messages", "raw", "system" and settings; RequestError if wrong."""
        given = {name: value for name, value in entry.items() if value is not None}
        prompt, messages = given.pop("prompt", None), given.pop("messages", None)
        raw, system = given.pop("raw", self.raw), given.pop("system", self.system)
        if (prompt is None) == (messages is None):
            raise RequestError('give either "prompt" or "messages"')
        for name, value, kind in (
            ("prompt", prompt, str | None),
            ("messages", messages, list | None),
            ("system", system, str | None),
            ("raw", raw, bool),
        ):
            if not isinstance(value, kind):
                raise RequestError(f"{name} is {value!r:.60}; it must be {KINDS[name]}")
        if prompt is not None and not prompt.strip():
            raise RequestError("the prompt is empty; say something")
        if isinstance(given.get("mix"), str):
            given["mix"] = parse_mix(given["mix"])
        settings = {**self.settings, **given}
        if raw:
            if system or messages is not None:
                raise RequestError("a raw prompt is one text, without system message or messages")
            return request_for(prompt or "", settings)
        turns: list[Any] = messages or [{"role": "user", "content": prompt}]
        return request_for(
            [{"role": "system", "content": system}, *turns] if system else turns, settings
        )


KINDS = {"prompt": "a text", "messages": "a list", "system": "a text", "raw": "true or false"}


class Asked(NamedTuple):
    """One prompt of an input file: where it stands, what it is called, and the request."""

    where: str
    id: Any
    request: Request


def read_stdin() -> str:
    """The prompt from stdin, less one line end."""
    if sys.stdin.isatty():
        click.echo("edge-eft: type the prompt, then Ctrl-D", err=True)
    try:
        return sys.stdin.buffer.read().decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError:
        raise RequestError("the prompt on stdin is not UTF-8") from None


def read_prompts(file: str, defaults: Defaults) -> Iterator[Asked]:
    """The prompts of a file of JSON lines; RequestError names the line that is wrong."""
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RequestError(
            f"{file}: cannot be read ({reason}); give a file of JSON lines"
        ) from None
    n = 0
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        n += 1
        where = f"{file} line {number}"
        try:
            entry = json.loads(line)
        except UnicodeDecodeError:
            raise RequestError(f"{where}: is not UTF-8") from None
        except (ValueError, RecursionError) as error:
            raise RequestError(f"{where}: is no JSON ({error}); quote a plain text") from None
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


def run_one(emulator: Emulator, request: Request, as_json: bool) -> None:
    """Stream one reply, or print its object."""
    reply = ReplyBuilder(request)
    harmless = ControlFilter() if sys.stdout.isatty() else None

    def show(text: str) -> None:
        if not isinstance(request.prompt, str) and not reply.begun:
            text = text.lstrip()  # a reply may begin with the template's space
        click.echo(harmless.filter(text) if harmless else text, nl=False)

    if replies.stream(emulator, reply, (lambda _: None) if as_json else show):
        raise KeyboardInterrupt
    done = reply.generation()
    click.echo(to_json(as_object(emulator, request, done)) if as_json else "")
    if not as_json and sys.stderr.isatty():
        replies.talk(replies.report(done))


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
    try:
        for request_id, done in emulator.collect(index_of):
            finished[index_of[request_id]] = done
            while n_printed in finished:
                _print(emulator, asked[n_printed], finished.pop(n_printed), as_json)
                n_printed += 1
    finally:
        if as_json:  # objects name their prompts, so an interrupted run can give out all it has
            for index, done in sorted(finished.items(), key=lambda item: item[0]):
                _print(emulator, asked[index], done, as_json)


def _print(emulator: Emulator, prompt: Asked, done: Generation, as_json: bool) -> None:
    if as_json:
        about = {"id": prompt.id, **as_object(emulator, prompt.request, done)}
        click.echo(to_json(about))
        return
    if sys.stderr.isatty():
        replies.talk(f"{prompt.id}:")
    # As in `run_one`: a reply to messages may begin with the template's space.
    text = done.text if isinstance(prompt.request.prompt, str) else done.text.lstrip()
    click.echo(replies.tidy(text) if sys.stdout.isatty() else text)


def as_object(emulator: Emulator, request: Request, done: Generation) -> dict[str, Any]:
    """A reply as plain data."""
    return done.to_dict() | {
        "tokens_per_second": done.tokens_per_second,
        "coefficients": request.weights.coefficients(emulator.deltas),
    }


def to_json(content: Any) -> str:
    """One line of ASCII, so that nothing in it can harm a terminal."""
    return json.dumps(content)
