"""Answers that come token by token, and clients that go away meanwhile.

An answer is an async generator, and to close it is to cancel the work. It is closed on every way
out: at its end, by an error, when the client disconnects, and when the server stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from .api_error import ApiError, as_api_error, place_of, shutting_down
from .body import ClientGoneError, Receive
from .guard import Scope, Send

T = TypeVar("T")
# Bytes go out as they are; data, or (event, data), are put into the lines of an event.
Event = bytes | str | tuple[str, str]

log = logging.getLogger(__name__)

COMMENT = b": keep-alive\n\n"


def as_bytes(event: Event) -> bytes:
    """Return an event as a stream has it; its data holds no line end, as JSON on one line."""
    if isinstance(event, bytes):
        return event
    if isinstance(event, str):
        return f"data: {event}\n\n".encode()
    return f"event: {event[0]}\ndata: {event[1]}\n\n".encode()


class EventStream:
    """A response of events that are sent when they come (an ASGI application, as Response is).

    An error before anything is sent is raised, for the application to answer with its status.

    Args:
        events: what to send; closed when the response ends, however it does.
        last_words: the event that tells a client of an error in mid-stream.
        media_type: of the response.
        comment: sent while nothing comes; None where the format has no comments.
        headers: more of the response.
        patience: seconds after which the response begins without an event.
        keep_alive: seconds between comments.
    """

    def __init__(
        self,
        events: AsyncGenerator[Event, None],
        *,
        last_words: Callable[[ApiError], Event],
        media_type: str = "text/event-stream",
        comment: bytes | None = COMMENT,
        headers: Mapping[str, str] | None = None,
        patience: float = 1.0,
        keep_alive: float = 10.0,
    ) -> None:
        self._events, self._last_words, self._comment = events, last_words, comment
        self._patience, self._keep_alive = patience, keep_alive
        named = {
            "content-type": media_type,
            "cache-control": "no-cache",
            "x-accel-buffering": "no",  # nginx would collect the tokens
            **(headers or {}),
        }
        self._headers = [(k.lower().encode("latin-1"), v.encode()) for k, v in named.items()]
        self._started = False
        self._written = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; return at their end, or when nobody listens any more."""
        gone = asyncio.ensure_future(_disconnected(receive))
        sending = asyncio.ensure_future(self._send_all(send, gone))
        commenting = asyncio.ensure_future(self._comment_in_gaps(send))
        try:
            await asyncio.wait({gone, sending}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                commenting.cancel()
                sending.result()
                await self._end(send, None)
        except asyncio.CancelledError:  # the server stops: that is for the client to know
            sending.cancel()  # not waited for: the loop itself is about to end
            stopped = shutting_down()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._end(send, stopped), 0.2)
            raise
        except Exception as error:
            if not self._started:
                raise
            if not isinstance(error, ApiError):
                log.error("a stream of %s failed: %s", scope["path"], place_of(error))
            await self._end(send, as_api_error(error))
        finally:
            gone.cancel()
            commenting.cancel()
            await _ended(sending)  # a generator that runs cannot be closed
            await self._events.aclose()

    async def _send_all(self, send: Send, gone: asyncio.Future[None]) -> None:
        async for event in self._events:
            await self._write(send, as_bytes(event))
            if gone.done():  # what is sent to nobody takes no time, and no cancellation comes in
                return

    async def _comment_in_gaps(self, send: Send) -> None:
        """Begin the response where the first event takes long, and comment where others do."""
        await asyncio.sleep(self._patience)
        if not self._started:
            await self._write(send, self._comment or b"")
        while True:
            silence = time.monotonic() - self._written
            if silence >= self._keep_alive:
                await self._write(send, self._comment or b"")
                silence = 0.0
            await asyncio.sleep(self._keep_alive - silence)

    async def _write(self, send: Send, data: bytes) -> None:
        if not self._started:
            self._started = True
            start = {"type": "http.response.start", "status": 200, "headers": self._headers}
            await send(start)
        if data:
            self._written = time.monotonic()
            await send({"type": "http.response.body", "body": data, "more_body": True})

    async def _end(self, send: Send, error: ApiError | None) -> None:
        await self._write(send, b"" if error is None else as_bytes(self._last_words(error)))
        await send({"type": "http.response.body", "body": b""})


async def run_unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns; it is cancelled if the client goes away.

    Raises ClientGoneError if the client did, which the guard takes; else what `work` raises.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        gone.cancel()
        await _ended(task)


async def _ended(task: asyncio.Future[Any]) -> None:
    """Cancel a task, and wait until it is over; what it raises was of interest to nobody."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()


async def _disconnected(receive: Receive) -> None:
    """Return when the client has gone, or has its response."""
    while (await receive())["type"] != "http.disconnect":
        pass
