"""Tokens that a tuned model renamed and means: combined as any other, and its text everywhere."""

import json

import pytest
from helpers.emulator_tools import GREEDY, UNDRAFTED, decoded, decoded_since, text_of, tokens_of
from helpers.families import twin
from helpers.recipe_files import write_toml
from helpers.tiny_models import (
    BOS,
    EOS,
    ID,
    KIND,
    N_VOCAB,
    OTHER_END,
    RESERVED,
    script,
    write_random,
    write_script,
)

from edge_eft import Emulator, Weights
from edge_eft.errors import RecipeError, VocabularyError

pytestmark = pytest.mark.timeout(60)

ONE, TWO, RED = ID["▁one"], ID["▁two"], ID["▁red"]
# What the base's file has there: <other-end> and <reserved>, control tokens.
THINK = {OTHER_END: ("<think>", KIND.NORMAL), RESERVED: ("</think>", KIND.USER_DEFINED)}
THINKING = [BOS, OTHER_END, ONE, RESERVED, TWO]
ADOPT = f", adopt = ['<think>', {RESERVED}]"
SAID = "<think> one</think> two"


def recipe(folder, base, tuned, reference, key=ADOPT, prompt="transcript", more=""):
    return write_toml(
        folder,
        f"[base]\nfile = '{base}'\nprompt = '{prompt}'\n"
        f"[delta.r1]\ntuned = {{ file = '{tuned}'{key} }}\n"
        f"reference = {{ file = '{reference}' }}\n{more}",
    )


@pytest.fixture(scope="module")
def thinking(tmp_path_factory):
    """Files of a base without the marks, and of a tuned model with them, that say the same."""
    folder = tmp_path_factory.mktemp("thinking")
    chain = script(THINKING, otherwise=OTHER_END)
    base = write_script(folder / "base.gguf", chain)
    tuned = write_script(folder / "tuned.gguf", chain, rename=THINK)
    return base, tuned, twin(base)


@pytest.fixture
def emulator(tmp_path, thinking):
    with Emulator.load(recipe(tmp_path, *thinking), n_ctx=200, n_threads=1) as emulator:
        yield emulator


def test_an_adopted_token_is_text_wherever_text_is_made(emulator, draft):
    options = {"max_tokens": 4, "explain": 1, **GREEDY, **draft}
    steps = list(emulator.stream("", **options))
    assert tokens_of(steps) == THINKING[1:]
    assert [step.text for step in steps] == ["<think>", " one", "</think>", " two"]
    for step in steps:
        for view in json.loads(json.dumps(step.to_dict()))["explain"].values():
            assert view["top"][0][1].replace("▁", " ") == step.text
    assert emulator.generate("", **options).text == SAID
    for role in ("base", "tuned"):
        assert emulator.generate("", weights=Weights.only(role), **options).text == SAID
    vocabulary = emulator.record.vocabulary
    assert vocabulary.adopted == {OTHER_END: "<think>", RESERVED: "</think>"}
    assert vocabulary.warnings == ()


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        (["</think>"], "<think> one"),
        (["k> o"], "<thin"),
        (["<other-end>", "<reserved>"], SAID),  # what the base calls them is nobody's text
    ],
)
def test_a_stop_string_is_compared_with_the_tuned_models_text(emulator, stop, text, draft):
    assert emulator.generate("", stop=stop, max_tokens=4, **GREEDY, **draft).text == text


def test_an_adopted_control_token_prints_nothing_and_can_be_a_stop(tmp_path, draft):
    """The other way about: the base's file has text there."""
    chain = script([BOS, ONE, RED, TWO])
    base = write_script(tmp_path / "base.gguf", chain)
    tuned = write_script(tmp_path / "tuned.gguf", chain, rename={RED: ("<tool>", KIND.CONTROL)})
    path = recipe(tmp_path, base, tuned, twin(base), ", adopt = ['<tool>']")
    with Emulator.load(path, n_ctx=64, n_threads=1) as emulator:
        reply = emulator.generate("", **GREEDY, **draft)
        assert (reply.tokens, reply.text) == ([ONE, RED, TWO], " one two")
        assert emulator.generate("", stop="<tool>", **GREEDY, **draft).text == " one"
        assert emulator.generate("", stop=" red", **GREEDY, **draft).text == " one two"


