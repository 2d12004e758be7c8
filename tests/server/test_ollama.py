"""Ollama's interface: what a body comes to mean, answers in its words, and its own client."""

import asyncio
import json
from datetime import UTC, datetime

import ollama as package
import pytest
from helpers.scripted_replies import (
    ATLAS,
    CALL,
    Engine,
    asked,
    events,
    generating,
    prompt,
    steps,
    whole,
)

from edge_eft.server import ollama
from edge_eft.server.api_error import ApiError
from edge_eft.server.ollama import OllamaWriter

HI = [{"role": "user", "content": "Hi"}]
QUESTION = [{"role": "user", "content": "What is the capital of Peru?"}]
GREEDY = {"temperature": 0, "num_predict": 60}


def request(template="", **body):
    return asked(ollama, {"messages": HI, **body}, template).requests[0]


def generated(**body):
    return asyncio.run(ollama.ask_generate(body, Engine(), ATLAS)).requests[0]


# -- requests ------------------------------------------------------------------------------


def test_options_are_read_by_ollamas_names():
    options = {"num_predict": 7, "repeat_penalty": 1.5, "stop": "a", "seed": 3, "top_k": 5}
    given = request(options=options)
    assert (given.max_tokens, given.repetition_penalty, given.stop) == (7, 1.5, ("a",))
    assert (given.seed, given.top_k) == (3, 5)
    assert request(options={"num_predict": -2}).max_tokens == request().max_tokens == 1000


def test_options_that_change_nothing_are_named():
    """A num_ctx above the server's was once refused; clients send 2048 and more, always."""
    body = {"messages": HI, "options": {"mirostat": 1, "num_ctx": 32768}, "keep_alive": 5}
    assert set(asked(ollama, body).ignored) == {
        *("options.mirostat", "options.num_ctx", "keep_alive")
    }


def test_what_a_raw_prompt_has_no_place_for_is_named():
    body = {"prompt": "Hi", "raw": True, "system": "Be brief.", "think": True, "template": "x"}
    ignored = asyncio.run(ollama.ask_generate(body, Engine(), ATLAS)).ignored
    assert set(ignored) == {"system", "think", "template"}


@pytest.mark.parametrize(
    ("option", "field", "value"),
    [
        ({"num_predict": -1}, "max_tokens", 1000),
        ({"num_predict": -2}, "max_tokens", 1000),
        ({"num_predict": 0}, "max_tokens", 1000),
        ({"num_predict": 7.0}, "max_tokens", 7),
        ({"top_k": -1}, "top_k", 0),
        ({"top_k": 40.0}, "top_k", 40),
        ({"repeat_penalty": 0}, "repetition_penalty", 1.0),
        ({"temperature": -1}, "temperature", 0.0),
        ({"top_p": 2}, "top_p", 1.0),
        ({"top_p": 0}, "top_p", 1e-6),
        ({"min_p": -0.5}, "min_p", 0.0),
        ({"stop": [""]}, "stop", ()),
        ({"stop": ["", "a"]}, "stop", ("a",)),
        ({"stop": ""}, "stop", ()),
    ],
)
def test_options_mean_what_they_do_to_ollama(option, field, value):
    assert getattr(request(options=option), field) == value


def test_an_error_names_the_option_as_the_client_does():
    with pytest.raises(ApiError, match=r"^num_predict is 'x'"):
        request(options={"num_predict": "x"})


def test_a_format_is_json_or_a_schema():
    assert request(format="json").constraint.json_schema == {"type": "object"}
    assert request(format={"type": "array"}).constraint.json_schema == {"type": "array"}
    assert request(format="").constraint is None


@pytest.mark.parametrize(("think", "on"), [(True, True), (False, False), ("low", True)])
def test_think_reaches_the_templates_that_read_it(think, on):
    reads = request("{{ enable_thinking }}", think=think)
    assert reads.chat_template_kwargs == {"enable_thinking": on}
    assert request(think=think).chat_template_kwargs == {}


