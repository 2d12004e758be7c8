"""What must not bring the server down: deaths of its engine, and clients that are gone or stall."""

import json
import os
import random
import signal
import threading
import time

import httpx
import psutil
import pytest
from helpers.bad_inputs import GRAMMARS
from helpers.http_server import until
from helpers.server_clients import LONG, SHORT, active, ask_for

# How often, in the slow tests; the fast ones are small versions of the same.
N_KILLS = int(os.environ.get("EDGE_EFT_TEST_KILLS", "10"))
N_REQUESTS = int(os.environ.get("EDGE_EFT_TEST_REQUESTS", "600"))


class Client(threading.Thread):
    """Asks for one long reply, and notes when and how it ended."""

    def __init__(self, url, stream):
        super().__init__(daemon=True)
        self.url, self.streams = url, stream
        self.ended, self.error, self.status, self.n = None, False, None, 0
        self.begun = threading.Event()

    def run(self):
        try:
            with httpx.stream(
                "POST",
                f"{self.url}/v1/completions",
                json={**LONG, "stream": self.streams},
                timeout=60,
            ) as answer:
                self.status = answer.status_code
                for line in answer.iter_lines():
                    self.n += 1
                    self.begun.set()
                    self.error = self.error or '"error"' in line
        except httpx.HTTPError as error:
            self.status = type(error).__name__
        self.ended = time.monotonic()
        self.begun.set()


def kill_in_replies(server, times, rng):
    """Kill the engine at random moments of replies. Returns the seconds until errors were there."""
    waited = []
    with server.http as http:
        for _ in range(times):
            clients = [Client(server.url, stream) for stream in (True, False, True)]
            for client in clients:
                client.start()
            clients[0].begun.wait(20)
            time.sleep(rng.random() * 0.2)
            engine = server.engine()
            engine.kill()
            killed = time.monotonic()
            assert http.get("/health", timeout=1).status_code == 200
            for client in clients:
                client.join(10)
                assert client.ended is not None
                if client.status == 200 and not client.error:
                    assert client.ended < killed + 0.2  # it was whole before
                else:
                    waited.append(client.ended - killed)
                    assert client.status in (200, 500), client.status
            done = http.post("/v1/completions", json=SHORT)
            assert done.status_code == 200, done.text
    return waited


@pytest.mark.parametrize("times", [1, pytest.param(N_KILLS, marks=pytest.mark.slow)])
def test_a_death_of_the_engine_is_told_at_once_and_the_next_request_works(served, times):
    server = served("atlas", "--max-deaths", "1000000")
    waited = kill_in_replies(server, times, random.Random(times))
    assert max(waited) < 1, max(waited)
    family = server.family()
    assert all(process.status() != psutil.STATUS_ZOMBIE for process in family)
    http_process = next(p for p in family if "host" not in " ".join(p.cmdline()))
    assert http_process.num_fds() < 40
    print(f"{times} deaths, errors after at most {max(waited):.3f} s")


