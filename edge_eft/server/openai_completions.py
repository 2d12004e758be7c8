"""OpenAI's completions, the older interface: raw text or token ids, and their log-probabilities.

With `echo` and `logprobs` the prompt's own tokens are scored under the emulation, which is what
lm-evaluation-harness asks for.
"""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

from ..engine.reply import PromptToken, Step, TokenLogprob
from ..engine.request import Prompt
from ..text.reply_parser import Content
from .answers import Writer
from .api_error import ApiError
from .engine import Engine
from .explained import explained, finite, text_of
from .fields import MAX_CHOICES, MAX_TOP_LOGPROBS, SAMPLING, Fields
from .generation import Ask, Chunk, Done, Generating
from .openai_words import base, check_stream_options, merged_usage, wants_usage
from .served import NamedModel
from .tokens import check_count, check_fits, prefix_ids

KNOWN = (*SAMPLING, *("prompt", "echo", "logprobs", "best_of", "suffix", "response_format"))
_DEFAULT_LENGTH = 16  # OpenAI's
# Likeliest tokens in the place of each of a prompt's, OpenAI's number: with 20, a prompt of 4,096
# tokens is 5 MB on one line, for which all others wait half a second.
_MOST_ECHOED = 5


async def ask(body: Mapping[str, Any], engine: Engine, model: NamedModel) -> Ask:
    """Return what a body asks for; raises as `openai_chat.ask`."""
    fields = Fields(body, KNOWN)
    if fields.get("suffix", str, "a text"):
        raise fields.wrong("suffix", "these models only continue a text; leave it out")
    n = fields.count("n", 1, MAX_CHOICES, 1)
    if fields.count("best_of", 1, MAX_CHOICES, n) != n:
        raise fields.wrong("best_of", "it must be n: choices are not ranked here")
    most = (engine.n_slots + engine.queue) // n
    prompts = _prompts(fields, most)
    check_count(len(prompts), most)
    facts = await engine.ready(model.recipe)
    for prompt in prompts:
        if not isinstance(prompt, str):
            check_fits(len(prompt), facts)
    echo, n_top = fields.flag("echo"), fields.get("logprobs", int, "a whole number")
    check_stream_options(fields)
    no_reply = fields.get("max_tokens", int, "a whole number") == 0
    if no_reply and not echo:
        raise fields.wrong("max_tokens", "it must be at least 1; 0 goes with echo alone")
    longest = 1 if no_reply else fields.max_tokens(("max_tokens",), facts["n_ctx"])
    if "max_tokens" not in fields:
        longest = _DEFAULT_LENGTH
    more: dict[str, Any] = {"max_tokens": longest, "prefix_ids": prefix_ids(fields, facts)}
    if echo and more["prefix_ids"]:
        raise fields.wrong("prefix_ids", "they do not go with echo; leave one of them out")
    if n_top is not None:
        more["top_logprobs"] = fields.count("logprobs", 0, MAX_TOP_LOGPROBS, 0)
        if echo and n_top > _MOST_ECHOED:
            wanted = f"with echo it must be a whole number in [0, {_MOST_ECHOED}]"
            raise fields.wrong("logprobs", wanted)
        if echo:
            more["prompt_logprobs"] = more["top_logprobs"]
    elif echo:
        more["prompt_logprobs"] = 0  # their pieces are wanted
    if (constraint := fields.constraint()) is not None:
        more["constraint"] = constraint
    requests = [one for prompt in prompts for one in fields.choices(prompt, model, n, **more)]
    return Ask(model, tuple(requests), ignored=tuple(fields.ignored))


def _prompts(fields: Fields, most: int) -> list[Prompt]:
    """Return the prompts, at most so many: a text, texts, token ids, or lists of them."""
    prompt = fields.get("prompt", str | list, "a text, token ids, or a list of them")
    if prompt is None:
        raise ApiError(400, "prompt is missing; give a text or token ids", param="prompt")
    if isinstance(prompt, str):
        return [prompt]
    if not prompt or type(prompt[0]) is not int:  # before millions are looked at
        check_count(len(prompt), most)
    if prompt and all(isinstance(part, str) for part in prompt):
        return list(prompt)
    if prompt and all(type(part) is int for part in prompt):
        return [prompt]
    if prompt and all(
        isinstance(part, list) and part and all(type(token) is int for token in part)
        for part in prompt
    ):
        return list(prompt)
    raise fields.wrong("prompt", "it must be a text, token ids, or a list of either")


# -- answers -------------------------------------------------------------------------------


