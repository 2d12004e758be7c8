"""app, metrics: what there is at which path, and what is counted."""

import asyncio
import json
import logging
import os
import re
import threading

import pytest
from helpers.http_server import JSON, request, serving, until

from edge_eft.files.recipe_names import load_recipe
from edge_eft.files.recipe_toml import to_toml
from edge_eft.server.app import create_app
from edge_eft.server.engine import Engine
from edge_eft.server.metrics import Metrics
from edge_eft.server.options import ServeOptions
from edge_eft.server.served import ServedRecipe

ATLAS = ServedRecipe("atlas", to_toml(load_recipe("atlas"), os.devnull), "atlas.toml")
OPTIONS = ServeOptions((ATLAS,), api_keys=("key-1",))


@pytest.fixture(scope="module")
def live():
    loaded = threading.Event()
    with serving(create_app(OPTIONS, lambda error: loaded.set())) as server:
        assert loaded.wait(60)
        yield server


def test_health_is_open_and_the_rest_is_not(live):
    assert live.ask("/health")[0] == 200
    assert live.ask("/metrics")[0] == 401
    assert live.ask("/metrics", X_Api_Key="key-1")[0] == 200
    assert live.ask("/health", Host="evil.example")[0] == 403


def test_health_metrics_and_models_tell_of_the_memory(live):
    key = {"X_Api_Key": "key-1"}
    health = json.loads(live.ask("/health")[2])
    assert health["memory"] > 20 << 20
    metrics = live.ask("/metrics", **key)[2].decode()
    (told,) = re.findall(r"^edge_eft_engine_resident_memory_bytes (\d+)", metrics, re.MULTILINE)
    assert int(told) == pytest.approx(health["memory"], rel=0.5)
    models = json.loads(live.ask("/v1/models", **key)[2])["data"]
    estimates = {model["meta"]["memory"] for model in models}
    assert len(estimates) == 1  # of all models of the recipe, which are loaded together
    assert 4 << 20 < estimates.pop() < 1 << 30


def test_health_says_how_far_the_files_are_while_they_are_read(monkeypatch):
    """And at once that they are being read, before anything is known of them."""
    progress = {"bytes": 3, "total": 9}
    for told, seen in ((None, {}), (progress, {"progress": progress})):
        monkeypatch.setattr(Engine, "progress", told)
        monkeypatch.setattr(Engine, "ready", never)
        with serving(create_app(OPTIONS)) as loading:
            status, about, body = loading.ask("/health")
        health = json.loads(body)
        assert (status, about["retry-after"], health["status"]) == (503, "1", "loading")
        assert health.pop("error")["message"] == "the model is being loaded"
        assert health == {"status": "loading", **seen}


async def never(*_):
    await asyncio.sleep(60)


def test_a_path_or_a_method_that_there_is_not(live):
    for path, method, status, code in (
        ("/nothing", "GET", 404, "not_found"),
        ("/nothing", "POST", 404, "not_found"),
        ("/health", "POST", 405, "method_not_allowed"),
    ):
        body = {} if method == "POST" else None
        seen, _, said = live.ask(path, method, body, X_Api_Key="key-1", **JSON)
        assert seen == status
        assert json.loads(said)["error"]["code"] == code


def test_whatever_is_refused_has_the_shape_of_its_dialect(live):
    key, foreign = {"X_Api_Key": "key-1"}, {"Host": "evil.example"}
    large = {"Content_Length": str(5 << 20)}
    for method, body, status, headers in (
        ("POST", {}, 401, JSON),
        ("POST", {}, 403, {**key, **foreign, **JSON}),
        ("POST", {}, 403, {**key, "Origin": "https://evil.example", **JSON}),
        ("POST", {}, 415, key),
        ("POST", {}, 413, {**key, **large, **JSON}),
        ("POST", [], 400, {**key, **JSON}),
        ("DELETE", {}, 405, {**key, **JSON}),
        ("POST", {"model": "nobody"}, 404, {**key, **JSON}),
    ):
        for path in ("/v1/chat/completions", "/v1/messages", "/api/chat"):
            seen, _, said = live.ask(path, method, body, **headers)
            told = json.loads(said)
            assert seen == status, (path, headers)
            if path == "/api/chat":
                assert list(told) == ["error"]
                assert isinstance(told["error"], str)
            elif path == "/v1/messages":
                assert told["type"] == "error"
                assert set(told["error"]) == {"type", "message"}
            else:
                assert set(told["error"]) == {"message", "type", "param", "code"}


def test_requests_are_counted_by_routes_that_strangers_do_not_name(live):
    live.ask("/made-up", X_Api_Key="key-1")
    live.ask("/health")
    live.ask("/v1/models/atlas")  # without a key
    text = live.ask("/metrics", X_Api_Key="key-1")[2].decode()
    assert 'edge_eft_requests_total{route="/health",status="200"}' in text
    assert 'edge_eft_requests_total{route="other",status="404"}' in text
    assert 'route="/v1/models/{id:path}",status="401"}' in text
    assert "made-up" not in text
    assert "key-1" not in text


def test_a_request_is_told_by_its_route_when_it_is_over(live, caplog):
    caplog.set_level(logging.INFO, "edge_eft")
    live.ask("/v1/models/secret?a=secret", X_Api_Key="key-1")
    line = r"GET /v1/models/\{id:path\}: 404 in \d+\.\d\d s"
    assert until(lambda: re.search(line, caplog.text))
    assert "secret" not in caplog.text


def test_a_client_that_goes_is_not_a_failure_of_ours(live, caplog):
    """It was counted as a 500, and logged."""
    body = {"prompt": "The", "ignore_eos": True, "max_tokens": 500}
    key = {"X_Api_Key": "key-1"}
    sent = request("/v1/completions", "POST", body, close=False, **key, **JSON)

    def counted():
        return live.ask("/metrics", **key)[2].decode()

    with live.connect(sent):
        until(lambda: "edge_eft_requests_active 1" in counted())
        assert until(lambda: re.search(r"predicted_tokens_total [1-9]", counted()))
    until(lambda: 'requests_total{route="/v1/completions",status="499"} 1' in counted())
    assert "edge_eft_requests_active 0" in counted()
    assert 'status="500"' not in counted()
    assert "failed" not in caplog.text


def test_a_key_is_not_shown_with_the_options():
    assert "key-1" not in repr(OPTIONS)


def test_counters_add_and_gauges_are_asked_for():
    metrics = Metrics(lambda: {"requests_active": 2})
    metrics.add("predicted_seconds_total", 0.25)
    metrics.add("predicted_seconds_total", 0.5)
    lines = metrics.render().splitlines()
    assert "edge_eft_predicted_seconds_total 0.75" in lines
    assert "edge_eft_requests_active 2" in lines
    assert "# TYPE edge_eft_requests_active gauge" in lines
    assert "edge_eft_models_loaded 0" in lines
