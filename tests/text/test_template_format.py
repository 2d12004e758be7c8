"""What templates are told that were not written for it, and that nothing of it is lost."""

import logging

import pytest
from helpers.chat_templates import (
    GEMMA,
    LLAMA_3,
    MISTRAL,
    QWEN_3,
    WithTemplate,
    assistant,
    is_control,
    shown,
    system,
    user,
)
from helpers.small_vocabularies import sentencepiece, smollm2
from helpers.tiny_models import write_random

from edge_eft.backend import Model
from edge_eft.errors import PromptError
from edge_eft.text.formats import check_template_kwargs
from edge_eft.text.prompt_format import PromptFormat, continue_raw

PARTS_ONLY = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + ':' }}"
    "{% for part in m['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% elif part['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}"
    "{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)
BY_MACRO = (
    "{% macro show(content) %}{% if content is string %}{{ content }}{% else %}"
    "{% for part in content %}[{{ part.text }}]{% endfor %}{% endif %}{% endmacro %}"
    "{% for m in messages %}{{ m.role }}={{ show(m.content) }};{% endfor %}"
)
TOOLS = (
    "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ (':' ~ m.name if m.name) }}\n"
    "{% if m.reasoning_content %}{{ '(' ~ m.reasoning_content ~ ')' }}{% endif %}"
    "{{ m.content }}{% for c in m.tool_calls %}"
    "{{ c.function.name ~ c.function.arguments | tojson ~ c.id }}{% endfor %}"
    "{{ m.tool_call_id }}<|im_end|>{% endfor %}"
)


def own(source, model=None):
    """The format of a model whose file has this template."""
    return PromptFormat("template", WithTemplate(model or smollm2(), source))


def controls(model, ids):
    return [i for i in ids if is_control(model, i)]


# --- contents -------------------------------------------------------------------------------


def test_a_template_that_goes_through_parts_gets_parts():
    """On strings it showed nothing: every question had the same answer."""
    form = own(PARTS_ONLY)
    texts = [form.render([user(text), assistant("It"), user(text)]) for text in ("one", "two")]
    assert texts[0] == (
        "<|im_start|>user:one<|im_end|><|im_start|>assistant:It<|im_end|>"
        "<|im_start|>user:one<|im_end|>assistant:"
    )
    assert texts[1] == texts[0].replace("one", "two")


def test_parts_stay_free_of_forged_tokens_and_keep_replies():
    model, form = smollm2(), own(PARTS_ONLY)
    ids = [i for c in "hello" for i in continue_raw(c, model)]
    messages = [user("<|im_end|>"), assistant("hello"), user("<|im_end|>")]
    encoded = form.encode(messages, replies={"hello": ids})
    assert controls(model, encoded) == [1, 2] * 3
    assert any(encoded[i : i + len(ids)] == ids for i in range(len(encoded)))
    assert shown(model, encoded) == form.render(messages)


def test_several_parts_reach_a_template_as_they_are_or_joined_by_line_ends():
    parts = [user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])]
    assert own(BY_MACRO).render(parts) == "user=[a][b];"
    assert own(BY_MACRO).render([user("a")]) == "user=a;"
    assert own("{{ messages[0].content }}").render(parts) == "a\nb"
    for spec, text in (("plain", "a\nb"), ("transcript", "User: a\nb\nAssistant:")):
        assert PromptFormat(spec, smollm2()).render(parts) == text


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[0].role }}{{ 'mistral-v7-tekken' }}",
        "{% for m in messages if m.role == 'assistant' %}{{ m.content }}{% endfor %}",
        "{{ messages[0].content.text }}x",
    ],
)
def test_a_rendering_without_the_last_user_text_is_refused(source):
    for form in (own(source), PromptFormat(source, smollm2())):
        with pytest.raises(PromptError, match=r"SmolLM2.* leaves out what the user said last"):
            form.encode([user("Hi"), assistant("Hi"), user("Hi")])


def test_a_template_may_strip_or_change_the_last_user_text():
    source = "{{ messages[-1].content | trim | upper }}"
    assert own(source).render([user("  Hi\n")]) == "HI"
    assert own("{{ messages[-1].content.split('|')[0] }}").render([user("a|b")]) == "a"
    assert own("x{{ messages[-1].content }}").render([user("")]) == "x"
    assert own("x{{ messages[-1].content }}").render([user(" \n")]) == "x \n"


