"""The form of replies, read from published templates and rendered prompts."""

import json

import pytest
from helpers import reference_templates as reference
from helpers.chat_templates import WithTemplate, assistant, system, user
from helpers.small_vocabularies import smollm2

from edge_eft.text.prompt_format import PromptFormat
from edge_eft.text.reply_form import ReplyForm, reply_form

TEMPLATES = reference.templates()
THINK = ("<think>", "</think>")
KNOWN = {
    "deepseek-r1": (THINK, None),
    "granite-3.3": (THINK, None),
    "hermes-3": (None, "hermes"),
    "llama-3.1": (None, "llama3"),
    "qwen2.5": (None, "hermes"),
    "qwen3": (THINK, "hermes"),
    "smollm3": (THINK, None),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_forms_of_published_templates(name):
    form = reply_form(TEMPLATES[name], ())
    assert (form.reasoning, form.tool_calls) == KNOWN.get(name, (None, None))
    assert ReplyForm.from_dict(json.loads(json.dumps(form.to_dict()))) == form


@pytest.mark.parametrize(
    ("source", "form"),
    [
        ("", ReplyForm()),
        ("[THINK]{{ x }}[/THINK]", ReplyForm(("[THINK]", "[/THINK]"), controls=("[/THINK]",))),
        (
            "{{ '<|START_THINKING|>' + x + '<|END_THINKING|>' }}",
            ReplyForm(("<|START_THINKING|>", "<|END_THINKING|>")),
        ),
        ("{# <think></think> #}<tool_call>", ReplyForm()),
        ("<tool_call><function={{ x }}></tool_call> 'arguments'", ReplyForm()),
        ("<tool_call>{{ x }}<arg_key></tool_call> 'arguments'", ReplyForm()),
        (
            '{"name": function name, "parameters": dictionary}',
            ReplyForm(tool_calls="llama3", controls=("<|python_tag|>",)),
        ),
    ],
)
def test_the_forms_of_others_and_which_marks_print_nothing(source, form):
    assert reply_form(source, {"[/THINK]", "<|python_tag|>", "<s>"}) == form


@pytest.mark.parametrize(
    ("name", "messages", "variables", "opens"),
    [
        ("deepseek-r1", [user("Hi")], {"enable_thinking": True}, True),
        ("deepseek-r1", [user("Hi")], {"enable_thinking": False}, False),
        ("qwen3", [user("Hi")], {}, False),
        ("qwen3", [user("<think>")], {"enable_thinking": False}, False),
        ("smollm3", [system("/no_think"), user("Hi")], {}, False),
        ("openhermes-chatml", [user("<think>")], {}, False),
        ("qwen3", [user("Hi"), assistant("<think>\nHm")], {}, True),
        ("qwen3", [user("Hi"), assistant("<think>\nHm\n</think>\n\nSo")], {}, False),
        ("qwen3", [user("<think>"), assistant("So")], {}, False),
    ],
)
def test_whether_the_prompt_ends_in_thoughts(name, messages, variables, opens):
    form = PromptFormat("template", WithTemplate(smollm2(), TEMPLATES[name]))
    last = messages[-1]
    continued = last["content"] if last["role"] == "assistant" else ""
    prompt = form.render(messages, template_kwargs=variables)
    found = form.reply_form.after(prompt, continued)
    assert found.opens_reasoning is opens
    assert found.reasoning == form.reply_form.reasoning


def test_a_reply_that_must_call_a_tool_has_a_form():
    assert ReplyForm().calling().tool_calls == "hermes"
    assert ReplyForm(tool_calls="llama3").calling().tool_calls == "llama3"
