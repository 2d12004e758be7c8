"""Messages → token ids: published templates, built-in formats, replies, and no forged tokens."""

import hashlib

import pytest
from helpers.chat_templates import (
    BENIGN,
    GEMMA,
    LLAMA_2,
    LLAMA_3,
    MISTRAL,
    QWEN_3,
    WithTemplate,
    assistant,
    few,
    shown,
    system,
    user,
)
from helpers.small_vocabularies import sentencepiece, smollm2
from hypothesis import given
from hypothesis import strategies as st

from edge_eft.errors import PromptError
from edge_eft.text.formats import check_format
from edge_eft.text.messages import check_messages
from edge_eft.text.prompt_format import PromptFormat, continue_raw

# --- what a template makes of messages ------------------------------------------------------

HI = [user("Hi "), assistant(" Hello."), user("Bye")]
CHATML_HI = (
    "<|im_start|>user\nHi <|im_end|>\n<|im_start|>assistant\n Hello.<|im_end|>\n"
    "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
)


@pytest.mark.parametrize(
    ("template", "messages", "text"),
    [
        ("chatml", HI, CHATML_HI),
        ("plain", HI, "Bye"),
        (
            "transcript",
            [system("Be kind."), user("Hi "), assistant("Hello."), user("Bye")],
            "User: Hi \nAssistant: Hello.\nUser: Bye\nAssistant:",
        ),
        (QWEN_3, HI, CHATML_HI),
        (
            QWEN_3,
            [user("a"), assistant("<think>\nx\n</think>\n\nb"), user("c")],
            "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
            "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            LLAMA_2,
            [system("Be kind."), *HI],
            "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi [/INST] Hello. </s><s>[INST] Bye [/INST]",
        ),
        (
            LLAMA_3,
            HI,
            "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        (
            GEMMA,
            HI,
            "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello.<end_of_turn>\n"
            "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n",
        ),
        (
            MISTRAL,
            [system("Be kind."), *HI],
            "<s>[INST] Hi [/INST] Hello.</s>[INST] Be kind.\n\nBye[/INST]",
        ),
    ],
)
def test_formats_render_what_their_authors_meant(template, messages, text):
    assert PromptFormat(template, sentencepiece()).render(messages) == text


def test_smollm2s_own_template_puts_its_system_message_first():
    own = PromptFormat("template", smollm2())
    assert own.render([user("Hi")]) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert own.template_hash == hashlib.sha256(smollm2().chat_template.encode()).hexdigest()


def test_what_a_template_refuses_is_said_in_one_line():
    refusing = (
        "{{ raise_exception('No\n" + "tools') if messages[-1].role == 'tool' }}{{ messages }}"
    )
    with pytest.raises(PromptError, match="refuses these messages: No tools") as e:
        PromptFormat(refusing, sentencepiece()).encode([user("y"), {**user("x"), "role": "tool"}])
    assert "\n" not in str(e.value)


def test_a_model_without_template_is_named():
    with pytest.raises(PromptError, match=r'sentencepiece.gguf has no .* prompt = "chatml"'):
        PromptFormat("template", sentencepiece())


def test_half_characters_in_a_format_are_refused():
    for spec in ("{{ messages }}\ud800", "template:\ud800"):
        with pytest.raises(PromptError, match="prompt has half a character"):
            PromptFormat(spec, smollm2())


@pytest.mark.parametrize("spec", ["chat", "", 3, None])
def test_unknown_formats_are_refused_with_the_choices(spec):
    with pytest.raises(
        PromptError, match="template, chatml, plain, transcript, template:NAME, or a Jinja"
    ):
        check_format(spec)


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "no messages"),
        (["hi"], "message 0 is 'hi'"),
        ([user("a"), {"role": "robot", "content": "b"}], "message 1 has the role 'robot'"),
        ([user(None)], "message 0 has the content None"),
        ([{"role": "user"}], "message 0 has the content None"),
        ([user([{"type": "image_url"}])], "message 0 has the part"),
        ([user("a\ud800")], "message 0 has half a character"),
        ([{**user("a"), "refusal": "no"}], "message 0 has 'refusal'"),
        ([{**user("a"), "tool_calls": [{}]}], "message 0 of role user has tool_calls"),
        ([{**assistant("a"), "tool_calls": {"name": "f"}}], "message 0 has the tool_calls"),
        ([{**assistant("a"), "tool_calls": [{"name": 1}]}], "message 0 has the tool call"),
        ([{**assistant("a"), "name": 1}], "message 0 has the name 1"),
        (
            [{**assistant("a"), "tool_calls": [{"name": "f", "arguments": [1]}]}],
            "message 0 calls a tool with",
        ),
        (
            [{**assistant("a"), "tool_calls": [{"name": "f", "arguments": {"x": {1, 2}}}]}],
            "a tool call of message 0 has",
        ),
    ],
)
def test_what_is_not_a_message_is_named_with_its_place(messages, said):
    with pytest.raises(PromptError, match=said):
        check_messages(messages)


def test_text_parts_are_joined_and_empty_extras_ignored():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert check_messages([{**user(parts), "name": None}]) == [user("a\nb")]


