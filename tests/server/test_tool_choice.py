"""What a reply is held to that must call a tool."""

import pytest

from edge_eft.engine.constraint import Constraint
from edge_eft.errors import RequestError
from edge_eft.server.tool_choice import tool_constraint
from edge_eft.text.reply_form import ReplyForm
from edge_eft.text.tools import check_tools

CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
NODE = {
    "properties": {"node": {"$ref": "#/$defs/node"}},
    "$defs": {"node": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}},
}
TOOLS = check_tools(
    [
        {"type": "function", "function": {"name": name, "parameters": parameters}}
        for name, parameters in (("f", CITY), ("g", NODE), ("h", None))
    ]
)


def called(name, parameters, key="arguments"):
    return {
        "type": "object",
        "properties": {"name": {"const": name}, key: parameters},
        "required": ["name", key],
        "additionalProperties": False,
    }


def named(name):
    return {"type": "function", "function": {"name": name}}


def test_a_named_function_is_the_only_one():
    for form in (ReplyForm(tool_calls="hermes"), ReplyForm()):
        held = tool_constraint(form, TOOLS, named("f"))
        assert held.json_schema == called("f", CITY)
        assert (held.before, held.after) == ("<tool_call>\n", "\n</tool_call>")
    held = tool_constraint(ReplyForm(tool_calls="llama3"), TOOLS, named("f"))
    assert held == Constraint(json_schema=called("f", CITY, "parameters"))
    held = tool_constraint(ReplyForm(), TOOLS, named("h"))
    assert held.json_schema == called("h", {"type": "object"})


def test_required_is_any_of_them_and_references_still_lead_somewhere():
    schema = tool_constraint(ReplyForm(), TOOLS, "required").json_schema
    node = {
        "type": "object",
        "properties": {"node": {"$ref": "#/$defs/arguments_1/$defs/node"}},
        "$defs": {"node": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/arguments_1"}]}},
    }
    assert schema == {
        "anyOf": [called("f", CITY), called("g", node), called("h", {"type": "object"})],
        "$defs": {"arguments_1": node},
    }


def test_reasoning_that_the_prompt_opened_is_closed_first():
    form = ReplyForm(("<think>", "</think>"), True, "hermes")
    assert tool_constraint(form, TOOLS, "required").before == "</think>\n\n<tool_call>\n"


@pytest.mark.parametrize("choice", ["auto", 3, {"type": "function"}, named("x"), named(3)])
def test_other_choices_are_refused(choice):
    with pytest.raises(RequestError, match="tool_choice"):
        tool_constraint(ReplyForm(), TOOLS, choice)
    with pytest.raises(RequestError, match="needs tools"):
        tool_constraint(ReplyForm(), [], "required")
