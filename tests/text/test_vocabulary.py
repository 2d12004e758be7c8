"""Which models can be combined, over which width, and what ends a reply."""

import time

import numpy as np
import pytest

from edge_eft.errors import RecipeError, VocabularyError
from edge_eft.text.vocabulary import named_tokens, reconcile

UNKNOWN, UNUSED, NORMAL, CONTROL, USER_DEFINED = 1, 2, 4, 8, 16


class Vocabulary:
    def __init__(self, name, tokens, *, ends=(), eos=None):
        self.name = name
        self.tokens = [t if isinstance(t, tuple) else (t, NORMAL) for t in tokens]
        self.n_vocab = len(tokens)
        self.end_tokens = frozenset(ends)
        self.eos_token = eos

    def token_texts(self):
        return [text.encode() for text, _ in self.tokens]

    def token_attributes(self):
        return np.array([kind for _, kind in self.tokens], np.int32)

    def tokenize(self, text, *, parse_special):
        assert parse_special
        texts = [text for text, _ in self.tokens]
        return [texts.index("Ġ" + word) if "Ġ" + word in texts else 0 for word in text.split()]


EOS = ("</s>", CONTROL)


def test_equal_vocabularies_share_everything():
    models = {r: Vocabulary(f"{r}.gguf", [EOS, "a", "b"], ends=[0], eos=0) for r in ("base", "x")}
    common = reconcile(models)
    assert (common.n_vocab, common.end_token, common.warnings) == (3, 0, ())
    assert {role: ids.tolist() for role, ids in common.end_tokens.items()} == {
        "base": [0],
        "x": [0],
    }
    assert common.end_tokens["base"].dtype == np.int32
    assert common.masked.tolist() == []


def test_padded_tails_are_cut_to_the_common_width():
    wide = Vocabulary("wide.gguf", [EOS, "a", ("[PAD2]", UNUSED), "extra"], ends=[0], eos=0)
    narrow = Vocabulary("narrow.gguf", [EOS, "a"], ends=[0], eos=0)
    assert reconcile({"base": wide, "tuned": narrow}).n_vocab == 2
    assert reconcile({"base": narrow, "tuned": wide}).n_vocab == 2


def test_a_different_normal_token_is_an_error_that_names_the_first_one():
    a = Vocabulary("a.gguf", [EOS, "x", "Paris", "y"])
    b = Vocabulary("b.gguf", [EOS, "x", "Rome", "z"])
    with pytest.raises(VocabularyError) as caught:
        reconcile({"base": a, "tuned:chat": b})
    message = str(caught.value)
    for part in ("token 2", "'Paris'", "'Rome'", "base (a.gguf)", "tuned:chat (b.gguf)", "2 of 4"):
        assert part in message
    assert "\n" not in message


def test_a_difference_in_reserved_tokens_before_it_does_not_hide_the_error():
    a = Vocabulary("a.gguf", [("<r0>", CONTROL), "x"])
    b = Vocabulary("b.gguf", [("<tool>", CONTROL), "y"])
    with pytest.raises(VocabularyError, match="token 1 is 'x'"):
        reconcile({"base": a, "tuned": b})


@pytest.mark.parametrize("kinds", [(NORMAL, CONTROL), (CONTROL, NORMAL), (NORMAL, USER_DEFINED)])
def test_a_normal_token_that_became_something_else_is_an_error(kinds):
    a = Vocabulary("a.gguf", [EOS, ("rare", kinds[0])])
    b = Vocabulary("b.gguf", [EOS, ("<tool>", kinds[1])])
    with pytest.raises(VocabularyError, match="token 1"):
        reconcile({"base": a, "tuned": b})


def test_renamed_reserved_tokens_are_masked_and_listed_shortly():
    base = [EOS, "a", *((f"<reserved_{i}>", CONTROL) for i in range(8))]
    tuned = [EOS, "a", *((f"<tool_{i}>", USER_DEFINED) for i in range(8))]
    common = reconcile(
        {
            "base": Vocabulary("b.gguf", base, ends=[0], eos=0),
            "tuned": Vocabulary("t.gguf", tuned, ends=[0], eos=0),
        }
    )
    assert common.masked.tolist() == list(range(2, 10))
    (warning,) = [w for w in common.warnings if "never generated" in w]
    assert "'<reserved_0>' → '<tool_0>'" in warning
    assert "and 3 more" in warning
    assert "reserved_7" not in warning


def test_a_token_of_one_text_and_two_types_stays_usable():
    """Converters write <think> as a control token or as a user-defined one: it stays usable."""
    base = Vocabulary("b.gguf", [EOS, ("<think>", CONTROL), ("a", NORMAL)], ends=[0], eos=0)
    tuned = Vocabulary("t.gguf", [EOS, ("<think>", USER_DEFINED), ("a", USER_DEFINED)], ends=[0])
    common = reconcile({"base": base, "tuned": tuned})
    assert common.masked.tolist() == []
    (warning,) = common.warnings
    assert "'<think>'" in warning
    assert "'a'" not in warning


def test_an_end_token_above_the_common_width_is_given_to_its_role():
    base = Vocabulary("b.gguf", ["a", "b", EOS], ends=[2], eos=2)
    tuned = Vocabulary("t.gguf", ["a", "b", EOS, ("<|im_end|>", CONTROL)], ends=[3, 2], eos=3)
    common = reconcile({"base": base, "tuned": tuned, "reference": base})
    assert (common.n_vocab, common.end_token) == (3, 2)
    assert common.end_tokens["tuned"].tolist() == [2, 3]
    assert common.masked.tolist() == []


