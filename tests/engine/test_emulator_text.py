"""What a reader sees: whole characters, stop strings, the end of a reply, limits.

The models are scripts: the next token is a function of the last one, so the test says what the
model will say, token by token.
"""

import itertools

import gguf
import numpy as np
import pytest
from helpers.emulator_tools import GREEDY, UNDRAFTED, open_emulator, text_of, tokens_of
from helpers.families import twin
from helpers.recipe_files import write_toml
from helpers.tiny_models import BOS, EOS, ID, N_VOCAB, OTHER_END, byte_tokens, script, write_script

from edge_eft import Emulator, Request, Weights
from edge_eft.errors import PromptError, RecipeError

pytestmark = pytest.mark.timeout(60)

EMOJI = "😀"
SAY_EMOJI = [BOS, ID["▁one"], *byte_tokens(EMOJI), ID["▁two"]]
SAY_STOP = [BOS, *(ID[piece] for piece in ("▁one", "S", "T", "O", "P", "▁two", "▁red"))]


@pytest.fixture(scope="module")
def says(folder):
    """An emulator that says the given chain after an empty prompt; one per chain."""
    opened = {}

    def get(chain, otherwise=EOS, n_ctx=64):
        key = (tuple(chain), otherwise, n_ctx)
        if key not in opened:
            path = folder / f"says{len(opened)}.gguf"
            write_script(path, script(chain, otherwise=otherwise))
            opened[key] = open_emulator((path, twin(path), path), n_ctx=n_ctx)
        return opened[key]

    yield get
    for emulator in opened.values():
        emulator.close()


def test_an_emoji_split_over_tokens_comes_once_and_whole(says, draft):
    steps = list(says(SAY_EMOJI).stream("", **GREEDY, **draft))
    assert tokens_of(steps) == [*SAY_EMOJI[1:], EOS]
    assert [step.text for step in steps] == [" one", "", "", "", EMOJI, " two", ""]
    assert steps[-1].finish_reason == "stop"
    assert [step.finish_reason for step in steps[:-1]] == [None] * (len(steps) - 1)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_an_emoji_cut_by_max_tokens_is_a_replacement_character(says, n, draft):
    generation = says(SAY_EMOJI).generate("", max_tokens=n, **GREEDY, **draft)
    assert generation.text == " one\ufffd"
    assert (len(generation.tokens), generation.finish_reason) == (n, "length")


def test_invalid_bytes_do_not_swallow_what_follows(says):
    first = byte_tokens(EMOJI)[0]
    chain = [BOS, first, ID["▁one"], byte_tokens(EMOJI)[2], ID["▁two"]]
    assert says(chain).generate("", **GREEDY).text == "\ufffd one\ufffd two"


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        (["STOP"], " one"),
        ("STOP", " one"),
        (["OP t"], " oneST"),
        (["P tw"], " oneSTO"),
        (["STOP two red"], " one"),
        ([" one"], ""),
        (["e"], " on"),
        (["nope", "TO", "STOP"], " oneS"),
        (["red"], " oneSTOP two "),
        (["STOP twoX"], " oneSTOP two red"),
        ([" red", "d"], " oneSTOP two"),
    ],
)
def test_stop_strings_never_leak(says, stop, text, draft):
    emulator = says(SAY_STOP)
    steps = list(emulator.stream("", stop=stop, **GREEDY, **draft))
    assert text_of(steps) == text
    for shown in itertools.accumulate(step.text for step in steps):
        assert text.startswith(shown)
    assert steps[-1].finish_reason == "stop"
    if text == " oneSTOP two red":  # none of it was complete
        assert steps[-1].stop_string is None
    else:
        assert steps[-1].stop_string in stop
    assert emulator.generate("", stop=stop, **GREEDY, **draft).text == text


