"""Anthropic's messages: what a body comes to mean, and replies in its words."""

import json

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from helpers.scripted_replies import (
    CALL,
    Engine,
    Reply,
    asked,
    events,
    generating,
    prompt,
    steps,
    whole,
)
from pydantic import TypeAdapter
from starlette.applications import Starlette
from starlette.testclient import TestClient

from edge_eft.server import anthropic
from edge_eft.server.answers import Answering
from edge_eft.server.api_error import ApiError
from edge_eft.server.metrics import Metrics

HI = [{"role": "user", "content": "Hi"}]
WEATHER = {"name": "weather", "description": "Says it.", "input_schema": {"type": "object"}}
BILLING = "x-anthropic-billing-header: cc_version=2.1.7; cch=0a1b2;"


def text(text, **more):
    return {"type": "text", "text": text, **more}


def spoken(messages):
    """Role and joined text of messages."""
    parts = [(m["role"], m["content"]) for m in messages]
    return [(r, c if isinstance(c, str) else "|".join(p["text"] for p in c)) for r, c in parts]


# -- requests ------------------------------------------------------------------------------


def test_a_system_prompt_and_messages_are_texts_or_blocks():
    body = {
        "system": [text("Be brief.", cache_control={"type": "ephemeral"}), text("Be kind.")],
        "messages": [
            {"role": "user", "content": [text("a"), text("b")]},
            {"role": "assistant", "content": "c"},
        ],
    }
    assert spoken(prompt(anthropic, body)) == [
        ("system", "Be brief.|Be kind."),
        ("user", "a|b"),
        ("assistant", "c"),
    ]
    assert spoken(prompt(anthropic, {"system": "Be brief.", "messages": HI}))[0] == (
        "system",
        "Be brief.",
    )


@pytest.mark.parametrize(
    "system",
    [
        [text(BILLING), text("Be brief.")],
        [text(f"{BILLING}\nBe brief.")],
        f"{BILLING}\n\nBe brief.",
        "Be brief.",
    ],
)
def test_a_billing_line_does_not_reach_the_prompt(system):
    messages = prompt(anthropic, {"system": system, "messages": HI})
    assert spoken(messages) == [("system", "Be brief."), ("user", "Hi")]


def test_a_billing_line_alone_leaves_no_system_prompt():
    assert spoken(prompt(anthropic, {"system": BILLING, "messages": HI})) == [("user", "Hi")]


def test_a_billing_line_elsewhere_is_what_somebody_wrote():
    body = {"system": f"Be brief.\n{BILLING}", "messages": HI}
    assert BILLING in spoken(prompt(anthropic, body))[0][1]


def test_tools_that_were_used_are_tool_calls_and_results_come_before_the_text():
    use = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Lima"}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [text("17 °C")]}
    bare = {"type": "tool_result", "tool_use_id": "t2", "is_error": True}
    thought = {"type": "thinking", "thinking": "Let me look.", "signature": ""}
    body = {
        "messages": [
            *HI,
            {"role": "assistant", "content": [thought, text("I look."), use]},
            {"role": "user", "content": [result, bare, text("And?")]},
        ]
    }
    _, assistant, first, second, user = prompt(anthropic, body)
    function = {"name": "weather", "arguments": {"city": "Lima"}}
    assert assistant == {
        "role": "assistant",
        "content": "I look.",
        "tool_calls": [{"id": "t1", "type": "function", "function": function}],
        "reasoning_content": "Let me look.",
    }
    assert first == {"role": "tool", "tool_call_id": "t1", "content": [text("17 °C")]}
    assert second == {"role": "tool", "tool_call_id": "t2", "content": []}
    assert spoken([user]) == [("user", "And?")]


def test_results_alone_make_no_empty_message():
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "17"}
    messages = prompt(anthropic, {"messages": [*HI, {"role": "user", "content": [result]}]})
    assert [message["role"] for message in messages] == ["user", "tool"]


