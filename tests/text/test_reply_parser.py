"""Replies taken apart: what is content, reasoning or a call, however the text comes in pieces."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_eft.text.reply_form import ReplyForm
from edge_eft.text.reply_parser import (
    Content,
    Reasoning,
    ReplyParser,
    ToolCallArguments,
    ToolCallStart,
)

THINK = ("<think>", "</think>")
QWEN = ReplyForm(THINK, False, "hermes")
LLAMA = ReplyForm(None, False, "llama3")
NONE = ReplyForm()


def parsed(form, *chunks, tools=True, reasoning=True, in_reasoning=False):
    """All pieces, joined: [content or reasoning or (name, arguments), …]."""
    parser = ReplyParser(form, tools=tools, reasoning=reasoning, in_reasoning=in_reasoning)
    pieces = [piece for chunk in chunks for piece in parser.push(chunk)] + parser.flush()
    found = []
    for piece in pieces:
        if isinstance(piece, ToolCallStart):
            assert piece.id.startswith("call_")
            assert piece.index == sum(type(each) is tuple for each in found)
            found.append((piece.name, ""))
        elif isinstance(piece, ToolCallArguments):
            name, so_far = found[-1]
            found[-1] = (name, so_far + piece.text)
        elif found and type(found[-1]) is type(piece):
            found[-1] = type(piece)(found[-1].text + piece.text)
        else:
            found.append(piece)
    return found


def call(name, arguments="{}", key="arguments"):
    return f'<tool_call>\n{{"name": "{name}", "{key}": {arguments}}}\n</tool_call>'


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        (" Hi <b>\n", [Content(" Hi <b>\n")]),
        ("<think>\n\n</think>\n\nHi", [Content("Hi")]),
        ("\n<think>\nHm,\n so\n</think>\n\nHi\n", [Reasoning("Hm,\n so"), Content("Hi\n")]),
        ("<think>Hm </thin", [Reasoning("Hm </thin")]),
        ("Hi <think>no</think>", [Content("Hi <think>no</think>")]),
        (call("f", '{"a" : [1,\n"}"]}'), [("f", '{"a" : [1,\n"}"]}')]),
        ("<think>x</think>\n" + call("f"), [Reasoning("x"), ("f", "{}")]),
        ("<think>" + call("f") + "</think>", [Reasoning(call("f"))]),
        (
            f"Look:\n\n{call('f')}\n{call('g', '{1}')} And",
            [Content("Look:"), ("f", "{}"), ("g", "{1}"), Content("And")],
        ),
        (
            '<tool_call>{"arguments": {"a": "\\""}, "name": "f"}</tool_call>',
            [("f", '{"a": "\\""}')],
        ),
        ('<tool_call>{"id": 1, "type": "x", "name": "f"}</tool_call>', [("f", "{}")]),
        (call("f", "null"), [("f", "{}")]),
        (call("f", r'"{\"a\": 1}"'), [("f", '{"a": 1}')]),
        (call("f", '{"a": 1}', "parameters"), [("f", '{"a": 1}')]),
        ('<tool_call>{"name": "f", "arguments": {"a": 1', [("f", '{"a": 1')]),
        ('<tool_call>{"name": "f", "arguments": {}</tool_call>', [("f", "{}")]),
        ('<tool_call>{"name": "f", "arguments": {}, "x": [{}, "a"]}', [("f", "{}")]),
        (call("f") + "\n</tool_call>", [("f", "{}"), Content("</tool_call>")]),
        ("<tool_call>\n" + call("f"), [Content("<tool_call>\n"), ("f", "{}")]),
        ("a  <tool_call", [Content("a  <tool_call")]),
        *(
            (text, [Content(text)])
            for text in (
                "Use <tool_call>",
                " <tool_call>\nf(1)</tool_call> ",
                "<tool_call>[]</tool_call>",
                '<tool_call>{"name": 3}</tool_call>',
                '<tool_call>{"name": ""}</tool_call>',
                r'<tool_call>{"name": "\ud800"}</tool_call>',
                '<tool_call>{"arguments": {}}</tool_call>',
                '<tool_call>{"age": 3, "name": "f"}</tool_call>',
                '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
                '<tool_call>{"name": "f", "arguments": "x"}</tool_call>',
                '<tool_call>{"name": "f", "arguments": nil}</tool_call>',
                '<tool_call>{"id": what, "name": "f"}</tool_call>',
                '<tool_call>{"name": "f',
                '<tool_call>{"name": "f"',
            )
        ),
    ],
)
def test_replies_of_qwen(text, found):
    assert parsed(QWEN, text) == parsed(QWEN, *text) == found


OBJECT = '{"name": "f", "parameters": {"a": 1}}'


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (OBJECT, [("f", '{"a": 1}')]),
        (f"\n<|python_tag|> {OBJECT}\n", [("f", '{"a": 1}')]),
        (f"{OBJECT}; {OBJECT}\n{OBJECT}", [("f", '{"a": 1}')] * 3),
        (f"{OBJECT} Done; yes", [("f", '{"a": 1}'), Content("Done; yes")]),
        (f'{OBJECT}; {{"a": 1}}', [("f", '{"a": 1}'), Content('; {"a": 1}')]),
        *(
            (text, [Content(text)])
            for text in (
                f"So: {OBJECT}",
                '{"answer": 3}',
                '{"name": "Ada"}',
                '{"name": "Ada", "age": 3}',
                "<|python_tag|>print(1)",
                "<|pyt",
                " \n",
            )
        ),
    ],
)
def test_replies_of_llama(text, found):
    assert parsed(LLAMA, text) == parsed(LLAMA, *text) == found


def test_without_tools_calls_are_content():
    for form, text in ((QWEN, call("f")), (LLAMA, OBJECT), (NONE, call("f"))):
        assert parsed(form, text, tools=form is NONE) == [Content(text)]


def test_a_reply_that_begins_in_thoughts():
    assert parsed(QWEN, "\nHm\n</think>\n\nHi", in_reasoning=True) == [
        Reasoning("Hm"),
        Content("Hi"),
    ]
    assert parsed(QWEN, "<think>\nHm", in_reasoning=True) == [Reasoning("Hm")]


def test_thoughts_may_stay_in_the_content_with_their_marks_and_their_calls():
    text = f"<think>\n {call('f')} \n</think>\n\nHi\n"
    assert parsed(QWEN, text, reasoning=False) == [Content(text)]
    assert parsed(QWEN, text + call("f"), reasoning=False) == [
        Content(text.rstrip()),
        ("f", "{}"),
    ]


def test_only_what_may_be_a_mark_is_held_back():
    parser = ReplyParser(QWEN, tools=True, reasoning=True, in_reasoning=False)
    assert parser.push("<thi") == []
    assert parser.push("nk>\na") == [Reasoning("a")]
    assert parser.push("b <") == [Reasoning("b")]
    assert parser.push("b> </think>") == [Reasoning(" <b>")]
    assert parser.push("\nHi <to") == [Content("Hi")]
    assert parser.push("day ") == [Content(" <today")]
    assert parser.push('<tool_call>{"name": "f", "arguments"') == []
    start, arguments = parser.push(': {"a')
    assert (start.index, start.name, arguments) == (0, "f", ToolCallArguments(0, '{"a'))
    assert parser.push('": 1}') == [ToolCallArguments(0, '": 1}')]
    assert parser.push("}</tool_call>") == parser.flush() == []


@pytest.mark.parametrize("part", ["<tool_call>", "<tool_call>{", call("f")])
def test_a_long_text_is_taken_apart_in_parts(part):
    """Each mark costs a copy of what is left, and of what was handed out before it."""
    parser = ReplyParser(QWEN, tools=True, reasoning=True, in_reasoning=False)
    pieces = parser.push(part * 2_000)
    assert len(pieces) > 20
    assert all(len(piece.text) < 2_000 for piece in pieces if isinstance(piece, Content))


PARTS = st.sampled_from(
    [
        *("<think>", "</think>", "<tool_call>", "</tool_call>", "<|python_tag|>", "<", "\n", " "),
        *('{"name": "f", "arguments": ', '{"name"', ":", ",", "{", "}", '"', "\\", "[", "]", ";"),
        *('"name": "f"', '"parameters":', '"arguments":', "null", "1", "a", OBJECT, call("g")),
    ]
)
FORMS = st.sampled_from([QWEN, LLAMA, NONE, ReplyForm(THINK, True, "llama3")])


@given(st.lists(PARTS, max_size=20), FORMS, st.booleans(), st.booleans(), st.booleans(), st.data())
def test_any_chunks_give_the_same_and_nothing_is_lost(parts, form, tools, splits, inside, data):
    text = "".join(parts)
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=8).map(sorted))
    chunks = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    options = {"tools": tools, "reasoning": splits, "in_reasoning": inside}
    whole = parsed(form, text, **options)
    assert parsed(form, *chunks, **options) == parsed(form, *text, **options) == whole
    if not any(type(piece) is tuple for piece in whole):
        said = "".join(piece.text for piece in whole)
        if splits and form.reasoning:  # but the marks that were found, and the space around them
            text = text.replace("<think>", "").replace("</think>", "")
            said = said.replace("<think>", "").replace("</think>", "")
            text, said = "".join(text.split()), "".join(said.split())
        assert said == text


@given(st.text(), FORMS, st.booleans())
def test_no_text_raises(text, form, tools):
    parsed(form, text, tools=tools)
    parsed(form, f"<tool_call>{json.dumps(text)}", '{"name": "f", "arguments": {' + text)