@pytest.mark.parametrize("n", range(1, 8))
def test_a_stop_string_cut_off_by_max_tokens_is_given_out(says, n, draft):
    """The stop string is complete with the fifth token; what is no stop string is given out."""
    generation = says(SAY_STOP).generate("", stop=["STOP"], max_tokens=n, **GREEDY, **draft)
    whole = [" one", " oneS", " oneST", " oneSTO", " one", " one", " one"]
    assert generation.text == whole[n - 1]
    assert generation.finish_reason == ("length" if n < 5 else "stop")
    assert generation.stop_string == (None if n < 5 else "STOP")
    assert len(generation.tokens) == min(n, 5)


def test_a_cancelled_reply_shows_no_part_of_a_stop_string(says):
    emulator = says(SAY_STOP)
    stream = emulator.stream("", stop=["STOP"], **GREEDY)
    shown = "".join(next(stream).text for _ in range(3))
    stream.close()
    assert shown == " one"
    assert emulator.generate("", **GREEDY).text == " oneSTOP two red"


def test_the_end_token_ends_and_is_not_part_of_the_reply(says, draft):
    generation = says(SAY_STOP).generate("", **GREEDY, **draft)
    assert generation.finish_reason == "stop"
    assert generation.stop_string is None
    assert EOS not in generation.tokens
    assert generation.tokens == SAY_STOP[1:]
    assert generation.prompt_tokens == 1


SAY_CONTROL = [BOS, ID["▁one"], OTHER_END, ID["▁two"], ID["▁red"]]


@pytest.mark.parametrize("stop", [["<other-end>"], ["xx", "<other-end>"], ["e t", "<other-end>"]])
def test_a_stop_that_names_a_control_token_ends_there(says, stop, draft):
    """Such a token prints nothing, so that its text was never found in a reply."""
    emulator = says(SAY_CONTROL)
    assert emulator.generate("", **GREEDY, **draft).text == " one two red"
    steps = list(emulator.stream("", stop=stop, **GREEDY, **draft))
    assert tokens_of(steps) == [ID["▁one"], OTHER_END]
    assert text_of(steps) == " one"
    assert [step.is_end_token for step in steps] == [False, True]
    assert steps[-1].finish_reason == "stop"
    generation = emulator.generate("", stop=stop, **GREEDY, **draft)
    assert (generation.text, generation.tokens) == (" one", [ID["▁one"]])
    assert generation.stop_string == "<other-end>"
    # Next time, nothing of it is left over.
    assert emulator.generate("", stop=["</s>", "<unk>"], **GREEDY).text == " one two red"


def with_ends(folder, chain, base="", tuned="", reference=""):
    """The path of a recipe whose model says a chain, with keys in the roles' tables."""
    path = folder / "says.gguf"
    write_script(path, script(chain))
    return write_toml(
        folder,
        f"[base]\nfile = '{path}'\n{base}\n"
        f"[delta.a]\ntuned = {{ file = '{twin(path)}'{tuned} }}\n"
        f"reference = {{ file = '{path}'{reference} }}\n",
    )


@pytest.mark.parametrize("name", ["'<other-end>'", OTHER_END, "'▁two'"])
def test_end_tokens_of_a_recipe_end_the_reply(tmp_path, name, draft):
    key = f"end_tokens = [{name}]"
    path = with_ends(tmp_path, SAY_CONTROL, key, f", {key}", f", {key}")
    with Emulator.load(path, n_ctx=64, n_threads=1) as emulator:
        generation = emulator.generate("", **GREEDY, **draft)
        assert (generation.text, generation.finish_reason) == (" one", "stop")
        known = {role: file.end_tokens for role, file in emulator.record.files.items()}
    token = ID["▁two"] if "two" in str(name) else OTHER_END
    text = "▁two" if "two" in str(name) else "<other-end>"
    assert all(ends == {EOS: "</s>", token: text} for ends in known.values())