def test_tools_and_what_anthropic_runs_itself():
    body = {
        "messages": HI,
        "tools": [WEATHER, {"type": "web_search_20250305", "name": "web_search"}],
        "metadata": {"user_id": "u"},
        "context_management": {},
        "output_config": {"effort": "low"},
    }
    found = asked(anthropic, body, "{{ tools }}")
    assert [tool["function"]["name"] for tool in found.requests[0].tools] == ["weather"]
    assert found.requests[0].tools[0]["function"]["parameters"] == {"type": "object"}
    assert found.parses_tools
    assert found.ignored == (
        "context_management",
        "output_config.effort",
        "tools[1] (web_search_20250305)",
    )


def test_options_and_ours_reach_the_request():
    body = {
        "messages": HI,
        "max_tokens": 7,
        "temperature": 0.3,
        "top_k": 4,
        "top_p": 0.5,
        "stop_sequences": ["END"],
        "alpha": 0.5,
        "draft": 0,
    }
    request = asked(anthropic, body).requests[0]
    assert (request.max_tokens, request.temperature, request.top_k) == (7, 0.3, 4)
    assert (request.top_p, request.stop, request.draft) == (0.5, ("END",), 0)
    assert request.weights.to_dict()["alpha"] == 0.5


def test_an_output_format_holds_the_reply():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    body = {"messages": HI, "output_config": {"format": {"type": "json_schema", "schema": schema}}}
    assert asked(anthropic, body).requests[0].constraint.json_schema == schema


@pytest.mark.parametrize(
    ("thinking", "template", "variables"),
    [
        ("enabled", "{% if enable_thinking %}", {"enable_thinking": True}),
        ("disabled", "{% if enable_thinking %}", {"enable_thinking": False}),
        ("adaptive", "{% if enable_thinking %}", {}),
        ("disabled", "{{ messages }}", {}),
    ],
)
def test_thinking_is_told_to_templates_that_ask_for_it(thinking, template, variables):
    body = {"messages": HI, "thinking": {"type": thinking}}
    assert asked(anthropic, body, template).requests[0].chat_template_kwargs == variables


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}}


