"""Chats: a later turn decodes only what is new, in every role, whatever its prompt format."""

import numpy as np
import pytest
from helpers.emulator_tools import GREEDY, UNDRAFTED, decoded, decoded_since, open_emulator
from helpers.families import ATLAS, twin
from helpers.tiny_models import BOS, EOS, ID, script, write_script

from edge_eft import Emulator, Request, Weights
from edge_eft.errors import RequestError

pytestmark = pytest.mark.timeout(60)

QUESTIONS = ("the red one", "and the blue", "is it green", "one two three")
OPTIONS = GREEDY | UNDRAFTED | {"max_tokens": 9}


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def recipe(folder, family, base="transcript", tuned="template", reference="transcript"):
    path = folder / f"{base}-{tuned}-{reference}.toml"
    path.write_text(
        f"""
        [base]
        file = '{family.base}'
        prompt = '{base}'
        [delta.chat]
        tuned = {{ file = '{family.tuned}', prompt = '{tuned}' }}
        reference = {{ file = '{family.reference}', prompt = '{reference}' }}
        """
    )
    return path


@pytest.fixture(params=[("transcript", "template", "transcript"), ("template",) * 3])
def chat(request, tmp_path, tiny):
    path = recipe(tmp_path, tiny, *request.param)
    with Emulator.load(path, n_ctx=400, n_threads=1) as emulator:
        yield emulator


def new_tokens(emulator, question):
    """context → tokens of a further turn: the reply's end, the question, the scaffold around it."""
    counts = {}
    for runner in emulator.contexts:
        if runner.prompt.spec == "transcript":
            text, end = f"\nUser: {question}\nAssistant:", 0
        else:
            text, end = f"[user]{question}[assistant]", 1
        counts[runner.name] = end + len(runner.model.tokenize(text))
    return counts


def test_further_turns_decode_only_what_is_new(chat):
    messages = []
    for turn, question in enumerate(QUESTIONS):
        messages.append(user(question))
        before = decoded(chat)
        generation = chat.generate(messages, **OPTIONS)
        assert generation.finish_reason == "length"
        reply = len(generation.tokens)
        if turn:
            # The last token of a reply that max_tokens ends was not decoded with it.
            expected = {name: n + 1 for name, n in new_tokens(chat, question).items()}
            # The last token of this reply is not decoded either.
            assert decoded_since(chat, before) == {
                name: n + reply - 1 for name, n in expected.items()
            }
        messages.append(assistant(generation.text))


def test_after_a_reply_that_ended_by_itself_the_end_token_is_decoded_too(folder, tmp_path):
    """Its tokens are all decoded: the next turn begins with the end token."""
    one, two = ID["▁one"], ID["▁two"]
    # Whatever the prompt ends with leads to "one two" and the end.
    path = write_script(folder / "chatty.gguf", script([BOS, one, two, EOS], otherwise=one))
    for formats in (("transcript", "template", "transcript"), ("template",) * 3):
        family = type("F", (), {"base": path, "tuned": twin(path), "reference": path})
        with Emulator.load(recipe(tmp_path, family, *formats), n_ctx=200, n_threads=1) as chat:
            messages = [user("is it")]
            first = chat.generate(messages, **OPTIONS)
            assert (first.text, first.finish_reason) == (" one two", "stop")
            before = decoded(chat)
            messages += [assistant(first.text), user("and")]
            second = chat.generate(messages, **OPTIONS)
            assert second.text == " one two"
            expected = {name: n + 2 for name, n in new_tokens(chat, "and").items()}
            assert decoded_since(chat, before) == expected


@pytest.mark.parametrize("n_seen", [1, 4])
def test_after_a_cancelled_reply_only_what_was_unseen_is_decoded(chat, n_seen):
    messages = [user(QUESTIONS[0])]
    stream = chat.stream(messages, **OPTIONS)
    seen = "".join(next(stream).text for _ in range(n_seen))
    stream.close()
    before = decoded(chat)
    messages += [assistant(seen), user(QUESTIONS[1])]
    reply = chat.generate(messages, **OPTIONS)
    for name, n in decoded_since(chat, before).items():
        assert n <= new_tokens(chat, QUESTIONS[1])[name] + 1 + len(reply.tokens) - 1