def test_the_end_tokens_of_one_role_are_its_own(tmp_path):
    """What ends tuned's replies is lifted over a base that does not know it."""
    path = with_ends(tmp_path, SAY_CONTROL, tuned=", end_tokens = ['<other-end>']")
    with Emulator.load(path, n_ctx=64, n_threads=1) as emulator:
        assert emulator.generate("", **GREEDY).text == " one"
        assert emulator.generate("", weights=Weights.only("tuned"), **GREEDY).text == " one"
        ends = {role: list(file.end_tokens) for role, file in emulator.record.files.items()}
    assert ends == {"base": [EOS], "tuned:a": [EOS, OTHER_END], "reference:a": [EOS]}


@pytest.mark.parametrize(
    ("key", "role", "message"),
    [
        ("end_tokens = ['<nobody>']", "base", r"mine\.toml: base\.end_tokens names '<nobody>'"),
        ("end_tokens = [352]", "tuned", r"delta\.a\.tuned\.end_tokens names token 352"),
        ("end_tokens = ['']", "reference", r"delta\.a\.reference\.end_tokens names ''"),
    ],
)
def test_an_end_token_that_does_not_exist_is_refused_by_its_key(tmp_path, key, role, message):
    keys = {role: key if role == "base" else f", {key}"}
    with pytest.raises(RecipeError, match=message):
        Emulator.load(with_ends(tmp_path, SAY_STOP, **keys), n_ctx=64, n_threads=1)