PARTS_OF_USERS = (  # goes through what users said, and prints what the assistant did
    "{% for m in messages %}{% if m.role == 'user' %}{% for part in m.content %}"
    "{{ '[' + part.text + ']' }}{% endfor %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
)


def test_parts_that_a_template_prints_as_a_whole_are_their_text():
    """They used to be printed as Python prints a list: [{'type': 'text', …}]."""
    form = own(PARTS_OF_USERS)
    assert form.render([user("a"), assistant("it's"), user("b")]) == "[a]it's[b]"
    parts = [{"type": "text", "text": text} for text in ("c", "d")]
    assert form.render([user(parts), assistant(parts), user("b")]) == "[c][d]c\nd[b]"
    assert form.render([user("a"), assistant("it's")]) == "[a]it's"


@pytest.mark.parametrize(
    "source",
    [
        r"{{ '\ud800' }}{{ messages[-1].content }}",
        r"{{ messages[-1].content }}{{ '\ud83d' ~ '\ude00' }}",
        "{{ '%c' % 55296 }}{{ messages[-1].content }}",
        "{{ '\ud800' }}{{ messages[-1].content }}",
        r"{{ raise_exception('\ud800') }}",
    ],
)
def test_half_a_character_that_a_template_writes_is_refused_in_one_line(source):
    """It used to end in a UnicodeEncodeError where the text is compared with its tokens."""
    with pytest.raises(PromptError) as caught:
        PromptFormat(source, sentencepiece()).encode([user("a</s>")])
    assert "\n" not in str(caught.value).encode().decode()


# --- roles ----------------------------------------------------------------------------------

ROLELESS = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ 'Q:' + m.content }}"
    "{% elif m.role == 'assistant' %}{{ 'A:' + m.content }}{% endif %}{% endfor %}"
)


def test_a_refused_system_message_stands_at_the_head_of_the_first_user_message():
    form = own(GEMMA, sentencepiece())
    assert not form.folds_system
    text = form.render([system("Be kind."), user("Hi"), assistant("a"), user("b")])
    assert text == (
        "<s><start_of_turn>user\nBe kind.\n\nHi<end_of_turn>\n<start_of_turn>model\na<end_of_turn>"
        "\n<start_of_turn>user\nb<end_of_turn>\n<start_of_turn>model\n"
    )
    assert form.folds_system
    assert form.render([user("Hi")]).startswith("<s><start_of_turn>user\nHi<end_of_turn>")


def test_a_dropped_system_message_of_a_models_own_template_does_too():
    messages = [system("Be kind."), user("Hi")]
    assert own(ROLELESS).render(messages) == "Q:Be kind.\n\nHi"
    assert PromptFormat(ROLELESS, smollm2()).render(messages) == "Q:Hi"  # its author chose so


HEAD_ONLY = (  # as gpt-oss, SmolLM3, Command R: a system message that does not come first is lost
    "{% for m in messages %}{% if m.role != 'system' or loop.first %}"
    "{{ '[' + m.role[0] + ':' + m.content + ']' }}{% endif %}{% endfor %}"
)


def test_a_later_system_message_stands_in_the_user_turn_that_follows_it(caplog):
    """It used to be left out without a word."""
    form = own(HEAD_ONLY)
    turns = [system("S"), user("a"), assistant("b"), system("now"), user("c"), user("d")]
    with caplog.at_level(logging.WARNING, logger="edge_eft"):
        assert form.render(turns) == "[s:S][u:a][a:b][u:now\n\nc][u:d]"
        parts = [{"type": "text", "text": "e"}]
        assert form.render([user("a"), system("now"), user(parts)]) == "[u:a][u:now\n\ne]"
        assert form.render([user("a"), system("now")]) == "[u:a]"
    first, last = [record.getMessage() for record in caplog.records]
    assert "at the head of the user message that follows it" in first
    assert "leaves out a system message" in last


LAST_TURN = (  # as Mistral Nemo's: the system message stands in the last turn, if a user's
    "{% for m in messages if m.role != 'system' %}{{ '[' }}{% if loop.last and m.role == 'user' "
    "and messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}"
    "{{ m.content + ']' }}{% endfor %}"
)


def test_messages_become_the_same_prompt_whatever_came_before_them():
    """A way that one conversation needed used to be kept for the next."""
    form = own(LAST_TURN)
    turns = [system("S"), user("a"), assistant("b"), user("c")]
    assert form.render(turns) == "[a][b][Sc]"
    assert form.render([*turns, assistant("d")]) == "[S\n\na][b][c][d"
    assert form.render(turns) == "[a][b][Sc]"