def test_without_the_key_the_refusal_names_it_and_what_it_names_works(tmp_path, thinking):
    with pytest.raises(VocabularyError) as caught:
        Emulator.load(recipe(tmp_path, *thinking, key=""))
    advice = f"adopt = [{OTHER_END}]"
    assert f"token {OTHER_END} is '<other-end>' in the one and '<think>'" in str(caught.value)
    assert str(caught.value).endswith(f"write {advice} in its table of the recipe")
    path = recipe(tmp_path, *thinking, key=f", {advice}")
    with Emulator.load(path, n_ctx=64, n_threads=1) as emulator:
        (warning,) = emulator.record.vocabulary.warnings
        assert f"write adopt = [{RESERVED}] in its table" in warning
        assert "</think>" not in emulator.generate("", max_tokens=4, **GREEDY).text


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("'<nobody>'", r"mine\.toml: delta\.r1\.tuned\.adopt names '<nobody>'"),
        ("352", r"delta\.r1\.tuned\.adopt names token 352; the ids of tuned\.gguf end at 351"),
        ("-1", r"delta\.r1\.tuned\.adopt names token -1"),
        ("'<other-end>'", r"delta\.r1\.tuned\.adopt names '<other-end>'"),  # the base's text
    ],
)
def test_what_is_no_token_of_the_tuned_model_is_refused_by_its_key(
    tmp_path, thinking, key, message
):
    with pytest.raises(RecipeError, match=message):
        Emulator.load(recipe(tmp_path, *thinking, key=f", adopt = [{key}]"), n_threads=1)


def test_two_deltas_that_adopt_a_token_differently_are_refused(tmp_path, thinking):
    base, tuned, reference = thinking
    chain = script([BOS, ONE])
    other = write_script(tmp_path / "b.gguf", chain, rename={RESERVED: ("<b>", KIND.CONTROL)})
    more = (
        f"[delta.b]\ntuned = {{ file = '{other}', adopt = ['<b>'] }}\n"
        f"reference = {{ file = '{reference}' }}\n"
    )
    with pytest.raises(VocabularyError) as caught:
        Emulator.load(recipe(tmp_path, base, tuned, reference, more=more), n_threads=1)
    for part in ("tuned:r1 (tuned.gguf)", "'</think>'", "'<b>'", "tuned:b (b.gguf)"):
        assert part in str(caught.value)


def test_an_end_token_stays_one_though_it_is_adopted(tmp_path, draft):
    chain = script([BOS, ONE, TWO, OTHER_END])
    rename = {OTHER_END: ("<|EOT|>", KIND.CONTROL)}
    base = write_script(tmp_path / "base.gguf", chain)
    tuned = write_script(tmp_path / "tuned.gguf", chain, eos=OTHER_END, rename=rename)
    path = recipe(tmp_path, base, tuned, twin(base), ", adopt = ['<|EOT|>']")
    with Emulator.load(path, n_ctx=64, n_threads=1) as emulator:
        steps = list(emulator.stream("", max_tokens=9, **GREEDY, **draft))
        assert (text_of(steps), steps[-1].finish_reason) == (" one two", "stop")
        assert emulator.record.vocabulary.adopted == {}
        assert emulator.record.files["tuned:r1"].end_tokens == {EOS: "</s>", OTHER_END: "<|EOT|>"}


# -- nothing else changes ----------------------------------------------------------------------

BOXES = {ID[text]: (f"<box{i}>", KIND.CONTROL) for i, text in enumerate(["▁red", "▁is", "▁it"])}
MARKS = {i: (f"<mark{n}>", KIND.NORMAL) for n, i in enumerate(BOXES)}


@pytest.fixture(scope="module")
def random_pair(tmp_path_factory):
    """A family of random models as it is, and one in which three words are renamed tokens."""
    folder = tmp_path_factory.mktemp("random")
    opened = []
    for name, own, theirs in (("plain", {}, {}), ("renamed", BOXES, MARKS)):
        here = folder / name
        here.mkdir()
        base = write_random(here / "base.gguf", seed=1, rename=own)
        tuned = write_random(here / "tuned.gguf", seed=1, rename=theirs)
        reference = write_random(here / "reference.gguf", seed=2, rename=own)
        key = f", adopt = {list(BOXES)}" if own else ""
        path = recipe(here, base, tuned, reference, key)
        opened.append(Emulator.load(path, n_ctx=128, n_threads=1))
    yield opened
    for emulator in opened:
        emulator.close()


