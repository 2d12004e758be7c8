"""sse: events arrive as they are made, and the work ends when nobody listens any more."""

import asyncio
import json
import time

import pytest
from helpers.http_server import answer, everything, request, serving, until
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from edge_eft.errors import RequestError
from edge_eft.server.api_error import ApiError
from edge_eft.server.app import refuse
from edge_eft.server.guard import Guard
from edge_eft.server.sse import EventStream, as_bytes, run_unless_gone

SOON = 0.15


class Work:
    """A generator of a kind that a query names, and how it fared."""

    def __init__(self):
        self.begun = self.closed = self.made = 0

    async def events(self, kind):
        self.begun += 1
        try:
            if kind in ("late", "refused late"):
                await asyncio.sleep(3 * SOON)
            if kind.startswith("refused"):
                raise RequestError("alpha is -1")
            for number in range({"endless": 10**9, "ready": 10**4}.get(kind, 3)):
                self.made += 1
                yield json.dumps({"n": number} | ({"more": "x" * 1000} if kind == "ready" else {}))
                if kind != "ready":
                    await asyncio.sleep(0.005 if kind == "endless" else 0)
            if kind == "hangs":
                await asyncio.sleep(60)
            if kind == "overloaded":
                raise ApiError(429, "too many", code="full")
            if kind == "fails":
                raise RuntimeError("the prompt")
        finally:
            await asyncio.sleep(0)  # what ends a request may take time
            self.closed += 1

    async def all(self, kind):
        return [event async for event in self.events(kind)]


@pytest.fixture
def work():
    return Work()


@pytest.fixture
def live(work):
    async def stream(asked):
        kind = asked.query_params["kind"]
        return EventStream(
            work.events(kind),
            last_words=lambda error: json.dumps(error.body()),
            patience=SOON,
            keep_alive=SOON if kind == "late" else 30,
        )

    async def whole(asked):
        made = await run_unless_gone(asked.receive, work.all(asked.query_params["kind"]))
        return PlainTextResponse(str(len(made)))

    handlers = dict.fromkeys((RequestError, ApiError, Exception), refuse)
    routes = [Route("/stream", stream), Route("/whole", whole)]
    with serving(Guard(Starlette(routes=routes, exception_handlers=handlers))) as server:
        yield server


def stream(live, kind):
    """Status, and the lines of the events."""
    kind = kind.replace(" ", "%20")
    status, _, body = live.ask(f"/stream?kind={kind}")
    return status, [line for line in body.decode().split("\n") if line]


def test_events_come_one_by_one_and_the_work_is_closed(live, work):
    status, lines = stream(live, "plain")
    assert status == 200
    assert lines == ['data: {"n": 0}', 'data: {"n": 1}', 'data: {"n": 2}']
    assert work.closed == work.begun == 1


def test_the_headers_of_a_stream(live):
    headers = live.ask("/stream?kind=plain")[1]
    assert headers["content-type"] == "text/event-stream"
    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"
    assert "content-encoding" not in headers


def test_an_event_is_there_before_the_next_is_made(live, work):
    with live.connect(request("/stream?kind=hangs")) as client:
        seen = b""
        while b'{"n": 2}' not in seen:
            seen += client.recv(65536)
    assert until(lambda: work.closed == 1, 1)


def test_while_nothing_comes_comments_do(live):
    status, lines = stream(live, "late")
    assert status == 200
    assert lines[:2] == [": keep-alive"] * 2
    assert lines[-1] == 'data: {"n": 2}'


def test_what_is_refused_before_the_first_event_has_its_status(live, work):
    status, lines = stream(live, "refused")
    assert status == 400
    assert json.loads(lines[0])["error"]["message"] == "alpha is -1"
    assert work.closed == 1


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("refused late", ("alpha is -1", "invalid_request_error", None)),
        ("overloaded", ("too many", "invalid_request_error", "full")),
        ("fails", (None, "server_error", "internal_error")),
    ],
)
def test_an_error_in_mid_stream_is_its_last_event(live, work, caplog, kind, told):
    status, lines = stream(live, kind)
    assert status == 200
    error = json.loads(lines[-1].removeprefix("data: "))["error"]
    assert (error["type"], error["code"]) == told[1:]
    assert error["message"] == told[0] or told[0] is None
    assert "the prompt" not in str(lines) + caplog.text
    assert ("RuntimeError at " in caplog.text) == (kind == "fails")
    assert work.closed == 1


@pytest.mark.parametrize("kind", ["endless", "hangs", "late"])
@pytest.mark.parametrize("way", ["stream", "whole"])
def test_a_disconnect_ends_the_work_at_once(live, work, way, kind):
    client = live.connect(request(f"/{way}?kind={kind}"))
    assert until(lambda: work.begun == 1)
    time.sleep(SOON / 2)
    made = work.made
    began = time.monotonic()
    client.close()
    assert until(lambda: work.closed == 1, 1)
    assert time.monotonic() - began < 0.5
    assert work.made <= made + 8


def test_fifty_disconnects_leave_nothing_behind(live, work):
    for number in range(50):
        kind = ("endless", "late")[number % 2]
        live.connect(request(f"/stream?kind={kind}")).close()
    assert until(lambda: work.closed == work.begun)
    assert until(lambda: live.connections == 0)
    assert stream(live, "plain")[0] == 200


def test_what_is_ready_is_not_made_into_events_for_the_gone(live, work):
    """No await of such a stream waits, so that no cancellation came in before its end."""
    with live.connect(request("/stream?kind=ready"), receive_buffer=2048):
        assert until(lambda: work.made > 50)
    assert until(lambda: work.closed == 1, 1)
    assert work.made < 5000


def test_a_whole_answer_and_its_failures(live, work):
    assert live.ask("/whole?kind=plain")[::2] == (200, b"3")
    assert live.ask("/whole?kind=refused")[0] == 400
    status, _, body = live.ask("/whole?kind=fails")
    assert status == 500
    assert b"the prompt" not in body
    assert work.closed == 3


@pytest.mark.parametrize("way", ["stream", "whole"])
def test_the_end_of_the_server_is_told_and_closes_the_work(live, work, way):
    with live.connect(request(f"/{way}?kind=endless")) as client:
        assert until(lambda: work.made > 2)
        began = time.monotonic()
        live.server.should_exit = True
        seen = everything(client)
        assert time.monotonic() - began < 2
    status, _, body = answer(seen)
    assert status == (200 if way == "stream" else 503)
    assert b"shutting down" in body
    assert work.closed == 1


def test_a_stream_that_is_never_read_is_closed_too(work):
    """A client that is gone before the first event."""

    async def go():
        async def receive():
            return {"type": "http.disconnect"}

        async def send(message):
            raise AssertionError("nobody is there")

        events = work.events("late")
        await EventStream(events, last_words=str)({"path": "/"}, receive, send)
        return await anext(events, "closed")

    assert asyncio.run(go()) == "closed"


def test_a_sender_that_fails_closes_the_work(work):
    async def go():
        async def receive():
            await asyncio.sleep(60)

        async def send(message):
            raise OSError("no")

        with pytest.raises(OSError, match="no"):
            await EventStream(work.events("endless"), last_words=str)({"path": "/"}, receive, send)

    asyncio.run(go())
    assert work.closed == 1


def test_the_forms_of_an_event():
    assert as_bytes(b"raw\n") == b"raw\n"
    assert as_bytes('{"a": "ä"}') == 'data: {"a": "ä"}\n\n'.encode()
    assert as_bytes(("ping", "{}")) == b"event: ping\ndata: {}\n\n"