@pytest.mark.parametrize(
    ("body", "param", "told"),
    [
        ({}, "messages", "messages is missing"),
        ({"messages": "Hi"}, "messages", "must be a list"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages", "user, assistant or system"),
        ({"messages": ["Hi"]}, "messages", r"messages\[0\] is 'Hi'"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages", "'image'; these models"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages", r"messages\[0\].content is 3"),
        ({"messages": HI, "system": 3}, "system", "system is 3"),
        ({"messages": HI, "stop_sequences": "END"}, "stop_sequences", "list of texts"),
        ({"messages": HI, "stop_sequences": [""]}, "stop_sequences", "not empty"),
        ({"messages": HI, "tools": [3]}, "tools", r"tools\[0\] is 3"),
        ({"messages": HI, "tools": [{}]}, "tools", "has the name None"),
        (
            {"messages": HI, "tool_choice": {"type": "one"}},
            "tool_choice",
            "auto, any, tool or none",
        ),
        ({"messages": HI, "max_tokens": 0}, "max_tokens", "at least 1"),
        ({"messages": HI, "temperature": -1}, "temperature", "temperature"),
        ({"messages": HI, "thinking": "yes"}, "thinking", "object such as"),
        ({"messages": HI, "output_config": {"format": {}}}, "output_config", "json_schema"),
    ],
)
def test_what_is_wrong_is_named(body, param, told):
    with pytest.raises(ApiError, match=told) as failed:
        asked(anthropic, body)
    assert (failed.value.status, failed.value.param) == (400, param)


# -- answers -------------------------------------------------------------------------------


def writer():
    return anthropic.MessageWriter("msg_1", "atlas", {})


def test_a_stream_has_the_events_that_the_package_knows():
    given = events(writer(), generating(steps(["<think>", "Hm.", "</think>", "Hello", CALL])))
    for event in given:
        TypeAdapter(RawMessageStreamEvent).validate_python(event)
    assert [event["type"] for event in given if "delta" not in event["type"]] == [
        "message_start",
        *["content_block_start", "content_block_stop"] * 3,
        "message_stop",
    ]
    indices = [event["index"] for event in given if "index" in event]
    assert indices == sorted(indices)
    first, end = given[0]["message"], given[-2]
    assert first["usage"] == {
        "input_tokens": 7,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 5,
        "output_tokens": 0,
    }
    assert end["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert end["usage"] == first["usage"] | {"output_tokens": 5}


@pytest.mark.parametrize("block", [1, 3, 10])
def test_one_answer_is_what_the_events_add_up_to(block):
    said = ["<think>", "Hm.", "</think>", "He", "llo", CALL, CALL]
    message = whole(writer(), generating(steps(said), block=block))
    Message.model_validate(message)
    thought, spoken, *uses = message["content"]
    assert thought == {"type": "thinking", "thinking": "Hm.", "signature": ""}
    assert spoken == text("Hello")
    assert [use["input"] for use in uses] == [{"city": "Lima"}] * 2
    assert len({use["id"] for use in uses}) == 2
    assert message["usage"]["output_tokens"] == len(said)


def test_arguments_that_are_not_json_are_handed_back_as_text():
    call = CALL.replace('"Lima"', "Lima")
    use = whole(writer(), generating(steps([call])))["content"][-1]
    assert use["input"] == {"INVALID_JSON": '{"city": Lima}'}


@pytest.mark.parametrize(
    ("given", "reason", "sequence"),
    [
        (generating(steps(["Hello"])), "end_turn", None),
        (generating(steps(["Hello"], finish_reason="length", ends=False)), "max_tokens", None),
        (
            generating(steps(["Hello", ""], ["Hello", "END"], ends=False, stop_string="END")),
            "stop_sequence",
            "END",
        ),
    ],
)
def test_the_reason_of_an_end(given, reason, sequence):
    message = whole(writer(), given)
    assert (message["stop_reason"], message["stop_sequence"]) == (reason, sequence)
    assert message["content"] == [text("Hello")]


def test_an_empty_reply_has_no_blocks():
    assert whole(writer(), generating(steps([])))["content"] == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (404, "not_found_error"),
        (415, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "overloaded_error"),
    ],
)
def test_errors_have_anthropics_shape(status, kind):
    response = anthropic.refused(ApiError(status, "seen; do", headers={"Retry-After": "1"}))
    body = json.loads(response.body)
    assert (body["type"], body["error"]) == ("error", {"type": kind, "message": "seen; do"})
    assert response.headers["request-id"] == body["request_id"]
    assert (response.status_code, response.headers["retry-after"]) == (status, "1")


def test_a_prompt_that_is_too_long_is_said_in_the_words_that_clients_look_for():
    numbers = {"n_prompt_tokens": 2000, "n_ctx": 1000}
    error = ApiError(400, "the prompt is …", code="context_length_exceeded", more=numbers)
    message = anthropic.error_body(error)["error"]["message"]
    assert message.startswith("prompt is too long: 2000 tokens > 999 maximum")


def test_a_long_prompt_is_waited_for_with_pings():
    engine = Engine(replies=[Reply([steps(["Hello"])], after=1.2)])
    app = Starlette(routes=anthropic.routes(engine, Answering(engine, Metrics())))
    answer = TestClient(app).post("/v1/messages", json={"messages": HI, "stream": True})
    names = [line[7:] for line in answer.text.splitlines() if line.startswith("event: ")]
    assert names[:3] == ["ping", "message_start", "content_block_start"]
    assert names[-1] == "message_stop"
    assert 'data: {"type": "ping"}' in answer.text