def test_thoughts_and_tools_come_in_openais_form():
    call = {"function": {"name": "weather", "arguments": {"city": "Lima"}}}
    messages = [
        *HI,
        {"role": "assistant", "content": "", "thinking": "Hm.", "tool_calls": [call]},
        {"role": "tool", "content": "17", "tool_name": "weather"},
    ]
    _, spoken, result = prompt(ollama, {"messages": messages})
    assert spoken["reasoning_content"] == "Hm."
    assert spoken["tool_calls"][0]["function"]["name"] == "weather"
    assert (result["role"], result["content"], result["name"]) == ("tool", "17", "weather")


def test_a_prompt_is_a_message_unless_it_is_raw():
    given = generated(prompt="Hi", system="Be brief.")
    assert [message["content"] for message in given.prompt] == ["Be brief.", "Hi"]
    raw = generated(prompt="Hi", raw=True)
    assert (raw.prompt, raw.max_tokens) == ("Hi", 1000)


@pytest.mark.parametrize("body", [{"suffix": "a"}, {"images": ["a"]}])
def test_what_these_models_cannot_do_is_refused(body):
    with pytest.raises(ApiError, match="leave it out"):
        generated(prompt="Hi", **body)
    with pytest.raises(ApiError, match=r"messages\[0\].images"):
        request(messages=[{"role": "user", "content": "Hi", "images": ["a"]}])


# -- answers -------------------------------------------------------------------------------


def test_thoughts_text_and_calls_have_their_places():
    said = steps(["<think>Hm.</think>", "Yes.", CALL])
    lines = events(OllamaWriter("1", "atlas", {}, is_chat=True), generating(said))
    messages = [line["message"] for line in lines]
    assert "".join(message.get("thinking", "") for message in messages) == "Hm."
    assert "".join(message["content"] for message in messages) == "Yes."
    calls = [message["tool_calls"] for message in messages if "tool_calls" in message]
    assert calls == [[{"function": {"name": "weather", "arguments": {"city": "Lima"}}}]]
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1]["done_reason"] == "stop"
    one = whole(OllamaWriter("1", "atlas", {}, is_chat=True), generating(said))["message"]
    assert (one["thinking"], one["content"], one["tool_calls"]) == ("Hm.", "Yes.", calls[0])


def test_a_generated_text_is_a_response_with_its_counts():
    said = steps(["a", "b"], finish_reason="length", ends=False)
    answer = whole(OllamaWriter("1", "atlas", {}, is_chat=False), generating(said))
    assert (answer["response"], answer["done"], answer["done_reason"]) == ("ab", True, "length")
    assert (answer["prompt_eval_count"], answer["eval_count"]) == (12, 2)
    assert answer["total_duration"] >= answer["load_duration"] >= 0


# -- its client ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client(live):
    return package.Client(host=live.url, timeout=120)


@pytest.fixture(scope="module")
def answer(live):
    """What OpenAI's chat says to the question."""
    body = {"model": "atlas", "max_tokens": 60, "temperature": 0}
    chat = live.openai.chat.completions.create(messages=QUESTION, **body)
    return chat.choices[0].message.content, chat.usage


def test_a_chat_and_its_stream_say_what_openais_says(client, answer):
    text, usage = answer
    one = client.chat("atlas", QUESTION, options=GREEDY)
    parts = list(client.chat("atlas:latest", QUESTION, stream=True, options=GREEDY))
    assert one.message.content == text == "".join(part.message.content for part in parts)
    assert (one.done_reason, parts[-1].done_reason) == ("stop", "stop")
    assert (one.prompt_eval_count, one.eval_count) == (
        usage.prompt_tokens,
        usage.completion_tokens,
    )
    assert one.eval_duration > 0