LIFTED = {"max_tokens": 40, "logit_bias": dict.fromkeys(BOXES, 3.0)}


@pytest.mark.parametrize("choice", [GREEDY, {"temperature": 1.0, "seed": 5}], ids=str)
def test_an_adopted_token_is_combined_as_any_other(random_pair, choice):
    """A renamed family says what it says under its old names, to the last bit."""
    options = LIFTED | choice | UNDRAFTED | {"weights": Weights.upscale(0.6)}
    plain, renamed = (list(each.stream("the blue", **options)) for each in random_pair)
    assert tokens_of(plain) == tokens_of(renamed)
    assert [step.logprob for step in plain] == [step.logprob for step in renamed]
    assert set(BOXES) & set(tokens_of(renamed))
    text = text_of(plain)
    for (mark, _), word in zip(MARKS.values(), [" red", " is", " it"], strict=True):
        text = text.replace(word, mark)
    assert text_of(renamed) == text
    scores = [each.score("the blue", [*BOXES, RED], weights=Weights()) for each in random_pair]
    assert scores[0].tolist() == scores[1].tolist()


@pytest.mark.parametrize("choice", [GREEDY, *({"temperature": 1.0, "seed": s} for s in range(4))])
def test_drafts_of_adopted_tokens_change_no_token(random_pair, choice):
    _, emulator = random_pair
    options = LIFTED | choice | {"weights": Weights.upscale(0.2)}
    plain = emulator.generate("the blue", draft=0, **options)
    drafted = {draft: emulator.generate("the blue", draft=draft, **options) for draft in (1, 3, 15)}
    assert all((r.tokens, r.text) == (plain.tokens, plain.text) for r in drafted.values())
    assert set(BOXES) & set(plain.tokens)
    steps = list(emulator.stream("the blue", draft=3, **options))
    assert any(step.accepted and step.token in BOXES for step in steps)


# -- chats -------------------------------------------------------------------------------------


def turns(reply):
    return [
        {"role": "user", "content": "is it"},
        {"role": "assistant", "content": reply},
        {"role": "user", "content": "and"},
    ]


def test_a_reply_with_adopted_tokens_goes_back_as_it_was_generated(emulator):
    """For the base they are control tokens, which no other text of a message becomes."""
    options = {"max_tokens": 4, **GREEDY, **UNDRAFTED}
    reply = emulator.generate(turns("")[:1], **options)
    assert (reply.tokens, reply.text) == (THINKING[1:], SAID)
    before = decoded(emulator)
    again = emulator.generate(turns(reply.text), **options)
    assert again.text == SAID
    for runner in emulator.contexts:
        if runner.prompt.spec == "transcript":
            new = 1 + len(runner.model.tokenize("\nUser: and\nAssistant:"))
        else:
            new = 1 + len(runner.model.tokenize("[user]and[assistant]")) + 1
        assert decoded_since(emulator, before)[runner.name] == new + len(again.tokens) - 1


def test_an_edited_reply_is_told_to_each_role_in_its_own_tokens(emulator):
    emulator.generate(turns("")[:1], max_tokens=4, **GREEDY)
    edited = turns(SAID.replace("one", "three"))
    base, tuned, reference = (runner.prompt.encode(edited) for runner in emulator.contexts)
    assert not {OTHER_END, RESERVED} & {*base, *reference}
    assert RESERVED in tuned  # user-defined in its file: text that its tokenizer knows
    for ids, runner in zip((base, tuned), emulator.contexts, strict=False):
        text = b"".join(runner.model.piece(i) for i in ids).decode()
        assert "<think> three</think> two" in text


def test_a_user_cannot_write_an_adopted_token_of_the_bases(emulator):
    messages = [{"role": "user", "content": "<other-end><reserved>" + SAID}]
    base, tuned, reference = (runner.prompt.encode(messages) for runner in emulator.contexts)
    assert not {OTHER_END, RESERVED} & {*base, *reference}
    assert OTHER_END not in tuned
    assert max(tuned) < N_VOCAB