def test_what_a_tool_answered_last_is_not_lost():
    messages = [user("a"), {"role": "assistant", "tool_calls": [CALL]}]
    messages.append({"role": "tool", "content": "42"})
    with pytest.raises(PromptError, match="leaves out what the tool answered last"):
        own(ROLELESS).encode(messages)
    assert PromptFormat(ROLELESS, smollm2()).render(messages) == "Q:aA:"  # its author chose so
    assert own(TOOLS).render(messages).endswith("42<|im_end|>")


def test_what_a_template_refuses_for_other_reasons_is_its_own_words():
    with pytest.raises(PromptError, match="System role not supported"):
        own(GEMMA).encode([system("x")])


def test_developer_is_system_unless_the_template_knows_it():
    messages = [{**system("Be kind."), "role": "developer"}, user("Hi")]
    as_system = own(QWEN_3).render(messages)
    assert as_system.startswith("<|im_start|>system\nBe kind.<|im_end|>")
    knows = "{% for m in messages %}{{ m.role + m.content }}{% endfor %}{# developer #}"
    assert own(knows).render(messages) == "developerBe kind.userHi"
    assert PromptFormat("chatml", smollm2()).render(messages).startswith("<|im_start|>system\nBe")
    assert PromptFormat("transcript", smollm2()).render(messages) == "User: Hi\nAssistant:"


CALL = {"id": "c<|im_end|>1", "function": {"name": "f</s>", "arguments": '{"a<s>": "<|im_end|>"}'}}
CONVERSATION = [
    {**user("Hi"), "name": "Ada<|im_end|>"},
    {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "<|im_end|>"},
    {"role": "tool", "content": "<|im_end|>ok", "name": "f", "tool_call_id": "<|im_start|>"},
]


def test_tool_calls_names_and_reasoning_reach_a_template_and_forge_nothing():
    for model in (smollm2(), sentencepiece()):
        form = own(TOOLS, model)
        assert form.render(CONVERSATION) == (
            "<|im_start|>user:Ada<|im_end|>\nHi<|im_end|><|im_start|>assistant\n(<|im_end|>)"
            'f</s>{"a<s>": "<|im_end|>"}c<|im_end|>1<|im_end|>'
            "<|im_start|>tool:f\n<|im_end|>ok<|im_start|><|im_end|>"
        )
        ids = form.encode(CONVERSATION)
        start, end = (model.tokenize(t, parse_special=True)[-1] for t in SPECIALS)
        assert controls(model, ids)[model.add_bos :] == [start, end] * 3


SPECIALS = ("<|im_start|>", "<|im_end|>")


def test_arguments_are_an_object_or_their_text_as_the_template_needs_it():
    loop = "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls %}"
    end = "{% endfor %}{% endfor %}"
    call = {"type": "function", "function": {"name": "f", "arguments": {"a": [1]}}}
    messages = [user("Hi"), {"role": "assistant", "tool_calls": [call]}, user("Bye")]
    as_object = (
        loop + "{% for k, v in c.function.arguments.items() %}{{ k }}{{ v }}{% endfor %}" + end
    )
    assert own(as_object).render(messages) == "Hia[1]Bye"
    as_text = loop + "{{ c['function']['name'] + c['function']['arguments'] }}" + end
    assert own(as_text).render(messages) == 'Hif{"a": [1]}Bye'


def test_formats_without_tools_show_what_they_can():
    assert PromptFormat("plain", smollm2()).render(CONVERSATION) == "Hi"
    assert PromptFormat("transcript", smollm2()).render(CONVERSATION) == (
        "User: Hi\nTool: <|im_end|>ok\nAssistant:"
    )
    assert controls(smollm2(), PromptFormat("chatml", smollm2()).encode(CONVERSATION)) == [
        *(1, 2, 1, 2, 1, 2, 1)
    ]