LOOP = [BOS, ID["▁one"], ID["▁two"], ID["▁one"]]


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 40])
def test_max_tokens_is_exact(says, n, draft):
    generation = says(LOOP).generate("", max_tokens=n, **GREEDY, **draft)
    assert len(generation.tokens) == n
    assert generation.finish_reason == "length"
    assert generation.text == (" one two" * n)[: sum(map(len, (" one", " two"))) * n // 2]


@pytest.mark.parametrize("n_prompt", [1, 2, 30, 62, 63])
def test_a_full_context_ends_the_reply(says, n_prompt, draft):
    """The last token needs no place: nothing is predicted from it."""
    emulator = says(LOOP, n_ctx=64)
    prompt = "?" * (n_prompt - 1)
    generation = emulator.generate(
        prompt, max_tokens=500, logit_bias={EOS: -1e3}, **GREEDY, **draft
    )
    assert generation.prompt_tokens == n_prompt
    assert generation.finish_reason == "length"
    assert n_prompt + len(generation.tokens) == 64 + 1


@pytest.mark.parametrize("n_prompt", [64, 65, 1000])
def test_a_prompt_that_does_not_fit_says_both_numbers(says, n_prompt):
    emulator = says(LOOP, n_ctx=64)
    with pytest.raises(PromptError, match=rf"{n_prompt} tokens.* 63 fit"):
        emulator.generate("?" * (n_prompt - 1))
    with pytest.raises(PromptError, match=rf"{n_prompt} tokens.* 63 fit"):
        emulator.submit(Request("?" * (n_prompt - 1)))
    assert emulator.step() == []
    assert emulator.generate("", max_tokens=2, **GREEDY).text == " one two"


def test_the_longest_of_the_roles_prompts_decides_what_fits(tiny):
    """The tuned side's template is longer than the base's plain text."""
    with open_emulator(tiny, n_ctx=64) as emulator:
        message = {"role": "user", "content": "?" * 50}
        with pytest.raises(PromptError, match=r"6\d tokens for tuned:tuned, and 63 fit"):
            emulator.generate([message])
        message["content"] = "?" * 30
        lengths = [len(runner.prompt.encode([message])) for runner in emulator.contexts]
        generation = emulator.generate([message], max_tokens=99, logit_bias={EOS: float("-inf")})
        assert generation.prompt_tokens == lengths[0]
        assert max(lengths) + len(generation.tokens) == 64 + 1


# -- who ends a reply --------------------------------------------------------------------------


def test_the_tuned_sides_own_end_token_ends_the_reply(folder, draft):
    """The base never saw it and all but forbids it, so that no finite delta would lift it."""
    one, two, three = (ID[piece] for piece in ("▁one", "▁two", "▁three"))
    rambling = script([BOS, one, two, three, two])
    rambling[:, OTHER_END] = -30.0
    ending = script([BOS, one, two, OTHER_END])
    base = write_script(folder / "rambling.gguf", rambling)
    tuned = write_script(folder / "ending.gguf", ending, eos=OTHER_END)
    with Emulator.from_files(base=base, tuned=tuned, reference=base, n_threads=1) as emulator:
        alone = emulator.generate("", weights=Weights.only("base"), max_tokens=8, **GREEDY)
        assert alone.text == " one two three two three two three two"
        for weights in (Weights.upscale(1.0), Weights.amplify(1.5), Weights.only("tuned")):
            steps = list(emulator.stream("", weights=weights, **GREEDY, **draft))
            assert text_of(steps) == " one two"
            assert steps[-1].finish_reason == "stop"
            score = emulator.score("", [one, two, OTHER_END], weights=weights)
            np.testing.assert_allclose(score, [step.logprob for step in steps], atol=1e-4)


def test_an_end_token_of_another_id_changes_nothing(family, tmp_path):
    """A copy of the tuned model whose end token has another id: rows and ids exchanged."""
    tuned = tmp_path / "other-end.gguf"
    exchange_end_token(family.tuned, tuned)
    prompt = family.prompts[0]
    with open_emulator(family) as emulator:
        expected = list(emulator.stream(prompt, max_tokens=60, **GREEDY))
    with open_emulator((family.base, tuned, family.reference)) as emulator:
        steps = list(emulator.stream(prompt, max_tokens=60, **GREEDY))
        assert emulator.contexts[1].model.end_tokens != emulator.contexts[0].model.end_tokens
    assert text_of(steps) == text_of(expected)
    assert steps[-1].finish_reason == expected[-1].finish_reason
    np.testing.assert_allclose(
        [step.logprob for step in steps], [step.logprob for step in expected], atol=1e-4
    )


def exchange_end_token(source, target):
    """A copy in which the byte token 0x01 has the end token's part."""
    target.write_bytes(source.read_bytes())
    reader = gguf.GGUFReader(target, "r+")
    tokens = reader.fields["tokenizer.ggml.tokens"]
    texts = [bytes(tokens.parts[i]) for i in tokens.data]
    new_end = texts.index(b"<0x01>")
    field = reader.fields["tokenizer.ggml.eos_token_id"]
    old_end = int(field.parts[field.data[0]][0])
    field.parts[field.data[0]][0] = new_end
    for tensor in reader.tensors:
        if tensor.name in ("token_embd.weight", "output.weight"):
            tensor.data[[old_end, new_end]] = tensor.data[[new_end, old_end]]
    reader.data.flush()


def test_a_seed_gives_one_text_and_another_seed_another(tiny, draft):
    with open_emulator(tiny) as emulator:
        options = {"max_tokens": 30, "temperature": 1.0} | draft
        first = emulator.generate("the red", seed=1, **options)
        assert first.seed == 1
        assert emulator.generate("the red", seed=2, **options).text != first.text
        assert emulator.generate("the red", seed=1, **options).text == first.text
        unseeded = emulator.generate("the red", **options)
        again = emulator.generate("the red", seed=unseeded.seed, **options)
        assert again.tokens == unseeded.tokens


def test_generation_agrees_with_its_steps(tiny):
    with open_emulator(tiny) as emulator:
        request = Request("the red", max_tokens=10, seed=1, **UNDRAFTED)
        steps = list(emulator.stream(request))
        generation = emulator.generate(request)
        assert generation.tokens == tokens_of(steps)
        assert generation.text == text_of(steps)
        assert generation.prompt_tokens == len(emulator.contexts[0].model.tokenize("the red")) + 1
        roles = {"base", "tuned:tuned", "reference:tuned"}
        assert set(generation.timings.prefill) == set(generation.timings.decode) == roles
        parts = sum((*generation.timings.prefill.values(), *generation.timings.decode.values()))
        assert 0 < parts < generation.timings.total
        assert generation.tokens_per_second > 0
        assert max(generation.tokens) < N_VOCAB