@pytest.mark.parametrize("n_seen", range(2, 9))
def test_after_a_cancelled_drafted_reply_only_what_was_unseen_is_decoded(
    tmp_path, agreeing, n_seen
):
    """What the reader has seen is the reply, not what was accepted behind it."""
    path = recipe(tmp_path, agreeing, *(["transcript"] * 3))
    messages = [user(QUESTIONS[0])]
    options = OPTIONS | {"draft": 4, "max_tokens": 30, "weights": Weights.upscale(0.1)}
    with Emulator.load(path, n_ctx=400, n_threads=1) as chat:
        stream = chat.stream(messages, **options)
        seen = "".join(next(stream).text for _ in range(n_seen))
        stream.close()
        before = decoded(chat)
        messages += [assistant(seen), user(QUESTIONS[1])]
        chat.generate(messages, **OPTIONS | {"max_tokens": 1})
        for name, n in decoded_since(chat, before).items():
            assert n <= new_tokens(chat, QUESTIONS[1])[name] + 1


def test_an_edited_reply_gets_the_reply_of_a_new_emulator(chat, tmp_path, tiny):
    messages = [user(QUESTIONS[0])]
    first = chat.generate(messages, **OPTIONS)
    edited = [*messages, assistant(first.text + " of the test"), user(QUESTIONS[1])]
    reply = chat.generate(edited, **OPTIONS)
    with Emulator.load(chat.recipe.path, n_ctx=400, n_threads=1) as other:
        assert reply.tokens == other.generate(edited, **OPTIONS).tokens


def test_regenerating_decodes_one_token(chat):
    messages = [user(QUESTIONS[0])]
    chat.generate(messages, **OPTIONS)
    before = decoded(chat)
    chat.generate(messages, **OPTIONS | {"max_tokens": 1})
    assert set(decoded_since(chat, before).values()) == {1}


def test_prompt_tokens_are_those_of_the_prompt(chat):
    """Also if the reply makes a message of its own prompt a known reply."""
    messages = [user("the"), assistant(" one"), user("it")]
    expected = len(chat.contexts[0].prompt.encode(messages))
    assert chat.generate(messages, **OPTIONS).prompt_tokens == expected


def test_prompt_tokens_do_not_change_with_the_reply(folder, tmp_path):
    """The prompt was counted anew after the reply, with the reply's ids spliced in."""
    # The reply " one two" in other tokens than the tokenizer's.
    pieces = [ID[piece] for piece in ("▁", "o", "n", "e", "▁two")]
    path = write_script(folder / "spelt.gguf", script([*pieces, EOS], otherwise=pieces[0]))
    family = type("F", (), {"base": path, "tuned": twin(path), "reference": path})
    with Emulator.load(recipe(tmp_path, family), n_ctx=200, n_threads=1) as chat:
        # "?" leads to the reply; so does whatever else ends a prompt.
        messages = [user("?"), assistant(" one two"), user("?")]
        expected = len(chat.contexts[0].prompt.encode(messages))
        generation = chat.generate(messages, **OPTIONS)
        assert generation.text == " one two"
        assert generation.prompt_tokens == expected


def test_a_raw_prompt_goes_to_all_roles_alike(chat):
    chat.submit(Request("User: </s>[user] the", **OPTIONS))
    chat.step()
    held = [runner.context.tokens(0) for runner in chat.contexts]
    assert np.array_equal(held[0], held[1])
    assert np.array_equal(held[0], held[2])
    assert held[0][0] == BOS
    assert EOS not in held[0]


def test_two_chats_in_two_slots_keep_their_prefixes(tiny):
    with open_emulator(tiny, n_slots=2) as emulator:
        chats = [[user("the red one")], [user("it is in the test")]]
        for turn in range(3):
            for messages in chats:
                before = decoded(emulator)
                generation = emulator.generate(messages, **OPTIONS)
                if turn:
                    # The tuned side has a template and sees the whole chat; base and reference
                    # have "plain" and see the last question only.
                    new = len(emulator.contexts[1].model.tokenize("[user]and[assistant]")) + 2
                    n = decoded_since(emulator, before)["tuned:tuned"]
                    assert n == new + len(generation.tokens) - 1
                messages += [assistant(generation.text), user("and")]


