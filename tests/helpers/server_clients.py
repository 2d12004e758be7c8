"""Clients of a live server that ask for a completion, over raw connections."""

from .http_server import JSON, connect, request

LONG = {"model": "atlas", "prompt": "Once upon a time", "max_tokens": 400, "ignore_eos": True}
SHORT = {"model": "atlas", "prompt": "Once upon a time", "max_tokens": 4, "temperature": 0}


def ask_for(server, body, receive_buffer=None):
    """A socket on which a completion is asked for."""
    asked = request("/v1/completions", "POST", body, close=False, **JSON)
    return connect(int(server.url.rpartition(":")[2]), asked, receive_buffer)


def active(http):
    """How many requests are in work."""
    lines = http.get("/metrics").text.splitlines()
    counts = dict(line.rsplit(" ", 1) for line in lines if line.startswith("edge_eft_requests_"))
    return sum(int(counts[f"edge_eft_requests_{kind}"]) for kind in ("active", "queued"))