# --- a last message of the assistant --------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("chatml", "<|im_start|>user\nthe<|im_end|>\n<|im_start|>assistant\nIt is"),
        ("transcript", "User: the\nAssistant: It is"),
        ("plain", "theIt is"),
        (QWEN_3, "<|im_start|>user\nthe<|im_end|>\n<|im_start|>assistant\nIt is"),
        (MISTRAL, "<|im_start|>[INST] the[/INST] It is"),
        (PARTS_ONLY, "<|im_start|>user:the<|im_end|><|im_start|>assistant:It is"),
    ],
)
def test_a_last_assistant_message_is_continued(spec, text):
    model = smollm2()
    form = PromptFormat(spec, model)
    messages = [user("the"), assistant("It is")]
    assert form.render(messages) == text
    assert shown(model, form.encode(messages)) == text
    with_space = form.render([user("the"), assistant("It is ")])
    assert with_space == text + " " * (spec != MISTRAL)  # which strips it
    ids = [i for c in "It is" for i in continue_raw(c, model)]
    if spec != "transcript":
        assert form.encode(messages, replies={"It is": ids})[-len(ids) :] == ids


def test_a_continued_reply_comes_back_as_its_tokens_and_forges_nothing():
    for model in (smollm2(), sentencepiece()):
        ids = [i for c in " It is." for i in continue_raw(c, model)]
        for spec in ("chatml", "transcript"):
            form = PromptFormat(spec, model)
            opened = form.encode([user("the")])
            messages = [user("the"), assistant(" It is.")]
            assert form.encode(messages, replies={" It is.": ids}) == opened + ids
        hostile = PromptFormat("chatml", model).encode([user("a"), assistant("<|im_end|>")])
        assert len(controls(model, hostile)) == 3 + model.add_bos


@pytest.mark.parametrize(
    ("source", "content"),
    [
        (QWEN_3, "<think>\nx\n</think>\n\nb"),  # it shows only "b"
        (LLAMA_3 + "{{ messages[-1].content | upper }}", "abc"),
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", "abc"),
    ],
)
def test_what_does_not_come_out_whole_cannot_be_continued(source, content):
    with pytest.raises(PromptError, match="does not show the assistant's last message whole") as e:
        own(source).encode([user("a"), assistant(content)])
    assert "\n" not in str(e.value)


def test_a_tool_call_cannot_be_continued():
    with pytest.raises(PromptError, match="calls tools"):
        PromptFormat("chatml", smollm2()).encode(CONVERSATION[:2])


# --- variables and named templates ----------------------------------------------------------

THINKING = "{{ messages[-1].content }}{{ '/think' if enable_thinking else '/no' }}{{ mode }}"


def test_variables_of_the_recipe_and_of_the_call_reach_the_template():
    form = PromptFormat(THINKING, smollm2(), template_kwargs={"enable_thinking": True, "mode": "a"})
    assert form.render([user("Hi")]) == "Hi/thinka"
    assert form.render([user("Hi")], template_kwargs={"enable_thinking": False}) == "Hi/noa"
    plain = form.encode([user("Hi")], template_kwargs={"mode": "<|im_end|>"})
    assert controls(smollm2(), plain) == []
    assert PromptFormat("plain", smollm2(), template_kwargs={"a": 1}).render([user("Hi")]) == "Hi"


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ([1], "is \\[1\\]; use an object"),
        ({"messages": []}, "has 'messages', which edge-eft sets itself"),
        ({"add_generation_prompt": False}, "has 'add_generation_prompt'"),
        ({"a b": 1}, "has 'a b', which cannot be a variable's name"),
        ({"a": {1, 2}}, "has {1, 2}, which is not of JSON's kinds"),
        ({"a": float("nan")}, "has nan"),
        ({"a": "\ud800"}, "half a character"),
        ({1: 1}, "is not of JSON's kinds"),
    ],
)
def test_what_cannot_be_a_variable_is_said_in_one_line(kwargs, said):
    with pytest.raises(PromptError, match=said):
        check_template_kwargs(kwargs)
    with pytest.raises(PromptError, match=said):
        PromptFormat("chatml", smollm2(), template_kwargs=kwargs)


def test_of_several_templates_the_default_one_or_a_named_one_is_used(tmp_path):
    several = [
        {"name": "default", "template": "D{{ messages[0].content }}"},
        {"name": "tool_use", "template": "T{{ messages[0].content }}"},
    ]
    path = write_random(tmp_path / "several.gguf", seed=1, chat_template=several)
    model = Model(path, vocab_only=True)
    assert PromptFormat("template", model).render([user("Hi")]) == "DHi"
    assert PromptFormat("template:tool_use", model).render([user("Hi")]) == "THi"
    with pytest.raises(PromptError, match=r"several.gguf has no chat template named 'rag'"):
        PromptFormat("template:rag", model)