@pytest.mark.parametrize("stated", [False, True])
def test_variables_of_a_request_go_over_the_recipes(tmp_path, tiny, stated):
    template = "[user]{{ messages[0].content }}{{ ' the' if thinks }}[assistant]"
    path = recipe(tmp_path, tiny, base="plain", reference="plain")
    told = f'"{template}"' + ", template_kwargs = { thinks = true }" * stated
    path.write_text(path.read_text().replace("'template'", told))
    with Emulator.load(path, n_ctx=100, n_threads=1) as emulator:
        lengths = []
        for kwargs in ({"thinks": False} if stated else {}, {} if stated else {"thinks": True}):
            request = Request([user("one")], max_tokens=1, chat_template_kwargs=kwargs, draft=0)
            list(emulator.stream(request))
            lengths.append({r.name: len(r.context.tokens(0)) for r in emulator.contexts})
    assert lengths[1]["tuned:chat"] == lengths[0]["tuned:chat"] + 1
    assert lengths[1]["base"] == lengths[0]["base"]


def test_a_system_message_that_templates_refuse_is_told_of_once(atlas, caplog):
    """Each role said it: three lines, alike but for the model's name."""
    messages = [{"role": "system", "content": "Be kind."}, user("Hi")]
    with Emulator.load(ATLAS.with_suffix(".toml"), n_threads=1) as emulator:
        for _ in range(2):
            emulator.generate(messages, max_tokens=1)
    (said,) = [line for line in caplog.messages if "no system role" in line]
    assert said.startswith("base, tuned:chat, reference:chat: ")


def test_a_variable_that_no_template_reads_is_refused_or_said(tmp_path, tiny):
    """A typing error left thinking on, and nobody was told."""
    path = recipe(tmp_path, tiny, base="plain", reference="plain")
    told = "'template', template_kwargs = { thinkin = true, bos = 1 }"
    text = path.read_text().replace("'template'", told)
    path.write_text(text.replace("'template'", "'{{ messages[-1].content }}{{ thinking }}'"))
    with Emulator.load(path, n_ctx=100, n_threads=1) as emulator:
        said = [line for line in emulator.record.warnings if "nothing reads" in line]
        assert said == [
            f"template_kwargs of tuned:chat: nothing reads {name!r} in its prompt format"
            for name in ("thinkin", "bos")
        ]
        request = Request([user("one")], max_tokens=1, chat_template_kwargs={"thinking": True})
        assert emulator.generate(request).tokens
        with pytest.raises(RequestError, match="has 'thinkin', which no role's template reads"):
            emulator.generate([user("one")], chat_template_kwargs={"thinkin": True})


TOOL = {"type": "function", "function": {"name": "the"}}


def test_tools_reach_the_roles_whose_templates_read_them(tmp_path, tiny, caplog):
    path = recipe(tmp_path, tiny, base="plain", reference="plain")
    template = "'[user]{{ messages[-1].content }}{{ tools[0].function.name if tools }}'"
    path.write_text(path.read_text().replace("'template'", template))
    with Emulator.load(path, n_ctx=100, n_threads=1) as emulator:
        lengths = []
        for tools in ((), [TOOL]):
            emulator.generate(Request([user("one")], max_tokens=1, tools=tools, draft=0))
            lengths.append({r.name: len(r.context.tokens(0)) for r in emulator.contexts})
    assert lengths[1]["tuned:chat"] > lengths[0]["tuned:chat"]
    assert lengths[1]["base"] == lengths[0]["base"]
    assert "shows tools" not in caplog.text


def test_tools_that_reach_nobody_are_said_once(tmp_path, tiny, caplog):
    with Emulator.load(recipe(tmp_path, tiny), n_ctx=100, n_threads=1) as emulator:
        for prompt in ([user("one")], [user("two")], "three"):
            assert emulator.generate(Request(prompt, max_tokens=1, tools=[TOOL])).tokens
    assert caplog.text.count("no role's prompt format shows tools") == 1