class CompletionWriter(Writer):
    """Writes chunks as completions."""

    def __init__(self, id: str, model: str, body: Mapping[str, Any]) -> None:
        super().__init__(id, model, body)
        self._with_usage = wants_usage(body)
        self._n = body.get("n") or 1
        self._echo = bool(body.get("echo"))
        self._n_top = body.get("logprobs")
        self._n_explained = body.get("explain") or 0
        self._no_reply = body.get("max_tokens") == 0
        self._tables: dict[int, _Logprobs] = {}

    async def events(self, generating: Generating) -> AsyncIterator[dict[str, Any]]:
        """Yield the objects of a stream, without its end mark."""
        done: dict[int, Done] = {}
        async for chunk in generating.chunks():
            choice = self._choice(chunk, generating.ask.requests[chunk.index].prompt)
            event = self._base() | {"choices": [choice]}
            if chunk.done:
                done[chunk.index] = chunk.done
                event["timings"] = chunk.done.timings
            if chunk.done or choice["text"] or choice["logprobs"]:
                yield event
        if self._with_usage:
            yield self._base() | {"choices": [], "usage": merged_usage(done, self._n)}

    async def whole(self, generating: Generating) -> dict[str, Any]:
        """Return the answer as one object."""
        requests, chunks = generating.ask.requests, await generating.collected()
        done = {chunk.index: chunk.done for chunk in chunks if chunk.done}
        return self._base() | {
            "choices": [self._choice(one, requests[one.index].prompt) for one in chunks],
            "usage": merged_usage(done, self._n),
            "timings": done[0].timings,
        }

    def _base(self) -> dict[str, Any]:
        return base(self._id, "text_completion", self._model)

    def _choice(self, chunk: Chunk, prompt: Prompt) -> dict[str, Any]:
        table = self._tables.setdefault(chunk.index, _Logprobs(prompt))
        echoed = tuple(
            one for step in chunk.steps if self._echo for one in step.prompt_logprobs or ()
        )
        pieces = (piece.text for piece in chunk.pieces if isinstance(piece, Content))
        said = "" if self._no_reply else "".join(pieces)
        steps = () if self._no_reply else chunk.steps
        choice: dict[str, Any] = {
            "index": chunk.index,
            "text": (table.echo(echoed) if echoed else "") + said,
            "logprobs": None if self._n_top is None else table.take(echoed, steps, self._n_top),
            "finish_reason": chunk.done.finish_reason if chunk.done else None,
        }
        if self._n_explained:
            choice["explain"] = explained(steps, self._n_explained)
        return choice


class _Logprobs:
    """The table of one choice's tokens, in the older interface's shape.

    The end token has a row, too: lm-evaluation-harness cuts off the one generated token.
    """

    def __init__(self, prompt: Prompt) -> None:
        self._prompt = prompt
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def echo(self, tokens: Iterable[PromptToken]) -> str:
        """Return the prompt as text, of token ids what they print."""
        if isinstance(self._prompt, str):
            return self._prompt
        return text_of(b"".join(one.piece for one in tokens))

    def take(
        self, prompt: Sequence[PromptToken], steps: Iterable[Step], n_top: int
    ) -> dict[str, list[Any]] | None:
        """Return the rows of tokens that have come; None for no tokens."""
        rows = []
        for one in prompt:
            offset = self._offset
            if not (one.logprob is None and self._is_added(one)):
                self._move(one.piece)
            rows.append(_row(one.piece, one.logprob, one.top, offset))
        for step in steps:
            rows.append(_row(step.piece, step.logprob, step.top_logprobs[:n_top], self._offset))
            self._move(step.piece)
        if not rows:
            return None
        names = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
        columns = zip(*rows, strict=True)
        return {name: list(column) for name, column in zip(names, columns, strict=True)}

    def _is_added(self, first: PromptToken) -> bool:
        """Whether the first token is a BOS, which the text does not have."""
        prompt = self._prompt
        return isinstance(prompt, str) and not prompt.encode().startswith(first.piece)

    def _move(self, piece: bytes) -> None:
        self._offset += len(self._decoder.decode(piece))


def _row(
    piece: bytes, logprob: float | None, top: Iterable[TokenLogprob], offset: int
) -> tuple[str, float | None, dict[str, float] | None, int]:
    text = text_of(piece)
    if logprob is None:
        return text, None, None, offset
    likeliest = _by_text(top)
    likeliest.setdefault(text, finite(logprob))
    return text, finite(logprob), likeliest, offset


def _by_text(top: Iterable[TokenLogprob]) -> dict[str, float]:
    """Return text → log-probability; of tokens that look alike the likelier one."""
    found: dict[str, float] = {}
    for one in top:
        found.setdefault(text_of(one.piece), finite(one.logprob))
    return found