def test_after_three_deaths_in_a_minute_it_stays_down_and_says_why(served):
    server = served("atlas")
    with server.http as http:
        for _ in range(3):
            assert http.post("/v1/completions", json=SHORT).status_code == 200
            server.engine().kill()
            assert until(lambda: "SIGKILL" in http.get("/health").text)
            time.sleep(0.1)
        assert until(lambda: http.get("/health").status_code == 503)
        assert "SIGKILL" in http.get("/health").json()["error"]["message"]
        refused = http.post("/v1/completions", json=SHORT)
        assert refused.status_code == 503
        assert "start the server again" in refused.json()["error"]["message"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_both_processes_within_two_seconds(served, number):
    server = served("atlas")
    clients = [Client(server.url, stream) for stream in (True, False)]
    for client in clients:
        client.start()
    clients[0].begun.wait(20)
    family = server.family()
    begun = time.monotonic()
    server.process.send_signal(number)
    assert server.process.wait(10) == 0
    _, alive = psutil.wait_procs(family, 2)
    assert not alive
    assert time.monotonic() - begun < 2
    for client in clients:
        client.join(5)
        assert client.ended


def test_without_its_parent_no_engine_is_left(served):
    server = served("atlas")
    family = server.family()
    server.process.kill()
    _, alive = psutil.wait_procs(family, 5)
    assert not alive


def test_what_the_gone_had_asked_for_ends_within_a_second(live):
    long_prompt = {**LONG, "prompt": "word " * 300}
    with live.http as http:
        for n in range(10):
            clients = []
            for k in range(5):
                client = ask_for(live, {**(LONG if k % 2 else long_prompt), "stream": True})
                if k % 2:
                    assert client.recv(10)
                clients.append(client)
            for client in clients:
                client.close()
            assert until(lambda: active(http) == 0, 1), n


def test_a_stalled_reader_pauses_its_reply_and_holds_nobody_up(served):
    server = served("atlas", "--slots", "2")
    with server.http as http:
        begun = time.monotonic()
        http.post("/v1/completions", json=SHORT)
        idle = time.monotonic() - begun
        stalled = ask_for(server, {**LONG, "stream": True, "explain": 50}, receive_buffer=2048)
        time.sleep(0.5)
        times = []
        for _ in range(5):
            begun = time.monotonic()
            assert http.post("/v1/completions", json=SHORT).status_code == 200
            times.append(time.monotonic() - begun)
        assert sorted(times)[2] < max(3 * idle, 0.5)
        engine = server.engine()

        def rests():
            cpu = sum(engine.cpu_times()[:2])
            time.sleep(0.3)
            return sum(engine.cpu_times()[:2]) - cpu < 0.05

        assert until(rests, 10)
        assert active(http) == 1  # it pauses, and is not over
        stalled.close()
        assert until(lambda: active(http) == 0, 1)


@pytest.mark.slow
def test_memory_stays_where_it_is(served):
    """A fifth of the requests is cancelled."""
    server = served("atlas")
    rng = random.Random(1)
    sizes = []
    with server.http as http:
        for i in range(N_REQUESTS):
            if rng.random() < 0.2:
                client = ask_for(server, {**LONG, "stream": True})
                if rng.random() < 0.5:
                    client.recv(100)
                client.close()
            else:
                done = http.post("/v1/completions", json={**SHORT, "prompt": f"Story {i}:"})
                assert done.status_code == 200, done.text
            if i % 100 == 99:
                sizes.append([p.memory_info().rss / 1e6 for p in server.family()])
        assert '"deaths":0' in http.get("/health").text.replace(" ", "")
    tail = sizes[len(sizes) // 4 :]
    for i in range(len(tail[0])):
        slope = (tail[-1][i] - tail[0][i]) / (len(tail) - 1)
        print(f"RSS {tail[0][i]:.1f} → {tail[-1][i]:.1f} MB, {slope:.3f} MB per 100 requests")
        assert slope < 1


def test_models_are_unloaded_when_nobody_asks_and_loaded_again(served):
    server = served("atlas", "--keep-alive", "1s")
    with server.http as http:
        assert http.post("/v1/completions", json=SHORT).status_code == 200
        engine = server.engine()
        assert until(lambda: not engine.is_running(), 5)
        assert http.get("/health").json()["status"] == "idle"
        assert http.post("/v1/completions", json=SHORT).status_code == 200
        assert server.engine().pid != engine.pid


def test_at_once_is_after_every_request(served):
    server = served("atlas", "--keep-alive", "0")
    with server.http as http:
        for _ in range(3):
            assert http.post("/v1/completions", json=SHORT).status_code == 200


def test_one_request_too_many_is_told_to_come_again(served):
    server = served("atlas", "--slots", "1", "--queue", "1")
    clients = []
    for _ in range(2):
        clients.append(ask_for(server, {**LONG, "stream": True, "explain": 50}))
    with server.http as http:
        assert until(lambda: active(http) == 2)
        refused = http.post("/v1/completions", json=SHORT)
        assert refused.status_code == 429
        assert refused.headers["retry-after"]
        assert refused.json()["error"]["code"] == "queue_full"
        for client in clients:
            client.close()
        assert until(lambda: active(http) == 0, 2)
        assert http.post("/v1/completions", json=SHORT).status_code == 200


BAD = {
    "not UTF-8": (b'{"prompt": "\xff"}', 400),
    "not JSON": (b"{", 400),
    "a list": (b"[]", 400),
    "deep": (b'{"prompt": ' + b"[" * 5000 + b"]" * 5000 + b"}", 400),
    "10 MB of stop strings": (
        json.dumps({"prompt": "a", "stop": ["x" * 10**7]}).encode(),
        413,
    ),
    "too long a prompt": (json.dumps({"prompt": "word " * 50_000}).encode(), 400),
    "a schema that cannot be held to": (
        json.dumps(
            {
                "prompt": "a",
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"schema": {"$ref": "http://elsewhere/x"}},
                },
            }
        ).encode(),
        400,
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_message_and_the_server_goes_on(live, what):
    body, status = BAD[what]
    with live.http as http:
        refused = http.post(
            "/v1/completions", content=body, headers={"Content-Type": "application/json"}
        )
        assert refused.status_code == status, refused.text
        assert refused.json()["error"]["message"]
        assert http.post("/v1/completions", json=SHORT).status_code == 200


def test_a_grammar_that_keeps_llama_cpp_busy_for_ever_ends_the_engine_and_not_the_server(
    served, tmp_path
):
    """The checks before it are switched off, and the clock of the deadline goes faster."""
    (tmp_path / "sitecustomize.py").write_text(
        "import time, types\n"
        "from edge_eft.engine import deadline, gbnf, gbnf_ambiguity\n"
        "gbnf.MAX_WAYS, gbnf_ambiguity.MAX_WORK = 10**15, 0\n"
        "deadline.time = types.SimpleNamespace(sleep=lambda seconds: time.sleep(seconds / 20))\n"
    )
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    server = served("atlas", PYTHONPATH=path)
    with server.http as http:
        client = Client(server.url, stream=True)
        client.start()
        client.begun.wait(20)
        body = {"prompt": "hi", "n_predict": 3, "grammar": GRAMMARS["gbnf doubling"]()}
        begun = time.monotonic()
        failed = http.post("/completion", json=body)
        assert time.monotonic() - begun < 5
        assert failed.status_code == 500
        assert "grammar kept llama.cpp busy" in failed.json()["error"]["message"]
        client.join(10)
        assert client.ended is not None
        assert "grammar kept llama.cpp busy" in http.get("/health").text
        assert http.post("/v1/completions", json=SHORT).status_code == 200
