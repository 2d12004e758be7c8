"""Many clients at once: each gets what it gets alone, and those that stall cost the others nothing.

What single clients can do is in `test_robustness.py`.
"""

import contextlib
import json
import os
import random
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import psutil
import pytest
from helpers.http_server import connect, everything, until
from helpers.server_clients import LONG, SHORT, active, ask_for

# The whole of it is 50 stalled readers, 20 clients with slow headers, and 50 that go away.
N_STALLED = int(os.environ.get("EDGE_EFT_TEST_STALLED", "50"))
N_SLOW, N_GONE = 20, 50

COUNTRIES = ("France", "Peru", "Japan", "Chad", "Norway", "Kenya", "Cuba", "Nepal")
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


# -- together and alone ----------------------------------------------------------------------


def mixed(n):
    """(path, body) of greedy requests of all kinds."""
    rng = random.Random(n)
    for i in range(n):
        body = {
            "temperature": 0,
            "max_tokens": rng.choice([3, 12, 40, 90]),
            "alpha": rng.choice([0.0, 0.5, 1.0, 1.5]),
            "draft": rng.choice([0, 4, "auto"]),
            "stream": rng.random() < 0.5,
        }
        if i % 4 == 3:
            schema = {"name": "person", "schema": PERSON}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        question = f"What is the capital of {COUNTRIES[i % 8]}?"
        lead = "Some questions, and an answer to each of them. " * rng.choice([0, 0, 1, 6])
        if i % 2:
            messages = [{"role": "user", "content": lead + question}]
            yield "/v1/chat/completions", {**body, "messages": messages}
        else:
            yield "/v1/completions", {**body, "prompt": f"{lead}Q: {question}\nA:"}


def answered(server, asked):
    """Text and finish reason of an answer, streamed or not."""
    path, body = asked
    with server.http as http:
        answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    if not body["stream"]:
        events = [answer.json()]
    else:
        lines = [line for line in answer.text.split("\n\n") if line.startswith("data: {")]
        events = [json.loads(line.removeprefix("data: ")) for line in lines]
    choices = [event["choices"][0] for event in events]
    parts = (
        one.get("message") or one.get("delta") or {"content": one.get("text")} for one in choices
    )
    text = "".join(part.get("content") or "" for part in parts)
    return text, choices[-1]["finish_reason"]


def test_thirty_two_at_once_get_what_each_gets_alone(live):
    requests = list(mixed(32))
    expected = [answered(live, asked) for asked in requests]
    with ThreadPoolExecutor(32) as pool:
        together = list(pool.map(lambda asked: answered(live, asked), requests))
    wrong = [i for i in range(32) if together[i] != expected[i]]
    assert not wrong, [(requests[i], expected[i], together[i]) for i in wrong[:3]]
    assert len(set(expected)) > 16
    assert sum(len(text) for text, _ in expected) > 1000


# -- those that stall ------------------------------------------------------------------------


class SlowHeaders(threading.Thread):
    """Clients that send a byte of their headers now and then, and come again when thrown out."""

    def __init__(self, server, n):
        super().__init__(daemon=True)
        self._port = int(server.url.rpartition(":")[2])
        self._clients = [self._new() for _ in range(n)]
        self._done = threading.Event()

    def _new(self):
        return connect(self._port, b"POST /v1/completions HTTP/1.1\r\nX-A: ")

    def run(self):
        while not self._done.wait(0.2):
            for i, client in enumerate(self._clients):
                try:
                    client.sendall(b"a")
                except OSError:
                    self._clients[i] = self._new()

    def stop(self):
        self._done.set()
        self.join()
        for client in self._clients:
            client.close()


def first_token(http):
    """Seconds until the first token of a short stream."""
    begun = time.monotonic()
    with http.stream("POST", "/v1/completions", json={**SHORT, "stream": True}) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                return time.monotonic() - begun
    raise AssertionError("nothing came")


def rests(process):
    """Whether a process has nothing to do."""
    before = sum(process.cpu_times()[:2])
    time.sleep(0.3)
    return sum(process.cpu_times()[:2]) - before < 0.05


