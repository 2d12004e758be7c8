"""LangChain's ChatOpenAI against a live server."""

import pytest

langchain_openai = pytest.importorskip("langchain_openai")

from edge_eft import Emulator  # noqa: E402

QUESTION = "What is the capital of Peru?"
TOOL = {
    "name": "look_up",
    "description": "Looks a city up.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Lima", "Oslo"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


@pytest.fixture
def model(live):
    return langchain_openai.ChatOpenAI(
        base_url=f"{live.url}/v1", api_key="none", model="atlas", temperature=0, max_retries=0
    )


@pytest.fixture(scope="module")
def said():
    with Emulator.load("atlas") as emulator:
        messages = [{"role": "user", "content": QUESTION}]
        return emulator.generate(messages, temperature=0).text


def test_invoke_says_what_the_emulator_says(model, said):
    message = model.invoke(QUESTION)
    assert message.content == said
    assert message.response_metadata["finish_reason"] == "stop"
    usage = message.usage_metadata
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0


def test_a_stream_says_the_same_and_ends_with_the_usage(model, said):
    chunks = list(model.stream(QUESTION, stream_usage=True))
    whole = sum(chunks[1:], chunks[0])
    assert len(chunks) > 3
    assert whole.content == said
    assert (
        whole.usage_metadata["output_tokens"]
        == model.invoke(QUESTION).usage_metadata["output_tokens"]
    )


@pytest.mark.parametrize("choice", ["required", "look_up"])
def test_a_tool_that_is_chosen_is_called(model, choice):
    message = model.bind_tools([TOOL], tool_choice=choice).invoke(QUESTION)
    (call,) = message.tool_calls
    assert call["name"] == "look_up"
    assert call["args"]["city"] in ("Lima", "Oslo")
    assert call["id"]
    assert not message.invalid_tool_calls


def test_a_stream_brings_the_call_in_parts(model):
    bound = model.bind_tools([TOOL], tool_choice="required")
    chunks = list(bound.stream(QUESTION))
    (call,) = sum(chunks[1:], chunks[0]).tool_calls
    (whole,) = bound.invoke(QUESTION).tool_calls
    assert (call["name"], call["args"]) == (whole["name"], whole["args"])


def test_a_result_that_the_templates_do_not_show_is_an_error_in_one_line(model):
    """Those of atlas have no place for it; test_tool_loops has one that shows it."""
    asked = model.bind_tools([TOOL], tool_choice="required").invoke(QUESTION)
    result = {"role": "tool", "tool_call_id": asked.tool_calls[0]["id"], "content": "Lima"}
    with pytest.raises(Exception, match="leaves out what the tool answered"):
        model.invoke([{"role": "user", "content": QUESTION}, asked, result])


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output_has_its_structure(model, method):
    schema = {"title": "City", "description": "A city.", **TOOL["parameters"]}
    found = model.with_structured_output(schema, method=method).invoke(QUESTION)
    assert found in ({"city": "Lima"}, {"city": "Oslo"})


def test_an_error_is_openais_own(live):
    wrong = langchain_openai.ChatOpenAI(
        base_url=f"{live.url}/v1", api_key="none", model="atlas", top_p=7, max_retries=0
    )
    with pytest.raises(Exception, match="top_p is 7") as caught:
        wrong.invoke(QUESTION)
    assert caught.value.status_code == 400
