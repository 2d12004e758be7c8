"""OpenAI's own client and the responses of a live server."""

import json

import openai
import pytest

QUESTION = "What is the capital of Peru?"
GREEDY = {"model": "atlas", "temperature": 0}
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "Says what the weather is.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"unit": {"enum": ["celsius", "fahrenheit"]}},
        "required": ["unit"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def client(live):
    return live.openai


def test_a_response_says_what_the_chat_says(client):
    response = client.responses.create(input=QUESTION, instructions="Be brief.", **GREEDY)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    chat = client.chat.completions.create(messages=messages, **GREEDY)
    assert response.output_text == chat.choices[0].message.content
    assert (response.status, response.instructions) == ("completed", "Be brief.")
    assert response.usage.input_tokens == chat.usage.prompt_tokens
    assert response.usage.output_tokens == chat.usage.completion_tokens
    again = client.responses.create(input=QUESTION, instructions="Be brief.", **GREEDY)
    assert again.usage.input_tokens_details.cached_tokens >= again.usage.input_tokens - 1


def test_a_stream_says_what_one_answer_says(client):
    whole = client.responses.create(input=QUESTION, **GREEDY)
    with client.responses.stream(input=QUESTION, **GREEDY) as stream:
        events = list(stream)
        final = stream.get_final_response()
    text = "".join(one.delta for one in events if one.type == "response.output_text.delta")
    assert text == final.output_text == whole.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert final.usage.output_tokens == whole.usage.output_tokens


def test_a_conversation_is_sent_as_a_whole(client):
    first = client.responses.create(input=QUESTION, **GREEDY)
    items = [{"role": "user", "content": QUESTION}, *(one.to_dict() for one in first.output)]
    then = [*items, {"role": "user", "content": "And of Chile?"}]
    assert client.responses.create(input=then, **GREEDY).output_text
    with pytest.raises(openai.BadRequestError, match="nothing is stored here") as refused:
        client.responses.create(input="And of Chile?", previous_response_id=first.id, **GREEDY)
    assert refused.value.param == "previous_response_id"


def test_a_response_that_is_cut(client):
    response = client.responses.create(input=QUESTION, max_output_tokens=2, **GREEDY)
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.usage.output_tokens == 2


def test_a_schema_holds_the_text(client):
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Lima", "Quito"]}, "kind": {"const": "capital"}},
        "required": ["city", "kind"],
        "additionalProperties": False,
    }
    wanted = {"format": {"type": "json_schema", "name": "city", "schema": schema, "strict": True}}
    found = json.loads(client.responses.create(input=QUESTION, text=wanted, **GREEDY).output_text)
    assert set(found) == {"city", "kind"}
    assert found["city"] in ("Lima", "Quito")
    assert found["kind"] == "capital"


def test_a_function_is_called_streamed_or_not(client):
    wanted = {"tools": [WEATHER, {"type": "web_search"}], "input": QUESTION, **GREEDY}
    wanted["tool_choice"] = {"type": "function", "name": "weather"}
    response = client.responses.create(**wanted)
    with client.responses.stream(**wanted) as stream:
        final = stream.get_final_response()
    calls = [one.output[-1] for one in (response, final)]
    for call in calls:
        assert (call.type, call.name) == ("function_call", "weather")
        assert json.loads(call.arguments)["unit"] in ("celsius", "fahrenheit")
    assert calls[0].arguments == calls[1].arguments


def test_errors_are_those_of_the_package(client):
    with pytest.raises(openai.NotFoundError, match="there is no model"):
        client.responses.create(input=QUESTION, model="gpt")
    with pytest.raises(openai.BadRequestError) as wrong:
        client.responses.create(input=[{"type": "item_reference", "id": "m"}], **GREEDY)
    assert wrong.value.param == "input"
    with pytest.raises(openai.BadRequestError) as long:
        client.responses.create(input="word " * 20_000, **GREEDY)
    assert long.value.code == "context_length_exceeded"


def test_an_engine_that_dies_ends_a_stream_by_an_error(served):
    live = served("atlas")
    stream = live.openai.responses.create(
        input=QUESTION, model="atlas", stream=True, extra_body={"ignore_eos": True}
    )
    assert next(stream).type == "response.created"
    live.engine().kill()
    with pytest.raises(openai.APIError, match="the engine died"):
        list(stream)
    assert live.openai.responses.create(input=QUESTION, **GREEDY).output_text