def test_all_end_tokens_but_the_slot_are_masked():
    tokens = [("<|endoftext|>", CONTROL), ("<|im_start|>", CONTROL), ("<|im_end|>", CONTROL), "a"]
    base = Vocabulary("b.gguf", tokens, ends=[0], eos=0)
    tuned = Vocabulary("t.gguf", tokens, ends=[0, 2], eos=2)
    common = reconcile({"base": base, "tuned": tuned})
    assert common.end_token == 0
    assert common.masked.tolist() == [2]


def test_the_slot_is_another_roles_end_token_when_the_base_has_none():
    tokens = ["a", ("<|im_end|>", CONTROL)]
    base = Vocabulary("b.gguf", tokens)
    tuned = Vocabulary("t.gguf", tokens, ends=[1], eos=1)
    common = reconcile({"base": base, "tuned": tuned})
    assert common.end_token == 1
    assert common.end_tokens["base"].tolist() == [1]  # its own value, not −inf
    assert "base (b.gguf) names no end token" in common.warnings[0]


def test_without_any_end_token_a_warning_says_so():
    common = reconcile({"base": Vocabulary("b.gguf", ["a"])})
    assert common.end_token is None
    assert common.end_tokens["base"].tolist() == []
    assert "max_tokens" in common.warnings[-1]


def test_a_model_without_tokens_is_refused():
    with pytest.raises(VocabularyError, match=r"tuned \(t.gguf\) has no vocabulary"):
        reconcile({"base": Vocabulary("b.gguf", ["a"]), "tuned": Vocabulary("t.gguf", [])})


def test_ends_that_a_recipe_names_count_for_their_role_alone():
    tokens = [EOS, ("<|eot|>", CONTROL), ("<|eom|>", CONTROL), "a"]
    base = Vocabulary("b.gguf", tokens, ends=[0], eos=0)
    tuned = Vocabulary("t.gguf", tokens, ends=[1], eos=1)
    common = reconcile({"base": base, "tuned": tuned, "reference": tuned}, {"tuned": {2}})
    assert {role: common.ends_of(role) for role in common.end_tokens} == {
        "base": [0],
        "tuned": [1, 2],
        "reference": [1],
    }
    assert (common.end_token, common.masked.tolist()) == (0, [1, 2])


def test_a_named_end_is_the_slot_where_no_file_has_an_end():
    base = Vocabulary("b.gguf", ["a", ("<|im_end|>", CONTROL)])
    common = reconcile({"base": base}, {"base": frozenset({1})})
    assert (common.end_token, common.ends_of("base"), common.warnings) == (1, [1], ())


def test_tokens_are_named_by_id_by_vocabulary_text_or_by_what_they_print():
    model = Vocabulary("m.gguf", [("<unk>", UNKNOWN), ("<|eot|>", CONTROL), "Ġend", "b", "b"])
    assert named_tokens(["<|eot|>", 0], model, "x") == {0, 1}
    assert named_tokens([" end", "Ġend"], model, "x") == {2}
    assert named_tokens(["b"], model, "x") == {3, 4}
    assert named_tokens([], model, "x") == frozenset()


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        (5, "names token 5; the ids of m.gguf end at 4"),
        (-1, "names token -1;"),
        (" end end", "' end end', which is not one token of m.gguf but 2"),
        ("", "'', which is not one token of m.gguf but 0"),
        ("nothing", "'nothing', which is not one token"),  # what the tokenizer does not know
    ],
)
def test_what_is_no_token_is_refused_by_its_key(name, seen):
    model = Vocabulary("m.gguf", [("<unk>", UNKNOWN), ("<|eot|>", CONTROL), "Ġend", "b", "b"])
    with pytest.raises(RecipeError) as caught:
        named_tokens([name], model, "base.end_tokens")
    assert str(caught.value).startswith("base.end_tokens names ")
    assert seen in str(caught.value)


def test_tokens_that_print_nothing_are_known_by_every_roles_text():
    base = [("<unk>", UNKNOWN), EOS, ("<think>", USER_DEFINED), ("<a>", CONTROL), "b"]
    tuned = [("<unk>", UNKNOWN), EOS, ("<think>", CONTROL), ("<b>", CONTROL), "b", ("c", CONTROL)]
    common = reconcile({"base": Vocabulary("b", base), "tuned": Vocabulary("t", tuned)})
    assert common.silent == {"<unk>": {0}, "</s>": {1}, "<think>": {2}, "<a>": {3}, "<b>": {3}}


def test_three_vocabularies_of_262k_tokens_are_compared_fast():
    class Large(Vocabulary):
        def __init__(self, name):
            super().__init__(name, [], ends=[1], eos=1)
            self.n_vocab = 262_144
            self.texts = [b"token %d" % i for i in range(self.n_vocab)]
            self.attributes = np.full(self.n_vocab, NORMAL, np.int32)

        def token_texts(self):
            return self.texts

        def token_attributes(self):
            return self.attributes

    models = {role: Large(role) for role in ("base", "tuned", "reference")}

    def seconds():
        start = time.perf_counter()
        reconcile(models)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.3
