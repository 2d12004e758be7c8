"""One generator of chunks behind every interface, streamed or not.

A dialect (`openai_chat.py`, `anthropic.py` …) makes an `Ask` of a body, and writes chunks in its
own words. It knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..engine.reply import Generation, ReplyBuilder, Step
from ..engine.request import Request
from ..text.reply_form import ReplyForm
from ..text.reply_parser import Piece, ReplyParser, ToolCallStart
from .api_error import ApiError
from .engine import Engine
from .failure import UnservedError
from .reply import PromptProgress, Reply
from .served import NamedModel, role_of

FinishReason = Literal["stop", "length", "tool_calls"]
# Candidates that an answer which is no stream tells of: they are held at the same time, and wait
# to become JSON together, a second of the server's.
MAX_EXPLAINED = 200_000


@dataclass(frozen=True)
class Ask:
    """What a client asks for, in one form for all interfaces.

    Attributes:
        model: of which recipe, and which part of it.
        requests: one per choice.
        parses_tools: whether calls in the reply become tool calls.
        parses_reasoning: whether what is said between reasoning marks is told apart.
        ignored: fields of the body that were not read.
        said_in: the field that the prompt came in, for errors to name.
        tells_progress: whether the chunks tell how far the prompt is read.
    """

    model: NamedModel
    requests: tuple[Request, ...]
    parses_tools: bool = False
    parses_reasoning: bool = False
    ignored: tuple[str, ...] = ()
    said_in: str = "prompt"
    tells_progress: bool = False


@dataclass(frozen=True)
class Done:
    """How a choice ended."""

    finish_reason: FinishReason
    generation: Generation

    @property
    def n_predicted(self) -> int:
        """Tokens of the reply, the end token not included."""
        return len(self.generation.tokens)

    @property
    def timings(self) -> dict[str, Any]:
        """What took how long, as llama-server has it."""
        done, times = self.generation, self.generation.timings
        prompt_ms = 1000 * sum(times.prefill.values())
        predicted_ms = 1000 * times.after_prompt
        prompt_n = done.prompt_tokens - done.cached_tokens
        return {
            "cache_n": done.cached_tokens,
            "prompt_n": prompt_n,
            "prompt_ms": prompt_ms,
            "prompt_per_second": 1000 * prompt_n / prompt_ms if prompt_ms else 0.0,
            "predicted_n": self.n_predicted,
            "predicted_ms": predicted_ms,
            "predicted_per_second": done.tokens_per_second,
            "draft_n": done.drafts_tested,
            "draft_n_accepted": done.drafts_accepted,
        }


@dataclass(frozen=True)
class Chunk:
    """What has come of one choice since the last chunk of it; or how far its prompt is read."""

    index: int
    pieces: tuple[Piece, ...] = ()
    steps: tuple[Step, ...] = ()
    done: Done | None = None
    progress: PromptProgress | None = None


@dataclass
class Generating:
    """An `Ask` that the engine has taken.

    Attributes:
        before: of each choice, what its `prefix_ids` say, which its parser has been given.
    """

    ask: Ask
    replies: list[Reply]
    parsers: list[ReplyParser]
    form: ReplyForm
    before: list[list[Piece]]
    listener: Callable[[Chunk], object] = lambda _: None

    def cancel(self) -> None:
        """Cancel what has not ended."""
        for reply in self.replies:
            reply.cancel()

    async def chunks(self) -> AsyncIterator[Chunk]:
        """Yield what comes of all choices; the last one of each has `done`."""
        async for chunk in self._merged():
            self.listener(chunk)
            yield chunk

    async def collected(self) -> list[Chunk]:
        """Return all that comes, as one chunk of each choice.

        Raises:
            ApiError: there is too much to explain at once.
        """
        parts: list[list[Chunk]] = [[] for _ in self.replies]
        n_explained = 0
        async for chunk in self.chunks():
            parts[chunk.index].append(chunk)
            n_explained += sum(len(step.candidates) for step in chunk.steps)
            if n_explained > MAX_EXPLAINED:
                told = f"more than {MAX_EXPLAINED:,} candidates are to be explained in one answer"
                raise ApiError(400, f"{told}; ask for a stream, or for fewer", param="explain")
        return [
            Chunk(
                i,
                tuple(piece for chunk in part for piece in chunk.pieces),
                tuple(step for chunk in part for step in chunk.steps),
                part[-1].done,
            )
            for i, part in enumerate(parts)
        ]

    async def _merged(self) -> AsyncIterator[Chunk]:
        streams = [self._choice(i) for i in range(len(self.replies))]
        if len(streams) == 1:
            async for chunk in streams[0]:
                yield chunk
            return
        queue: asyncio.Queue[Chunk | BaseException | None] = asyncio.Queue(8)

        async def feed(stream: AsyncIterator[Chunk]) -> None:
            try:
                async for chunk in stream:
                    await queue.put(chunk)
                await queue.put(None)
            except Exception as error:
                await queue.put(error)

        tasks = [asyncio.ensure_future(feed(stream)) for stream in streams]
        try:
            left = len(tasks)
            while left:
                got = await queue.get()
                if isinstance(got, BaseException):
                    raise got
                if got is None:
                    left -= 1
                else:
                    yield got
        finally:
            for task in tasks:
                task.cancel()

    async def _choice(self, index: int) -> AsyncIterator[Chunk]:
        parser, called, ended = self.parsers[index], _has_call(self.before[index]), False
        reply = ReplyBuilder(self.ask.requests[index])

        def chunk(pieces: list[Piece], steps: list[Step]) -> Chunk:
            nonlocal called
            called = called or _has_call(pieces)
            done = self._done(reply.generation(), called) if ended else None
            return Chunk(index, tuple(pieces), tuple(steps), done)

        async for steps in self.replies[index].steps():
            if isinstance(steps, PromptProgress):
                yield Chunk(index, progress=steps)
                continue
            for step in steps:
                reply.take(step)
            pieces = parser.push("".join(self._text(step) for step in steps))
            if steps[-1].finish_reason:
                pieces += parser.flush()
                ended = True
            yield chunk(pieces, steps)
        if not ended:  # it was stopped by the control route
            ended = True
            yield chunk(parser.flush(), [])

    def _text(self, step: Step) -> str:
        """Return what a step says, and the text of a mark that prints nothing."""
        if step.text or not self.form.controls or step.is_end_token:
            return step.text
        text = step.piece.decode("utf-8", "replace")
        return text if text in self.form.controls else ""

    @staticmethod
    def _done(generation: Generation, called: bool) -> Done:
        if generation.finish_reason == "length":
            return Done("length", generation)
        return Done("tool_calls" if called else "stop", generation)


async def begin(engine: Engine, ask: Ask, known_as: str) -> Generating:
    """Submit what is asked, and return once the engine has taken it.

    Args:
        known_as: the id that the client will know it by, for the control route.

    Raises:
        UnservedError: the engine refuses it, or cannot be had.
    """
    recipe = ask.model.recipe
    requests = [request.to_dict() for request in ask.requests]
    replies = await engine.submit(recipe, requests, progress=ask.tells_progress)
    try:
        tails = []
        for reply in replies:
            reply.known_as, reply.choices = known_as, replies
            tails.append(await reply.accepted())
    except BaseException as error:
        for reply in replies:
            reply.cancel()
        if isinstance(error, UnservedError) and error.param == "prompt":
            error.param = ask.said_in
        raise
    form = reply_form(engine, ask.model)
    if ask.parses_tools and form.tool_calls is None:  # as a reply is held to, if a call is asked
        form = form.calling()
    parsers = []
    for request, tail in zip(ask.requests, tails, strict=True):
        of_reply = form.after(tail, _continued(request))
        parsers.append(
            ReplyParser(
                of_reply,
                tools=ask.parses_tools,
                reasoning=ask.parses_reasoning,
                in_reasoning=of_reply.opens_reasoning and request.constraint is None,
            )
        )
    before = [
        parser.push(_prefix_text(reply, form))
        for parser, reply in zip(parsers, replies, strict=True)
    ]
    return Generating(ask, replies, parsers, form, before)


def _prefix_text(reply: Reply, form: ReplyForm) -> str:
    """Return what a reply's `prefix_ids` say, as `Generating` reads steps."""
    silent = reply.prefix[1::2]
    marks = [text if text in form.controls else "" for text in silent]
    return "".join(itertools.chain(*itertools.zip_longest(reply.prefix[::2], marks, fillvalue="")))


def _has_call(pieces: Iterable[Piece]) -> bool:
    return any(isinstance(piece, ToolCallStart) for piece in pieces)


def reply_form(engine: Engine, model: NamedModel) -> ReplyForm:
    """Return the form of a loaded model's replies: the tuned model's, or the base's alone."""
    facts = engine.facts(model.recipe)
    assert facts is not None  # it is loaded
    forms = facts["reply_forms"]
    return ReplyForm.from_dict(forms[role_of(forms, model)])


def _continued(request: Request) -> str:
    """Return the assistant's message that a reply continues, "" if it does not."""
    last = request.prompt[-1] if request.prompt else None
    if isinstance(last, Mapping) and last.get("role") == "assistant":
        content = last.get("content")
        return content if isinstance(content, str) else ""
    return ""
