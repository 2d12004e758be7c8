"""protocol: who is slow, idle or does not read is ended in time, and harms nobody meanwhile."""

import asyncio
import json
import time
from dataclasses import replace

import pytest
from helpers.http_server import JSON, answer, everything, request, serving, until

from edge_eft.server.guard import Guard
from edge_eft.server.protocol import Limits

SOON = 0.4  # seconds: the limit that a test is about; the others are out of its way
FAR = Limits(headers=30, body=30, idle=30, stalled=30, connections=100)


class Application:
    """Answers at once; /stream sends without end; /late after a while; counts who listens."""

    def __init__(self):
        self.streaming = self.sent = 0

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                assert (await receive())["type"] == f"lifespan.{kind}"
                await send({"type": f"lifespan.{kind}.complete"})
            return
        await receive()
        if scope["path"] == "/late":
            await asyncio.sleep(3 * SOON)
        large = b"ok"
        if scope["path"].startswith("/large/"):
            large = b"x" * int(scope["path"].removeprefix("/large/"))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] != "/stream":
            await send({"type": "http.response.body", "body": large})
            return
        self.streaming += 1
        gone = asyncio.ensure_future(receive())
        while not gone.done():
            message = {"type": "http.response.body", "body": b"x" * 1000, "more_body": True}
            await send(message)
            self.sent += 1
            await asyncio.sleep(0)
        self.streaming -= 1


@pytest.fixture
def app():
    return Application()


def with_limits(app, **limits):
    return serving(Guard(app), replace(FAR, **limits))


def ends_after(client, seconds):
    """Whether the server closes a connection about then, however it does."""
    began = time.monotonic()
    client.settimeout(seconds * 5)
    everything(client)
    return seconds * 0.5 < time.monotonic() - began < seconds * 4


@pytest.mark.parametrize("sent", [b"", b"GET", b"GET / HTTP/1.1\r\nHost: localhost\r\n"])
def test_headers_that_do_not_come_end_the_connection(app, sent):
    with with_limits(app, headers=SOON) as live, live.connect(sent) as client:
        assert ends_after(client, SOON)


def test_a_byte_now_and_then_does_not_prolong_the_time_for_headers(app):
    with with_limits(app, headers=SOON) as live, live.connect(b"GET / HTTP/1.1\r\n") as client:
        assert until(lambda: not trickled(client, b"a"), 10 * SOON)


def trickled(client, data):
    """Whether the server still holds the connection, after one more byte."""
    time.sleep(SOON / 8)
    try:
        client.sendall(data)
        client.settimeout(0.001)
        return client.recv(1) != b""
    except TimeoutError:
        return True
    except OSError:
        return False


def test_headers_of_a_second_request_have_their_time_too(app):
    with with_limits(app, headers=SOON) as live:
        with live.connect(request("/", close=False) + b"GET / HT") as client:
            assert ends_after(client, SOON)
        with live.connect(request("/", close=False)) as client:
            client.recv(65536)
            client.sendall(b"GET / HT")
            assert ends_after(client, SOON)


def test_a_body_that_does_not_come_ends_the_connection(app):
    head = request("/", "POST", Content_Length="100", **JSON)
    with with_limits(app, body=SOON) as live, live.connect(head + b"{") as client:
        assert until(lambda: not trickled(client, b" "), 5 * SOON)
    assert app.streaming == 0


def test_a_body_that_was_refused_and_still_does_not_end_has_its_time(app):
    head = request("/", "POST", close=False, Content_Length="100", Content_Type="text/plain")
    with with_limits(app, body=SOON) as live, live.connect(head) as client:
        assert ends_after(client, SOON)


def test_an_idle_connection_is_closed_but_not_one_that_waits_for_its_answer(app):
    with with_limits(app, idle=SOON, headers=SOON, body=SOON, stalled=SOON) as live:
        with live.connect(request("/", close=False)) as client:
            assert ends_after(client, SOON)
        assert live.ask("/late")[0] == 200


def test_an_idle_connection_after_a_refused_body_is_closed(app):
    refused = request("/", "POST", b"x" * 100, close=False, Content_Type="text/plain")
    with with_limits(app, idle=SOON) as live, live.connect(refused[:-50]) as client:
        assert client.recv(65536).startswith(b"HTTP/1.1 415")
        client.sendall(refused[-50:])
        assert ends_after(client, SOON)