def test_a_prompt_is_answered_and_raw_text_is_continued(client, live, answer):
    assert client.generate("atlas", QUESTION[0]["content"], options=GREEDY).response == answer[0]
    short = {"temperature": 0, "num_predict": 8}
    raw = client.generate("atlas", "The capital of", raw=True, options=short)
    body = {"prompt": "The capital of", "max_tokens": 8, "temperature": 0}
    assert raw.response == live.http.post("/v1/completions", json=body).json()["choices"][0]["text"]


def test_a_schema_holds(client):
    schema = {"type": "object", "properties": {"a": {"enum": ["b"]}}, "required": ["a"]}
    schema["additionalProperties"] = False
    said = client.chat("atlas", QUESTION, format=schema, options=GREEDY).message.content
    assert json.loads(said) == {"a": "b"}


def test_models_are_listed_shown_and_loaded(client, live):
    names = [model.model for model in client.list().models]
    assert names[:3] == ["atlas:latest", "atlas:base", "atlas:tuned"]
    shown = client.show("atlas:latest")
    assert "completion" in shown.capabilities
    assert shown.modelinfo[f"{shown.details.family}.context_length"] > 0
    assert client.generate("atlas").done_reason == "load"
    loaded = {model.model: model for model in client.ps().models}
    left = loaded["atlas:latest"].expires_at - datetime.now(UTC)
    assert 0 < left.total_seconds() <= 300
    assert tuple(map(int, live.http.get("/api/version").json()["version"].split("."))) >= (0, 6, 4)
    assert live.http.head("/").status_code == 200
    assert live.http.get("/").text.startswith("edge-eft is running")


def test_errors_are_its_own(client):
    with pytest.raises(package.ResponseError, match="there is no model 'nobody'") as error:
        client.chat("nobody", QUESTION)
    assert error.value.status_code == 404
    with pytest.raises(package.ResponseError, match="num_predict is"):
        client.generate("atlas", "Hi", options={"num_predict": "x"})
    for manage in (client.pull, client.delete, client.create, client.embed):
        with pytest.raises(package.ResponseError, match=r"^/api/\w+ is not served: ") as error:
            manage("atlas")
        assert error.value.status_code == 405


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/generate", {"prompt": 0}),
        ("/api/generate", {"prompt": []}),
        ("/api/chat", {"messages": {}}),
        ("/api/chat", {"messages": ""}),
    ],
)
def test_what_is_no_prompt_does_not_count_as_an_empty_one(live, path, body):
    answer = live.http.post(path, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(f"{next(iter(body))} is ")


@pytest.mark.parametrize("keep_alive", [0, "0", "0s", -0.0])
def test_an_empty_prompt_that_is_kept_for_no_time_unloads(live, client, keep_alive):
    client.generate("atlas")
    assert client.ps().models
    assert client.generate("atlas", keep_alive=keep_alive).done_reason == "unload"
    assert not client.ps().models
    assert live.http.get("/health").json()["status"] == "idle"
    assert client.chat("atlas", QUESTION, options={"num_predict": 1}).done_reason == "length"


def test_the_other_recipe_stays_when_one_is_unloaded(served):
    both = served("atlas", "atlas-down")
    client = package.Client(host=both.url, timeout=120)
    for name in ("atlas", "atlas-down"):
        assert client.generate(name).done_reason == "load"
    assert client.generate("atlas", keep_alive=0).done_reason == "unload"
    names = {model.model.partition(":")[0] for model in client.ps().models}
    assert names == {"atlas-down"}


def test_a_recipe_with_work_is_not_unloaded(live, client):
    parts = client.generate("atlas", "Hi", stream=True, options={"num_predict": 400})
    next(parts)
    assert client.generate("atlas", keep_alive=0).done_reason == "unload"
    assert client.ps().models
    assert list(parts)[-1].done


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", {"messages": [{"role": "user", "content": {}}]}),
        ("/api/show", {"model": {}}),
    ],
)
def test_what_is_empty_and_wrong_is_not_left_out(live, path, body):
    with live.http as http:
        assert http.post(path, json=body).status_code in (400, 404)
