"""Anthropic's own client against a live server."""

import anthropic
import httpx
import pytest

QUESTION = [{"role": "user", "content": "What is the capital of Peru?"}]
# The package has no such argument any more, and others than Anthropic's models still read it.
GREEDY = {"model": "atlas", "max_tokens": 60, "extra_body": {"temperature": 0}}
WEATHER = {
    "name": "weather",
    "description": "Says what the weather is.",
    "input_schema": {
        "type": "object",
        "properties": {"unit": {"enum": ["celsius", "fahrenheit"]}},
        "required": ["unit"],
        "additionalProperties": False,
    },
}


def client_of(live, key="none"):
    return anthropic.Anthropic(base_url=live.url, api_key=key, max_retries=0, timeout=120)


@pytest.fixture(scope="module")
def client(live):
    return client_of(live)


def n_input(usage):
    return usage.input_tokens + usage.cache_read_input_tokens


def test_a_message_says_what_the_chat_says(client, live):
    message = client.messages.create(messages=QUESTION, **GREEDY)
    chat = live.openai.chat.completions.create(messages=QUESTION, **GREEDY)
    assert [block.text for block in message.content] == [chat.choices[0].message.content]
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert n_input(message.usage) == chat.usage.prompt_tokens
    assert message.usage.output_tokens == chat.usage.completion_tokens


def test_a_stream_says_what_one_answer_says(client):
    whole = client.messages.create(messages=QUESTION, **GREEDY)
    with client.messages.stream(messages=QUESTION, **GREEDY) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text == final.content[0].text
    assert final.stop_reason == whole.stop_reason
    assert n_input(final.usage) == n_input(whole.usage)
    assert final.usage.output_tokens == whole.usage.output_tokens


def test_the_stop_sequence_that_ended_a_message_is_named(client):
    text = client.messages.create(messages=QUESTION, **GREEDY).content[0].text
    stop = text[len(text) // 2 :][:4]
    message = client.messages.create(messages=QUESTION, stop_sequences=["\x07", stop], **GREEDY)
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", stop)
    assert message.content[0].text == text[: text.index(stop)]


def test_a_message_that_is_cut(client):
    message = client.messages.create(messages=QUESTION, **(GREEDY | {"max_tokens": 2}))
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 2)


def test_a_last_message_of_the_assistant_is_continued(client):
    text = client.messages.create(messages=QUESTION, **GREEDY).content[0].text
    begun = text[: text.index(" ", len(text) // 3)]
    prefill = [*QUESTION, {"role": "assistant", "content": begun}]
    assert client.messages.create(messages=prefill, **GREEDY).content[0].text == text[len(begun) :]


def test_tokens_are_counted_as_a_message_counts_them(client):
    body = {"model": "atlas", "messages": QUESTION, "system": "Be brief."}
    counted = client.messages.count_tokens(**body)
    message = client.messages.create(**body, max_tokens=1)
    assert counted.input_tokens == n_input(message.usage)


def test_tokens_of_what_does_not_fit_are_counted(client):
    long = [{"role": "user", "content": "word " * 20_000}]
    assert client.messages.count_tokens(model="atlas", messages=long).input_tokens > 20_000


@pytest.mark.parametrize("as_blocks", [True, False])
def test_a_billing_line_does_not_cost_the_prefix_cache(client, as_blocks):
    rules = f"{as_blocks}! " + "Answer in one short sentence, and name no sources. " * 12

    def ask(number):
        line = f"x-anthropic-billing-header: cc_version=2.1; cch={number};"
        blocks = [{"type": "text", "text": line}, {"type": "text", "text": rules}]
        system = blocks if as_blocks else f"{line}\n{rules}"
        return client.messages.create(messages=QUESTION, system=system, **GREEDY)

    first, second = ask("00000"), ask("fa3b1")
    assert second.usage.cache_read_input_tokens >= n_input(second.usage) - 1
    assert second.usage.cache_read_input_tokens > first.usage.cache_read_input_tokens + 100
    assert second.content == first.content


def test_a_tool_is_called_streamed_or_not(client):
    wanted = {"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "weather"}}
    wanted |= GREEDY | {"max_tokens": 300}
    message = client.messages.create(messages=QUESTION, **wanted)
    with client.messages.stream(messages=QUESTION, **wanted) as stream:
        final = stream.get_final_message()
    for one in (message, final):
        assert one.stop_reason == "tool_use"
        assert (one.content[-1].type, one.content[-1].name) == ("tool_use", "weather")
        assert one.content[-1].input["unit"] in ("celsius", "fahrenheit")
    assert final.content[-1].input == message.content[-1].input


def test_errors_are_those_of_the_package(client):
    with pytest.raises(anthropic.NotFoundError, match="there is no model 'claude'") as missing:
        client.messages.create(messages=QUESTION, **(GREEDY | {"model": "claude"}))
    assert missing.value.body["error"]["type"] == "not_found_error"
    assert missing.value.request_id == missing.value.body["request_id"]
    with pytest.raises(anthropic.BadRequestError, match="temperature"):
        client.messages.create(messages=QUESTION, **(GREEDY | {"extra_body": {"temperature": -1}}))
    with pytest.raises(anthropic.BadRequestError, match=r"prompt is too long: \d+ tokens > \d+"):
        client.messages.create(messages=[{"role": "user", "content": "word " * 20_000}], **GREEDY)
    with (
        pytest.raises(anthropic.NotFoundError),
        client.messages.stream(messages=QUESTION, **(GREEDY | {"model": "claude"})),
    ):
        pass


def test_what_is_not_read_is_named_in_a_header(live):
    tools = [{"type": "bash_20250124", "name": "bash"}]
    body = {"model": "atlas", "messages": QUESTION, "max_tokens": 5, "tools": tools}
    url = f"{live.url}/v1/messages?beta=true"
    headers = {"anthropic-version": "2023-06-01"}
    answer = httpx.post(url, json={**body, "metadata": {}, "speed": "fast"}, headers=headers)
    assert answer.headers["X-Ignored-Fields"] == "speed, tools[0] (bash_20250124)"


def test_a_key_is_asked_for_and_an_engine_that_dies_ends_a_stream_by_an_error(served):
    live = served("atlas", "--api-key", "k-e-y")
    with pytest.raises(anthropic.AuthenticationError, match="not this server's"):
        client_of(live, "other").messages.create(messages=QUESTION, **GREEDY)
    client = client_of(live, "k-e-y")
    long = {"model": "atlas", "max_tokens": 2000, "extra_body": {"ignore_eos": True}}
    stream = client.messages.create(messages=QUESTION, stream=True, **long)
    assert next(stream).type == "message_start"
    live.engine().kill()
    with pytest.raises(anthropic.APIStatusError, match="the engine died"):
        list(stream)
    assert client.messages.create(messages=QUESTION, **GREEDY).content
