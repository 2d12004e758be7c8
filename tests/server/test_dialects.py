"""Bodies in which one value is something else: no dialect fails otherwise than by a refusal."""

import copy

import pytest
from helpers.scripted_replies import asked

from edge_eft.server import (
    anthropic,
    llama_server,
    ollama,
    openai_chat,
    openai_completions,
    openai_responses,
)
from edge_eft.server.api_error import ApiError

JUNK = (None, True, 3, -1.5, "", "x", [], [[]], {}, [{}], {"type": []}, {"type": "x"})
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
FORMAT = {"type": "json_schema", "schema": SCHEMA}
CHAT = {
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": "Hi"},
    ],
    "tools": [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}],
    "tool_choice": {"type": "function", "function": {"name": "weather"}},
    "response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}},
    "chat_template_kwargs": {"enable_thinking": False},
    "stream_options": {"include_usage": True},
    "stop": ["END"],
    "logit_bias": {"7": -1.5},
    "mix": {"chat": 0.5},
    "logprobs": True,
    "top_logprobs": 2,
    "max_completion_tokens": 7,
    "n": 2,
    "seed": 3,
    "return_progress": True,
}
COMPLETION = {
    "prompt": [[7, 9], [8]],
    "echo": True,
    "logprobs": 2,
    "stream_options": {"include_usage": True},
    "best_of": 2,
    "max_tokens": 7,
    "n": 2,
    "explain": 2,
}
ANTHROPIC = {
    "system": [{"type": "text", "text": "Be brief."}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": ""},
                {"type": "tool_use", "id": "t1", "name": "weather", "input": {"a": "b"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "t1",
                    "content": [{"type": "text", "text": "17"}],
                }
            ],
        },
    ],
    "tools": [{"name": "weather", "description": "Says it.", "input_schema": SCHEMA}],
    "tool_choice": {"type": "tool", "name": "weather"},
    "stop_sequences": ["END"],
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "output_config": {"format": FORMAT},
    "max_tokens": 7,
    "temperature": 0.5,
    "alpha": 0.5,
}
RESPONSES = {
    "instructions": "Be brief.",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
        {"type": "reasoning", "id": "r", "summary": []},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "17"},
    ],
    "tools": [{"type": "function", "name": "weather", "parameters": SCHEMA}],
    "tool_choice": {"type": "function", "name": "weather"},
    "text": {"format": {**FORMAT, "name": "a"}},
    "max_output_tokens": 7,
    "temperature": 0.5,
    "alpha": 0.5,
}
LLAMA = {
    "prompt": [7, "Hi", 9],
    "n_predict": 7,
    "n_probs": 2,
    "stop": ["END"],
    "repeat_penalty": 1.1,
    "temperature": 0.5,
    "seed": 3,
    "logit_bias": [[7, -1.5], ["Hi", False]],
    "json_schema": SCHEMA,
    "response_fields": ["content"],
    "return_tokens": True,
    "cache_prompt": True,
    "id_slot": -1,
    "return_progress": True,
    "alpha": 0.5,
}
OLLAMA = {
    "messages": [
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": "",
            "thinking": "Hm.",
            "tool_calls": [{"function": {"name": "weather", "arguments": {"a": "b"}}}],
        },
        {"role": "tool", "content": "17", "tool_name": "weather"},
    ],
    "tools": [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}],
    "format": SCHEMA,
    "think": True,
    "options": {"temperature": 0.5, "num_predict": 7, "repeat_penalty": 1.1, "stop": ["END"]},
    "alpha": 0.5,
}


def without_choice(body):
    return {name: value for name, value in body.items() if name != "tool_choice"}


@pytest.mark.parametrize(
    ("dialect", "body"),
    [(openai_chat, CHAT), (openai_responses, RESPONSES), (anthropic, ANTHROPIC), (ollama, OLLAMA)],
)
def test_tools_that_no_template_shows_are_named_unless_a_call_is_forced(dialect, body):
    assert "tools" in asked(dialect, without_choice(body)).ignored
    assert "tools" not in asked(dialect, without_choice(body), "{{ tools }}").ignored
    if "tool_choice" in body:
        found = asked(dialect, body)
        assert "tools" not in found.ignored
        assert found.requests[0].constraint is not None


def test_tools_that_are_not_to_be_called_are_not_missed():
    assert "tools" not in asked(openai_chat, {**CHAT, "tool_choice": "none"}).ignored


def test_variables_that_no_template_reads_are_left_out_and_named():
    """They were a 400, and clients send enable_thinking to whatever there is."""
    body = {**CHAT, "chat_template_kwargs": {"enable_thinking": False, "nobody": 1}}
    found = asked(openai_chat, body, "{{ enable_thinking }} {{ tools }}")
    assert found.ignored == ("chat_template_kwargs.nobody",)
    assert all(one.chat_template_kwargs == {"enable_thinking": False} for one in found.requests)


def places(value, path=()):
    """The paths to all values inside a value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in inside:
        yield (*path, key)
        if isinstance(part, dict | list):
            yield from places(part, (*path, key))


def changed(body, path, value):
    copied = inner = copy.deepcopy(body)
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copied


@pytest.mark.parametrize(
    ("dialect", "body", "writer"),
    [
        (openai_chat, CHAT, lambda body: openai_chat.ChatWriter("1", "m", body)),
        (
            openai_completions,
            COMPLETION,
            lambda body: openai_completions.CompletionWriter("1", "m", body),
        ),
        (
            openai_responses,
            RESPONSES,
            lambda body: openai_responses.ResponseWriter("1", "m", body),
        ),
        (anthropic, ANTHROPIC, lambda body: anthropic.MessageWriter("1", "m", body)),
        (llama_server, LLAMA, lambda body: llama_server.LlamaWriter("1", "m", body)),
        (ollama, OLLAMA, lambda body: ollama.OllamaWriter("1", "m", body, is_chat=True)),
    ],
)
def test_a_value_of_any_kind_in_any_place_is_read_or_refused(dialect, body, writer):
    """The writers of answers are made before the body is read; they failed at its values."""
    assert not asked(dialect, body, "enable_thinking tools").ignored
    refused = []
    for path in places(body):
        for junk in JUNK:
            writer(changed(body, path, junk))
            try:
                asked(dialect, changed(body, path, junk), "enable_thinking")
            except ApiError as error:
                refused.append((error.status, len(error.message) < 300))
    assert len(refused) > 100
    assert set(refused) == {(400, True)}