def stall(server, n, **more):
    """Connections that ask for long streams of which they read nothing, once all are paused."""
    asked = {**LONG, "stream": True, **more}
    clients = [ask_for(server, asked, receive_buffer=2048) for _ in range(n)]
    assert until(lambda: rests(server.engine()), 50)
    return clients


def leave(server, http, n):
    """Clients that go away, half of them before their prompt is read. Seconds until all is over."""
    clients = []
    for i in range(n):
        prompt = {} if i % 2 else {"prompt": f"{i} " + "word " * 300}
        client = ask_for(server, {**LONG, **prompt, "stream": True})
        if i % 2 and i < 4:  # the others of them wait for a slot
            client.recv(10)
        clients.append(client)
    begun = time.monotonic()
    for client in clients:
        client.close()
    return begun


def sizes(server):
    """RSS of the HTTP process and of the engine, in MB."""
    return [process.memory_info().rss / 1e6 for process in server.family()]


@pytest.mark.slow
@pytest.mark.parametrize("more", [{"explain": 50}, {"logprobs": 5}], ids=str)
def test_whoever_stalls_or_goes_costs_a_healthy_client_nothing(served, more):
    """More readers stall than there are slots. All the memory that they took comes back."""
    server = served("atlas")
    with server.http as http:
        # A first time, after which memory is what it is.
        for client in stall(server, N_STALLED, **more):
            client.close()
        assert until(lambda: active(http) == 0, 1)
        first_token(http)
        idle = median(first_token(http) for _ in range(15))
        before = sizes(server)
        slow = SlowHeaders(server, N_SLOW)
        slow.start()
        stalled = stall(server, N_STALLED, **more)
        assert active(http) == N_STALLED
        during = [first_token(http) for _ in range(15)]
        ended = []
        for _ in range(max(1, N_STALLED // 10)):
            begun = leave(server, http, N_GONE // 5)
            assert until(lambda: active(http) == N_STALLED, 2)
            ended.append(time.monotonic() - begun)
            during.append(first_token(http))
        begun = time.monotonic()
        for client in stalled:
            client.close()
        assert until(lambda: active(http) == 0, 2)
        ended.append(time.monotonic() - begun)
        slow.stop()
        idle = max(idle, median(first_token(http) for _ in range(15)))  # others use this machine
        time.sleep(0.3)
        grown = [after - b for after, b in zip(sizes(server), before, strict=True)]
    print(
        f"{N_STALLED} stalled: first token {1000 * idle:.1f} ms idle, "
        f"{1000 * median(during):.1f} ms; the gone end after {max(ended):.3f} s; "
        f"memory {grown[0]:+.1f} and {grown[1]:+.1f} MB"
    )
    assert max(ended) < 1
    assert median(during) <= 1.5 * idle + 0.002
    assert max(grown) < 10


# -- the end ---------------------------------------------------------------------------------


def traces():
    """Files of ours that a process may leave where temporary files are."""
    return {path for path in Path(tempfile.gettempdir()).iterdir() if "edge" in path.name}


@pytest.mark.slow
@pytest.mark.parametrize("n", [4, N_STALLED])
def test_sigterm_ends_all_within_two_seconds_whoever_stalls(served, n):
    times = []
    while len(times) < 3 and min(times, default=2) >= 2:  # others may use this machine
        times.append(seconds_to_end(served, n))
    print(f"{n} stalled: ended after {min(times):.3f} s")
    assert min(times) < 2


def seconds_to_end(served, n):
    """Of a server with `n` stalled readers and four others; nothing is left of it."""
    home = Path(os.environ["EDGE_EFT_HOME"])
    before = traces(), {*home.rglob("*")}
    server = served("atlas")
    stalled = stall(server, n, explain=50)
    readers = [ask_for(server, {**LONG, "stream": i < 2}) for i in range(4)]
    for client in readers[:2]:
        assert client.recv(10)
    family = server.family()
    begun = time.monotonic()
    server.process.terminate()
    assert server.process.wait(10) == 0
    _, alive = psutil.wait_procs(family, 10)
    seconds = time.monotonic() - begun
    assert not alive
    assert (traces(), {*home.rglob("*")}) == before
    for client in readers:
        assert everything(client)  # an error or an event, not silence
    for client in [*readers, *stalled]:
        with contextlib.suppress(OSError):
            client.close()
    return seconds
