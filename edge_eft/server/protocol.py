"""HTTP/1.1 on sockets that strangers hold: uvicorn's protocol, with a time for everything.

A connection waits for one thing at a time: the headers of a request, its body, its next request,
or that the client reads. Each wait has its limit, after which the connection is ended. Beyond so
many connections the one that has waited longest for a request makes room.
"""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import dataclass
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .api_error import ApiError

_SEND_BUFFER = 64 << 10  # bytes in the system's hands; the reader's own buffer comes on top


@dataclass(frozen=True)
class Limits:
    """Seconds that a connection may take, and how many there may be.

    Attributes:
        headers: from connecting, or a request's first byte, until its headers are whole.
        body: from its headers until its body is whole.
        idle: from a response until the next request begins.
        stalled: in which a reader takes nothing of what is sent.
        connections: at the same time.
        header_bytes: of one request.
    """

    headers: float = 10.0
    body: float = 60.0
    idle: float = 30.0
    stalled: float = 60.0
    connections: int = 512
    header_bytes: int = 32 << 10


def protocol(limits: Limits) -> type[H11Protocol]:
    """Return the protocol with these limits, for `uvicorn.Config(http=…)`."""
    return cast(type[H11Protocol], type("LimitedProtocol", (LimitedProtocol,), {"limits": limits}))


class LimitedProtocol(H11Protocol):
    """One connection. A response that is being made has no limit of its own: tokens take time."""

    limits = Limits()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, and make room for it if there are too many."""
        super().connection_made(transport)
        self._waits_for: tuple[str, object] = ("", None)
        self._timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self.waiting_since = self.loop.time()
        # Whatever the system does not take at once means that the reader is slow: the sender
        # waits, and the stall is timed, also that of a response which is whole.
        transport.set_write_buffer_limits(high=0)
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        if len(self.connections) > self.limits.connections:
            self._make_room()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything; whoever is answering hears of it."""
        self._set_timer(None)
        self._stop_stall_timer()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what the client sends."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Go on to the next request, which may be here already."""
        super().on_response_complete()
        self._unset_keepalive_if_required()  # `_watch` times it, through every kind of request
        self._watch()

    def pause_writing(self) -> None:
        """Time a reader that does not take what it is sent."""
        super().pause_writing()
        if self._stall_timer is None:
            self._time_stall(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Go on; the reader has taken all."""
        super().resume_writing()
        self._stop_stall_timer()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, in the shape of all errors; not if an answer has begun."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        most = self.limits.header_bytes
        told = ApiError(400, f"{msg.rstrip('.')} (or its headers exceed {most:,} bytes)")
        body = json.dumps(told.body()).encode()
        headers = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("connection", "close"),
        ]
        events = (h11.Response(status_code=400, headers=headers), h11.Data(data=body))
        for event in (*events, h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _watch(self) -> None:
        """Time what the connection waits for now, from when it began to."""
        if self.transport.is_closing():
            self._set_timer(None)
            return
        wait = ""
        if self.conn.their_state is h11.SEND_BODY:
            wait = "body"
        elif self.conn.their_state is h11.IDLE:
            begun = self.cycle is None or bool(self.conn.trailing_data[0])
            wait = "headers" if begun else "idle"
        now_waits = (wait, self.cycle)
        if now_waits == self._waits_for:
            return
        self._waits_for = now_waits
        self.waiting_since = self.loop.time()
        self._set_timer(getattr(self.limits, wait) if wait else None)

    def _set_timer(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._too_late)

    def _too_late(self) -> None:
        """End a connection whose time is up. What an unfinished request asks gets no answer."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def _time_stall(self, unsent: int) -> None:
        self._stall_timer = self.loop.call_later(self.limits.stalled, self._stalled, unsent)

    def _stop_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _stalled(self, unsent: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left >= unsent:
            self.transport.abort()
        else:  # it is slow, and it reads
            self._time_stall(left)

    def _make_room(self) -> None:
        """End the connection that has waited longest for a request; this one, if none has."""
        waiting: list[Any] = [
            each for each in self.connections if getattr(each, "is_waiting", False)
        ]
        oldest = min(waiting, key=lambda each: each.waiting_since, default=self)
        oldest.transport.abort()

    @property
    def is_waiting(self) -> bool:
        """Whether no request is being answered here, and none is whole."""
        return self._waits_for[0] in ("headers", "idle") and not self.transport.is_closing()
