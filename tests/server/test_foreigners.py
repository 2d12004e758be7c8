"""Whoever is not to be served is served nowhere, and the key is said nowhere: every route is tried.

The rules by themselves are tested in `test_guard.py`.
"""

import itertools
import json
import logging
import os
import re
import threading

import pytest
from helpers.http_server import JSON, serving

from edge_eft.files.recipe_names import load_recipe
from edge_eft.files.recipe_toml import to_toml
from edge_eft.server import app as app_module
from edge_eft.server.app import OPEN_PATHS, create_app
from edge_eft.server.guard import is_open
from edge_eft.server.options import ServeOptions
from edge_eft.server.served import ServedRecipe

KEY = "key-Zq7Zq7Zq7"
METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
FOREIGN = {
    "Host": {"Host": "evil.example"},
    "Host with our name in it": {"Host": "localhost.evil.example:8080"},
    "Origin": {"Origin": "https://evil.example"},
    "null Origin": {"Origin": "null"},
    "both": {"Host": "evil.example", "Origin": "http://evil.example"},
}


@pytest.fixture(scope="module")
def routes():
    """The paths of all routes, as the application is made with them."""
    made, patch = [], pytest.MonkeyPatch()

    class Starlette(app_module.Starlette):
        def __init__(self, *, routes, **options):
            made.extend(re.sub(r"{\w+:path}", "atlas", route.path) for route in routes)
            super().__init__(routes=routes, **options)

    patch.setattr(app_module, "Starlette", Starlette)
    recipe = ServedRecipe("atlas", to_toml(load_recipe("atlas"), os.devnull), "atlas.toml")
    loaded = threading.Event()
    app = create_app(ServeOptions((recipe,), api_keys=(KEY,)), lambda error: loaded.set())
    patch.undo()
    with serving(app) as live:
        assert loaded.wait(60)
        yield live, sorted({*made, "/", "/nothing", "/v1/nothing"})


@pytest.fixture
def said(caplog):
    """All that loggers say, at the lowest level."""
    for name in ("", "edge_eft", "uvicorn", "uvicorn.error", "asyncio"):
        caplog.set_level(1, name)
    theirs = logging.getLogger("uvicorn")  # which does not hand on what it is told
    theirs.addHandler(caplog.handler)
    yield caplog
    theirs.removeHandler(caplog.handler)


def test_there_are_the_routes_of_all_dialects(routes):
    paths = routes[1]
    assert len(paths) > 30
    assert {"/v1/messages", "/api/chat", "/props", "/v1/responses", "/metrics"} <= set(paths)


@pytest.mark.parametrize("foreign", FOREIGN)
def test_a_foreigner_is_served_nowhere_by_no_method_even_with_the_key(routes, foreign):
    live, paths = routes
    headers = {"X_Api_Key": KEY, **JSON, **FOREIGN[foreign]}
    for path, method in itertools.product(paths, METHODS):
        body = {} if method not in ("GET", "HEAD", "OPTIONS") else None
        status, about, text = live.ask(path, method, body, **headers)
        assert status == 403, (path, method)
        assert not [name for name in about if name.startswith("access-control")]
        if method != "HEAD":
            error = json.loads(text)["error"]  # in the shape of the path's dialect
            told = error if isinstance(error, str) else error["message"]
            of_host, of_origin = (
                "is not one of this server's" in told,
                "may not use this server" in told,
            )
            assert of_origin or (of_host and "Host" in FOREIGN[foreign]), told


def test_without_the_key_only_the_open_paths_answer(routes):
    live, paths = routes
    for path, method in itertools.product(paths, METHODS):
        body = {} if method not in ("GET", "HEAD", "OPTIONS") else None
        status, _, text = live.ask(path, method, body, X_Api_Key="other", **JSON)
        opened = is_open(path, OPEN_PATHS) and method in ("GET", "HEAD")
        assert (status == 401) is not opened, (path, method)
        assert KEY.encode() not in text


def test_the_key_is_in_no_log_and_no_answer(routes, said, capfd):
    """Nor where it is misplaced: in the path, the query, a value of a body, a wrong header."""
    live, paths = routes
    headers = {"Authorization": f"Bearer {KEY}", "X_Api_Key": KEY, "Cookie": KEY, **JSON}
    bodies = (
        {},
        {"model": KEY, "prompt": KEY, "messages": KEY, "input": KEY, "stop": KEY},
        {"prompt": "a", "max_tokens": 1, "user": KEY, "metadata": {KEY: KEY}},
        b"{" + KEY.encode(),
        {"messages": [{"role": KEY, "content": KEY}], "max_tokens": KEY},
    )
    for path in paths:
        for query in ("", f"?api_key={KEY}", f"/{KEY}?{KEY}"):
            live.ask(path + query, "GET", **headers)
            live.ask(path + query, "GET", Host="evil.example", **headers)
            for body in bodies[:1] if query else bodies:
                live.ask(path + query, "POST", body, **headers)
                live.ask(path + query, "POST", body, **{**headers, "Content_Type": KEY})
    with live.connect(f"GET /{KEY} HTTP/9.9\r\n{KEY}\r\n\r\n".encode()) as client:
        client.recv(1000)
    metrics = live.ask("/metrics", **headers)[2].decode()
    out = capfd.readouterr()
    assert said.records
    assert not [line for record in said.records if KEY in (line := record.getMessage())]
    assert KEY not in out.out + out.err + metrics


def test_nor_in_what_a_server_that_tells_all_says(served):
    server = served("atlas", "--verbose", EDGE_EFT_API_KEY=KEY)
    with server.http as http:
        for headers in ({}, {"X-Api-Key": KEY}, {"Authorization": f"Bearer {KEY}"}):
            for path in ("/v1/models", f"/v1/models?key={KEY}", f"/{KEY}"):
                http.get(path, headers=headers)
                http.post(path, headers=headers, json={"model": KEY, "prompt": KEY})
            body = {"prompt": "a", "max_tokens": 1, "store": KEY}
            http.post("/v1/completions", headers=headers, json=body)
    server.stop()
    said = server.process.stdout.read()
    assert "store" in said
    assert KEY not in said
