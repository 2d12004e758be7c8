"""From an `Ask` to an HTTP answer: as a stream of events, or as one object."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .api_error import ApiError
from .body import json_object
from .engine import Engine
from .generation import Ask, Chunk, Generating, begin
from .guard import App
from .metrics import Metrics
from .served import NamedModel, find
from .sse import COMMENT, Event, EventStream, run_unless_gone

log = logging.getLogger(__name__)


class Writer:
    """How a dialect says what comes: OpenAI's way, where it has none of its own.

    Args:
        id: of the answer.
        model: as the client named it.
        body: of the request, which is not checked yet.
    """

    media_type = "text/event-stream"  # of a stream
    last: Event | None = "[DONE]"  # of its events, if there is a mark for the end
    comment: bytes | None = COMMENT  # sent while nothing comes, if the format has comments

    def __init__(self, id: str, model: str, body: Mapping[str, Any]) -> None:
        self._id, self._model, self._body = id, model, body

    def events(self, generating: Generating) -> AsyncIterator[Any]:
        """Yield the objects of a stream."""
        raise NotImplementedError

    async def whole(self, generating: Generating) -> Any:
        """Return the whole answer as JSON has it, an object in most dialects."""
        raise NotImplementedError

    def event(self, one: Any) -> Event:
        """Return an object as an event."""
        return json.dumps(one)

    def last_words(self, error: ApiError) -> Event:
        """Return the event that tells of an error in mid-stream."""
        return self.event(error.body())


class NamingWriter(Writer):
    """Names every event by its `type`."""

    last = None

    def event(self, one: Any) -> Event:
        """Return an object as an event with a name."""
        return one["type"], json.dumps(one)


class Answering:
    """Answers requests of any dialect.

    Args:
        engine: that generates.
        metrics: that are added to.
    """

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        self._engine, self._metrics = engine, metrics

    def endpoint(
        self,
        prefix: str,
        ask: Callable[[dict[str, Any], Engine, NamedModel], Coroutine[Any, Any, Ask]],
        writer: type[Writer],
    ) -> Callable[[Request], Coroutine[Any, Any, App]]:
        """Return what answers a route of a dialect.

        Args:
            prefix: of the answers' ids.
            ask: body, engine, model → what is asked for.
            writer: of the answers.
        """

        async def answered(request: Request) -> App:
            body = await body_of(request)
            model, id = find(self._engine, body.get("model")), new_id(prefix)
            stream = is_stream(body)
            asked = ask(body, self._engine, model)
            return await self.answer(request, asked, writer(id, model.id, body), id, stream=stream)

        return answered

    def telling(
        self, tell: Callable[[Engine, NamedModel, Mapping[str, Any]], Coroutine[Any, Any, Any]]
    ) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a route by one object.

        Args:
            tell: engine, model, body (of a GET, its query) → the object.
        """

        async def told(request: Request) -> Response:
            is_get = request.method in ("GET", "HEAD")
            asked = request.query_params if is_get else await body_of(request)
            model = find(self._engine, asked.get("model"))
            return JSONResponse(await tell(self._engine, model, asked))

        return told

    async def answer(
        self,
        request: Request,
        ask: Coroutine[Any, Any, Ask],
        writer: Writer,
        id: str,
        *,
        stream: bool,
    ) -> App:
        """Return the answer, an ASGI application.

        Args:
            ask: what is asked for, when its model is loaded.
            id: that the client will know the answer by.
        """
        asked = await run_unless_gone(request.receive, ask)
        headers = _ignored(asked)

        async def events() -> AsyncGenerator[Event, None]:
            generating = await self._begin(asked, id)
            try:
                async for one in writer.events(generating):
                    yield writer.event(one)
                if writer.last is not None:
                    yield writer.last
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
                last_words=writer.last_words,
                media_type=writer.media_type,
                headers=headers,
                comment=writer.comment,
            )
        return JSONResponse(await run_unless_gone(request.receive, whole()), headers=headers)

    async def _begin(self, ask: Ask, id: str) -> Generating:
        generating = await begin(self._engine, ask, id)
        generating.listener = partial(self._count, ask)
        return generating

    def _count(self, ask: Ask, chunk: Chunk) -> None:
        """Add what has come to the metrics; a client that leaves has had it, too."""
        n_before = len(ask.requests[chunk.index].prefix_ids)
        for step in chunk.steps:
            first, prefill = step.index == n_before, sum(step.timings.prefill.values())
            for name, amount in (
                ("prompt_tokens_total", step.prompt_tokens * first),
                ("cached_tokens_total", step.cached_tokens * first),
                ("predicted_tokens_total", not step.is_end_token),
                ("prompt_seconds_total", prefill),
                ("predicted_seconds_total", step.timings.total - prefill),
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


def not_served(why: str) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    """Return what answers a path that clients know and that does nothing here."""

    async def refuse(request: Request) -> Response:
        # Not 404, which Ollama's clients take for a missing model that they should pull.
        told = f"{request.url.path} is not served: {why}"
        raise ApiError(405, told, headers={"Allow": ""})

    return refuse


def new_id(prefix: str) -> str:
    """Return an id that no other answer has."""
    return prefix + secrets.token_hex(12)


def is_stream(body: Mapping[str, Any]) -> bool:
    """Return whether a stream is asked for. Raises ApiError if that is not true or false."""
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise ApiError(400, f"stream is {stream!r:.40}; it must be true or false", param="stream")
    return bool(stream)