def test_plain_needs_a_user_message():
    with pytest.raises(PromptError, match="no user message"):
        PromptFormat("plain", sentencepiece()).encode([assistant("a")])


def test_an_empty_prompt_is_refused_where_no_bos_makes_up_for_it():
    with pytest.raises(PromptError, match="empty"):
        PromptFormat("plain", smollm2()).encode([user("")])
    assert PromptFormat("plain", sentencepiece()).encode([user("")]) == [1]


# --- replies --------------------------------------------------------------------------------


def odd_ids(model, text):
    """Ids of a text that no tokenizer would choose: one per character."""
    return [i for c in text for i in continue_raw(c, model)]


def contains(ids, part):
    return any(ids[i : i + len(part)] == part for i in range(len(ids)))


@pytest.mark.parametrize("reply", ["It is the hello.", " It is.", "\nIt\n", "the"])
@pytest.mark.parametrize("spec", ["chatml", "transcript"])
@pytest.mark.parametrize("make", [smollm2, sentencepiece])
def test_a_second_turn_begins_with_all_tokens_of_the_first(make, spec, reply):
    model = make()
    form = PromptFormat(spec, model)
    ids = odd_ids(model, reply)
    first = form.encode([user("the")])
    second = form.encode([user("the"), assistant(reply), user("a")], replies={reply: ids})
    stripped = form.encode([user("the"), assistant(reply.strip()), user("a")], replies={reply: ids})
    assert second[: len(first) + len(ids)] == first + ids
    assert stripped == second
    third = [user("the"), assistant(reply), user("a"), assistant(reply), user("u")]
    assert form.encode(third, replies={reply: ids})[: len(second)] == second


def test_llama_2s_template_keeps_a_reply_with_its_leading_space():
    model = sentencepiece()
    form = PromptFormat(LLAMA_2, model)
    ids = odd_ids(model, " It is.")
    first = form.encode([user("the")])
    second = form.encode([user("the"), assistant("It is."), user("a")], replies={" It is.": ids})
    assert second[: len(first) + len(ids)] == first + ids
    # What follows the reply is " </s>": the space is there once, and none is invented.
    assert shown(model, second[len(first) + len(ids) :]).startswith(" </s><s>")


def test_a_reply_whose_space_the_template_strips_is_tokenised_again():
    model = smollm2()
    form = PromptFormat(LLAMA_3, model)
    messages = [user("a"), assistant(" It is."), user("a")]
    ids = odd_ids(model, " It is.")
    assert shown(model, form.encode(messages, replies={" It is.": ids})) == form.render(messages)


def test_an_edited_reply_is_tokenised_again():
    model = smollm2()
    ids = odd_ids(model, "It is the hello.")
    form = PromptFormat("chatml", model)
    edited = [user("a"), assistant("It is the hello!"), user("a")]
    assert form.encode(edited, replies={"It is the hello.": ids}) == form.encode(edited)


def test_a_reply_with_a_control_token_or_other_text_is_tokenised_again():
    model = smollm2()
    form = PromptFormat("chatml", model)
    messages = [user("a"), assistant("hello"), user("a")]
    for ids in ([*model.tokenize("hello"), 1], model.tokenize("hell")):
        assert form.encode(messages, replies={"hello": ids}) == form.encode(messages)


def test_words_of_a_user_that_equal_a_reply_are_not_given_the_replys_tokens():
    model = smollm2()
    ids = odd_ids(model, "hello")
    messages = [user("hello"), assistant("hello"), user("hello hello")]
    assert not contains(PromptFormat("plain", model).encode(messages, replies={"hello": ids}), ids)
    encoded = PromptFormat("chatml", model).encode(messages, replies={"hello": ids})
    assert sum(encoded[i : i + len(ids)] == ids for i in range(len(encoded))) == 1


@few
@given(st.lists(st.tuples(BENIGN, BENIGN), min_size=1, max_size=3), BENIGN)
def test_spliced_prompts_print_what_was_rendered(turns, last):
    by_core = {reply.strip(): reply for _, reply in turns}  # of equal ones the last is known
    messages = [m for u, reply in turns for m in (user(u), assistant(by_core[reply.strip()]))]
    messages.append(user(last))
    for model in (smollm2(), sentencepiece(add_space_prefix=False)):
        form = PromptFormat("chatml", model)
        replies = {reply: odd_ids(model, reply) for reply in by_core.values()}
        ids = form.encode(messages, replies=replies)
        assert shown(model, ids) == "<s>" * model.add_bos + form.render(messages)
        assert all(contains(ids, part) for reply, part in replies.items() if reply.strip())


def test_formats_that_are_jinja_have_a_hash():
    model = smollm2()
    assert PromptFormat("plain", model).template_hash is None
    assert PromptFormat("transcript", model).template_hash is None
    inline = "{{ messages[0].content }}"
    digest = hashlib.sha256(inline.encode()).hexdigest()
    assert PromptFormat(inline, model).template_hash == digest
    assert PromptFormat("template", WithTemplate(model, inline)).template_hash == digest
