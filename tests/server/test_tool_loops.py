"""Tools that were used, told in each dialect to a model whose template shows them."""

import json

import anthropic
import pytest
from helpers.recipe_files import write_toml

TEMPLATE = (
    "{%- if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}"
    '{{ \'<tool_call>{"name": …, "arguments": …}</tool_call>\' }}<|im_end|>\n{% endif %}'
    "{%- for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{%- for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>"
    "{%- endfor %}<|im_end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PROMPT = f"'''{TEMPLATE}'''"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
QUESTION = {"role": "user", "content": "How warm is it in Lima?"}
NAME, SAID = {"name": "weather", "description": "Says it."}, "17 degrees, and it rains."


@pytest.fixture
def live(served, smollm2_trio, tmp_path):
    base, tuned, reference = (f"file = '{path}'\nprompt = {PROMPT}" for path in smollm2_trio)
    head = 'description = "A twin."\nlicense = "Apache-2.0"\nn_ctx = 512\n'
    roles = f"[base]\n{base}\n[delta.twin.tuned]\n{tuned}\n[delta.twin.reference]\n{reference}\n"
    return served(str(write_toml(tmp_path, head + roles)))


@pytest.mark.slow
def test_a_result_comes_to_the_model_in_the_same_words_in_all_dialects(live):
    """And what it says to it, which is that it calls the tool again, comes back alike."""
    function = {"name": "weather", "arguments": '{"city": "Lima"}'}
    calls = [{"id": "c1", "type": "function", "function": function}]
    chat = live.openai.chat.completions.create(
        model="mine",
        messages=[
            QUESTION,
            {"role": "assistant", "content": "", "tool_calls": calls},
            {"role": "tool", "tool_call_id": "c1", "content": SAID},
        ],
        tools=[{"type": "function", "function": {**NAME, "parameters": SCHEMA}}],
        temperature=0,
        max_tokens=60,
    )
    response = live.openai.responses.create(
        model="mine",
        input=[
            QUESTION,
            {"type": "function_call", "call_id": "c1", **function},
            {"type": "function_call_output", "call_id": "c1", "output": SAID},
        ],
        tools=[{"type": "function", **NAME, "parameters": SCHEMA}],
        temperature=0,
        max_output_tokens=60,
    )
    client = anthropic.Anthropic(base_url=live.url, api_key="none", max_retries=0, timeout=120)
    use = {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Lima"}}
    message = client.messages.create(
        model="mine",
        messages=[
            QUESTION,
            {"role": "assistant", "content": [use]},
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "c1", "content": SAID}],
            },
        ],
        tools=[{**NAME, "input_schema": SCHEMA}],
        max_tokens=60,
        extra_body={"temperature": 0},
    )
    counted = message.usage.input_tokens + message.usage.cache_read_input_tokens
    assert chat.usage.prompt_tokens == response.usage.input_tokens == counted
    assert message.usage.cache_read_input_tokens >= counted - 1
    call, again = chat.choices[0].message.tool_calls[0].function, response.output[-1]
    assert (call.name, call.arguments) == (again.name, again.arguments)
    assert (call.name, json.loads(call.arguments)) == (
        message.content[-1].name,
        message.content[-1].input,
    )
    assert message.stop_reason == "tool_use"
