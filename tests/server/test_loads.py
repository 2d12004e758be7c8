"""Many clients at once: each gets what it gets alone, and the end comes soon for all.

What single clients can do is in `test_robustness.py`.
"""

import contextlib
import json
import os
import random
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from helpers.http_server import everything, until
from helpers.server_clients import LONG, ask_for

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


# -- the end ---------------------------------------------------------------------------------


def traces():
    """Files of ours that a process may leave where temporary files are."""
    return {path for path in Path(tempfile.gettempdir()).iterdir() if "edge" in path.name}


@pytest.mark.parametrize("n", [4])
def test_sigterm_ends_all_within_two_seconds_whoever_stalls(served, n):
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
    _, alive = psutil.wait_procs(family, 2)
    seconds = time.monotonic() - begun
    print(f"{n} stalled: ended after {seconds:.3f} s")
    assert not alive
    assert seconds < 2
    assert (traces(), {*home.rglob("*")}) == before
    for client in readers:
        assert everything(client)  # an error or an event, not silence
    for client in [*readers, *stalled]:
        with contextlib.suppress(OSError):
            client.close()
