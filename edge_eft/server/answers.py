"""From an `Ask` to an HTTP answer: as a stream of events, or as one object."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse

from .api_error import ApiError
from .body import json_object
from .engine import Engine
from .generation import Ask, Chunk, Generating, begin
from .guard import App
from .metrics import Metrics
from .sse import COMMENT, Event, EventStream, run_unless_gone

log = logging.getLogger(__name__)


class Writer(Protocol):
    """How a dialect says what comes."""

    def events(self, generating: Generating) -> AsyncIterator[Any]:
        """Yield the events of a stream, as `Dialect.event` takes them."""

    async def whole(self, generating: Generating) -> Any:
        """Return the whole answer as JSON has it, an object in most dialects."""


def as_data(event: Any) -> Event:
    """Return an object as an event without a name, OpenAI's way."""
    return json.dumps(event)


def as_named(event: Any) -> Event:
    """Return an object as an event with its `type` as the name."""
    return event["type"], json.dumps(event)


def openai_last_words(error: ApiError) -> Event:
    """Return the event that tells of an error in mid-stream."""
    return json.dumps(error.body())


class Answering:
    """Answers requests of any dialect.

    Args:
        engine: that generates.
        metrics: that are added to.
    """

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        self._engine, self._metrics = engine, metrics

    async def answer(
        self,
        request: Request,
        ask: Coroutine[Any, Any, Ask],
        writer: Writer,
        *,
        id: str,
        stream: bool,
        event: Callable[[Any], Event] = as_data,
        last: Event | None = "[DONE]",
        last_words: Callable[[ApiError], Event] = openai_last_words,
        media_type: str = "text/event-stream",
        comment: bytes | None = COMMENT,
    ) -> App:
        """Return the answer, an ASGI application.

        Args:
            ask: what is asked for, when its model is loaded.
            writer: the dialect's.
            id: that the client will know the answer by.
            event: makes an event of what the writer yields.
            last: after the last event; None: nothing.
            last_words: makes an event of an error in mid-stream.
            comment: sent while nothing comes; None where the format has no comments.
        """
        asked = await run_unless_gone(request.receive, ask)
        headers = _ignored(asked)

        async def events() -> AsyncGenerator[Event, None]:
            generating = await self._begin(asked, id)
            try:
                async for one in writer.events(generating):
                    yield event(one)
                if last is not None:
                    yield last
            finally:
                generating.cancel()

        async def whole() -> Any:
            generating = await self._begin(asked, id)
            try:
                return await writer.whole(generating)
            finally:
                generating.cancel()

        if stream:
            return EventStream(
                events(),
                last_words=last_words,
                media_type=media_type,
                headers=headers,
                comment=comment,
            )
        return JSONResponse(await run_unless_gone(request.receive, whole()), headers=headers)

    async def _begin(self, ask: Ask, id: str) -> Generating:
        generating = await begin(self._engine, ask, id)
        generating.listener = self._count
        return generating

    def _count(self, chunk: Chunk) -> None:
        """Add a choice that has ended to the metrics."""
        if chunk.done:
            done, times = chunk.done, chunk.done.timings
            for name, amount in (
                ("prompt_tokens_total", done.generation.prompt_tokens),
                ("cached_tokens_total", done.generation.cached_tokens),
                ("predicted_tokens_total", done.n_predicted),
                ("prompt_seconds_total", times["prompt_ms"] / 1000),
                ("predicted_seconds_total", times["predicted_ms"] / 1000),
            ):
                self._metrics.add(name, amount)


def _ignored(ask: Ask) -> dict[str, str]:
    """Return the header that names the fields that are not read."""
    if not ask.ignored:
        return {}
    names = "".join(c if c.isprintable() else "?" for c in ", ".join(ask.ignored)[:500])
    log.info("fields that are not read: %s", names)
    # A header must not begin or end with a space, and a field's name may be one, or nothing.
    return {"X-Ignored-Fields": names.encode("ascii", "replace").decode().strip()}


async def body_of(request: Request) -> dict[str, Any]:
    """Return the JSON object that a request brings; raises ApiError."""
    return json_object(await request.body())


def new_id(prefix: str) -> str:
    """Return an id that no other answer has."""
    return prefix + secrets.token_hex(12)


def is_stream(body: Mapping[str, Any]) -> bool:
    """Return whether a stream is asked for. Raises ApiError if that is not true or false."""
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise ApiError(400, f"stream is {stream!r:.40}; it must be true or false", param="stream")
    return bool(stream)
