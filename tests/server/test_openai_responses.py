"""OpenAI's responses: what a body comes to mean, and replies in its words."""

import pytest
from helpers.scripted_replies import CALL, asked, events, generating, prompt, steps, whole
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from edge_eft.server import openai_responses as responses
from edge_eft.server.api_error import ApiError

WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": True}


def part(kind, text):
    return {"type": kind, "text": text}


# -- requests ------------------------------------------------------------------------------


def test_an_input_is_a_text():
    assert prompt(responses, {"input": "Hi", "instructions": "Be brief."}) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [part("text", "Hi")]},
    ]


def test_an_input_is_a_list_of_items():
    items = [
        {"role": "developer", "content": "Be brief."},
        {"type": "message", "role": "user", "content": [part("input_text", "Hi")]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"role": "assistant", "content": [part("output_text", "I look.")]},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "17"},
        {"type": "function_call_output", "call_id": "c2", "output": [part("input_text", "18")]},
        {"type": "function_call", "call_id": "c3", "name": "weather", "arguments": "{}"},
    ]
    messages = prompt(responses, {"input": items})
    roles = ["developer", "user", "assistant", "tool", "tool", "assistant"]
    assert [message["role"] for message in messages] == roles
    assert messages[1]["content"] == [part("text", "Hi")]
    assert [call["id"] for call in messages[2]["tool_calls"]] == ["c1", "c2"]
    assert messages[4] == {"role": "tool", "tool_call_id": "c2", "content": [part("text", "18")]}
    assert messages[5]["tool_calls"][0]["function"] == {"name": "weather", "arguments": "{}"}


def test_options_tools_and_what_is_not_read():
    body = {
        "input": [{"role": "user", "content": "Hi"}, {"type": "web_search_call", "id": "w"}],
        "tools": [WEATHER, {"type": "web_search"}],
        "max_output_tokens": 7,
        "temperature": 0.3,
        "alpha": 0.5,
        "store": True,
        "metadata": {"a": "b"},
        "include": ["reasoning.encrypted_content"],
        "text": {"verbosity": "low"},
    }
    found = asked(responses, body, "{{ tools }}")
    request = found.requests[0]
    assert (request.max_tokens, request.temperature) == (7, 0.3)
    assert request.weights.to_dict()["alpha"] == 0.5
    assert [tool["function"]["name"] for tool in request.tools] == ["weather"]
    assert set(found.ignored) == {
        "include",
        "input[1] (web_search_call)",
        "text.verbosity",
        "tools[1] (web_search)",
    }


def test_a_text_format_holds_the_reply():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    wanted = {"type": "json_schema", "name": "a", "schema": schema, "strict": True}
    request = asked(responses, {"input": "Hi", "text": {"format": wanted}}).requests[0]
    assert request.constraint.json_schema == schema
    request = asked(responses, {"input": "Hi", "text": {"format": {"type": "text"}}}).requests[0]
    assert request.constraint is None


IMAGE = {"role": "user", "content": [{"type": "input_image", "image_url": "data:"}]}


@pytest.mark.parametrize(
    ("body", "param", "told"),
    [
        ({}, "input", "input is missing"),
        ({"input": [{"type": "reasoning"}], "instructions": "a"}, "input", "input is missing"),
        ({"input": 3}, "input", "a text or a list"),
        ({"input": ["Hi"]}, "input", r"input\[0\] is 'Hi'"),
        ({"input": [IMAGE]}, "input", "'input_image'; these models read text"),
        ({"input": [{"type": "item_reference", "id": "m"}]}, "input", "nothing is stored"),
        ({"input": [{"type": "function_call"}]}, "input", "must be texts"),
        ({"input": "Hi", "previous_response_id": "r"}, "previous_response_id", "nothing is stored"),
        ({"input": "Hi", "conversation": "c"}, "conversation", "nothing is stored"),
        ({"input": "Hi", "background": True}, "background", "use stream"),
        ({"input": "Hi", "max_output_tokens": 0}, "max_output_tokens", "at least 1"),
        ({"input": "Hi", "text": {"format": {"type": "xml"}}}, "text", "json_schema"),
        ({"input": "Hi", "text": {"format": {}}}, "text", "json_schema"),
        ({"input": "Hi", "tool_choice": {"type": "function", "name": "f"}}, "tool_choice", "tools"),
    ],
)
def test_what_is_wrong_is_named(body, param, told):
    with pytest.raises(ApiError, match=told) as failed:
        asked(responses, body)
    assert (failed.value.status, failed.value.param) == (400, param)


# -- answers -------------------------------------------------------------------------------


def writer(**body):
    return responses.ResponseWriter("resp_1", "atlas", body)


SAID = ["<think>", "Hm.", "</think>", "He", "llo", CALL]


def test_a_stream_has_the_events_that_the_package_knows():
    given = events(writer(), generating(steps(SAID)))
    for event in given:
        TypeAdapter(ResponseStreamEvent).validate_python(event)
    assert [event["sequence_number"] for event in given] == list(range(len(given)))
    kinds = [event["type"].removeprefix("response.") for event in given]
    whole_part = ["content_part.done", "output_item.done"]
    assert kinds == [
        *("created", "in_progress"),
        *("output_item.added", "content_part.added", "reasoning_text.delta"),
        *("reasoning_text.done", *whole_part),
        *("output_item.added", "content_part.added", "output_text.delta", "output_text.delta"),
        *("output_text.done", *whole_part),
        *(
            "output_item.added",
            *["function_call_arguments.delta"] * kinds.count("function_call_arguments.delta"),
        ),
        *("function_call_arguments.done", "output_item.done"),
        "completed",
    ]
    added = [event["item"] for event in given if event["type"].endswith("output_item.added")]
    assert [item["status"] for item in added] == ["in_progress"] * 3
    assert [item.get("content") for item in added] == [[], [], None]


@pytest.mark.parametrize("block", [1, 3, 10])
def test_one_answer_is_that_of_the_last_event(block):
    response = whole(writer(), generating(steps(SAID), block=block))
    parsed = Response.model_validate(response)
    assert parsed.output_text == "Hello"
    thought, message, call = parsed.output
    assert thought.content[0].text == "Hm."
    assert message.status == response["status"] == "completed"
    assert (call.name, call.arguments) == ("weather", '{"city": "Lima"}')
    assert parsed.usage.input_tokens_details.cached_tokens == 5
    assert parsed.usage.output_tokens == len(SAID)
    assert parsed.usage.total_tokens == 12 + len(SAID)


def test_tokens_of_the_reasoning_are_counted():
    usage = whole(writer(), generating(steps(SAID)))["usage"]
    assert usage["output_tokens_details"] == {"reasoning_tokens": 2}


def test_a_reply_that_was_cut_is_incomplete():
    given = events(writer(), generating(steps(["Hel"], finish_reason="length", ends=False)))
    assert given[-1]["type"] == "response.incomplete"
    response = given[-1]["response"]
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output"][0]["status"] == response["status"] == "incomplete"


def test_an_error_in_mid_stream_is_told_twice_as_clients_look_for_either():
    one = writer()
    told = one.last_words(ApiError(500, "the engine died", code="engine_died")).decode()
    error, failed = told.strip().split("\n\n")
    assert error.startswith("event: error\n")
    assert failed.startswith("event: response.failed\n")
    for event in (error, failed):
        data = event.partition("data: ")[2]
        TypeAdapter(ResponseStreamEvent).validate_json(data)
        assert "the engine died" in data