def test_a_reader_that_stalls_in_a_stream_is_ended_and_its_sender_hears_of_it(app):
    with with_limits(app, stalled=SOON) as live:
        with live.connect(request("/stream"), receive_buffer=4096):
            assert until(lambda: app.streaming == 1)
            assert until(lambda: app.streaming == 0, 4 * SOON)
        assert app.sent < 1000  # what the system's buffers hold; then the sender waits
        assert until(lambda: live.connections == 0)


def test_a_reader_that_stalls_in_a_whole_answer_is_ended(app):
    large = request("/large/4000000")
    with (
        with_limits(app, stalled=SOON) as live,
        live.connect(large, receive_buffer=4096),
    ):
        assert until(lambda: live.connections == 1)
        assert until(lambda: live.connections == 0, 4 * SOON)


def test_a_reader_that_stalls_in_what_the_system_did_not_take_is_ended(app):
    """Also where what is left is less than asyncio's mark, below which it pauses no writer."""
    with with_limits(app, stalled=SOON) as live:
        sizes = range(20_000, 600_000, 20_000)
        clients = [live.connect(request(f"/large/{size}"), receive_buffer=4096) for size in sizes]
        assert until(lambda: live.connections == 0, 6 * SOON)
        for client in clients:
            client.close()


def test_a_slow_reader_gets_its_whole_answer(app):
    with (
        with_limits(app, stalled=SOON) as live,
        live.connect(request("/large/4000000"), receive_buffer=65536) as client,
    ):
        data = b""
        while chunk := client.recv(100_000):
            data += chunk
            time.sleep(0.03)
        assert len(answer(data)[2]) == 4_000_000


def test_twenty_slow_clients_and_many_idle_ones_harm_nobody(app):
    slow = [b"GET / HTTP/1.1\r\n"] * 20 + [b""] * 150
    with with_limits(app) as live:  # 100 connections
        clients = [live.connect(sent) for sent in slow]
        began = time.monotonic()
        assert [live.ask()[0] for _ in range(20)] == [200] * 20
        assert time.monotonic() - began < 1
        assert live.connections <= 101
        for client in clients:
            client.close()


def test_where_all_connections_are_at_work_a_further_one_is_ended(app):
    with with_limits(app, connections=3) as live:
        busy = [live.connect(request("/stream")) for _ in range(3)]
        assert until(lambda: app.streaming == 3)
        with live.connect(request("/")) as client:
            assert everything(client) == b""
        assert app.streaming == 3
        for client in busy:
            client.close()
        assert until(lambda: app.streaming == 0)
        assert live.ask()[0] == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"x" * 400_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: x\r\n" * 80_000 + b"\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ],
    ids=["tls", "long", "many", "negative", "two lengths"],
)
def test_what_is_not_http_is_a_400_in_the_shape_of_all_errors(app, sent):
    with with_limits(app) as live, live.connect() as client:
        try:
            client.sendall(sent)
        except ConnectionError:
            return  # it was ended before all of it was sent
        seen = everything(client)
        if seen:
            status, _, body = answer(seen)
            assert status == 400
            assert "Invalid HTTP request" in json.loads(body)["error"]["message"]


def test_a_broken_body_during_an_answer_ends_the_connection_alone(app):
    head = request("/", "POST", close=False, Transfer_Encoding="chunked", Content_Type="text/x")
    with with_limits(app) as live:
        with live.connect(head) as client:
            assert client.recv(65536).startswith(b"HTTP/1.1 415")
            client.sendall(b"not a chunk\r\n")
            everything(client)
        assert live.ask()[0] == 200


def test_nobody_is_told_what_serves(app):
    with with_limits(app) as live:
        assert "server" not in live.ask()[1]


def test_an_upgrade_is_not_followed(app):
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec_WebSocket_Version": "13"}
    data = request("/", close=False, **headers)
    with with_limits(app, idle=SOON) as live, live.connect(data) as client:
        assert everything(client).startswith(b"HTTP/1.1 200")
