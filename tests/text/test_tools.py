"""Definitions of tools: what is one, who is told of them, and that none forges a token."""

import json

import pytest
from helpers.chat_templates import WithTemplate, is_control, user
from helpers.small_vocabularies import sentencepiece, smollm2

from edge_eft.errors import PromptError
from edge_eft.text.prompt_format import PromptFormat
from edge_eft.text.tools import changed_tools, check_tools

SCHEMA = {
    "type": "object",
    "properties": {
        "type": {"type": "string", "enum": ["type"]},
        "s": {"anyOf": [{"type": ["null", "odd"]}, {"$ref": "#/$defs/name"}]},
    },
    "required": ["type"],
    "$defs": {"name": {"items": {"description": "items"}, "additionalProperties": False}},
}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA}}


def test_tools_are_copied_and_what_is_none_is_left_out():
    function = {**TOOL["function"], "strict": None, "description": None}
    (copy,) = check_tools([{"type": "function", "function": function}])
    assert copy == {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
    assert copy["function"]["parameters"]["properties"] is not SCHEMA["properties"]


DEEP = json.loads("[" * 40 + "]" * 40)


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        (TOOL, r"tools is .* use a list"),
        ("x", r"tools is 'x'; use a list"),
        ([3], r"tool 0 is 3; use \{"),
        ([TOOL, {"type": "web_search"}], "tool 1 is"),
        ([{**TOOL, "type": "custom"}], "tool 0 is"),
        ([{"type": "function", "function": {}}], "tool 0 has the name None"),
        ([{"type": "function", "function": {"name": "<|im_end|>"}}], "has the name .*letters"),
        ([{"type": "function", "function": {"name": "f" * 129}}], "up to 128"),
        (
            [{"type": "function", "function": {"name": "f", "description": 3}}],
            r"tool 0 \(f\) has the description 3; use a string",
        ),
        (
            [{"type": "function", "function": {"name": "f", "parameters": []}}],
            r"tool 0 \(f\) has the parameters \[\]; use a JSON schema",
        ),
        ([{**TOOL, "x": DEEP}], r"tool 0 \(f\) is nested more than 32 deep"),
        ([{**TOOL, "x": "\ud800"}], "half a character"),
        ([{**TOOL, "x": {1}}], "not of JSON's kinds"),
    ],
)
def test_what_is_not_a_tool_is_said_in_one_line(tools, said):
    with pytest.raises(PromptError, match=said) as e:
        check_tools(tools)
    assert "\n" not in str(e.value)


def test_all_texts_change_but_the_words_of_the_form_in_their_places():
    (changed,) = changed_tools([{**TOOL, "type ": "function"}], lambda text: text.upper() + "!")
    assert changed == {
        "type": "function",
        "TYPE !": "FUNCTION!",
        "function": {
            "name": "F!",
            "description": "D!",
            "parameters": {
                "type": "object",
                "properties": {
                    "TYPE!": {"type": "string", "enum": ["TYPE!"]},
                    "S!": {"anyOf": [{"type": ["null", "ODD!"]}, {"$ref": "#/$DEFS/NAME!"}]},
                },
                "required": ["TYPE!"],
                "$defs": {
                    "NAME!": {"items": {"description": "ITEMS!"}, "additionalProperties": False}
                },
            },
        },
    }


def test_only_a_template_that_reads_tools_is_told_of_them():
    for spec in ("chatml", "plain", "transcript", "{{ messages[0].content }}"):
        form = PromptFormat(spec, smollm2())
        assert not form.reads("tools")
        assert form.encode([user("Hi")], tools=[TOOL]) == form.encode([user("Hi")])
    form = PromptFormat("{{ tools is none }}{{ messages[0].content }}", smollm2())
    assert form.render([user("Hi")], tools=[TOOL]) == "FalseHi"
    assert form.render([user("Hi")]) == "TrueHi"


def test_a_template_that_puts_keys_between_brackets_makes_no_token_of_them():
    """As some templates write parameters: a key `s` became the token <s>."""
    form = PromptFormat(
        "template",
        WithTemplate(
            sentencepiece(),
            "{% for k in tools[0].function.parameters.properties %}<{{ k }}>"
            "{% endfor %}{{ messages[0].content }}",
        ),
    )
    assert form.render([user("Hi")], tools=[TOOL]) == "<type><s>Hi"
    model = sentencepiece()
    ids = form.encode([user("Hi")], tools=[TOOL])
    assert [i for i in ids if is_control(model, i)] == [model.bos_token]
