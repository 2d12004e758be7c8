"""Which models can be combined, over which width, and what ends a reply."""

import time

import numpy as np
import pytest
from helpers.small_vocabularies import Vocabulary

from edge_eft.errors import VocabularyError
from edge_eft.text.vocabulary import CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, reconcile

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
    assert common.renamed == frozenset(range(2, 10))
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


def test_tokens_that_print_nothing_are_known_by_every_roles_text():
    base = [("<unk>", UNKNOWN), EOS, ("<think>", USER_DEFINED), ("<a>", CONTROL), "b"]
    tuned = [("<unk>", UNKNOWN), EOS, ("<think>", CONTROL), ("<b>", CONTROL), "b", ("c", CONTROL)]
    common = reconcile({"base": Vocabulary("b", base), "tuned": Vocabulary("t", tuned)})
    assert common.silent == {"<unk>": {0}, "</s>": {1}, "<think>": {2}, "<a>": {3}, "<b>": {3}}


# -- adopted tokens ----------------------------------------------------------------------------

WORDS = [f"word{i}" for i in range(900)]
BOX, THINK = ("<|box|>", CONTROL), ("<think>", NORMAL)


def family(*tails, ends=(), **more):
    """base, tuned:r1, reference:r1 …: 901 common tokens, then each role's own."""
    roles = ("base", "tuned:r1", "reference:r1", "tuned:b", "reference:b")
    return {
        role: Vocabulary(f"{role[:-1]}.gguf", [EOS, *WORDS, *tail], ends=[0, *ends], eos=0, **more)
        for role, tail in zip(roles, tails, strict=False)
    }


def adopt(models, *ids, role="tuned:r1"):
    return reconcile(models, adopt={role: frozenset(ids)})


@pytest.mark.parametrize("kind", [NORMAL, USER_DEFINED, CONTROL])
def test_an_adopted_token_is_the_tuned_models_and_is_not_masked(kind):
    models = family([BOX, "x"], [("<think>", kind), "x"], [BOX, "x"])
    common = adopt(models, 901)
    assert common.masked.tolist() == []
    assert (common.adopted, common.adopters) == ({901: "<think>"}, {901: "tuned:r1"})
    assert common.warnings == ()
    assert "<|box|>" not in common.silent
    assert common.silent.get("<think>") == ({901} if kind == CONTROL else None)


def padding(n):
    return [(f"[PAD{i}]", UNUSED) for i in range(n)]


QWEN = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"),
    *("<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>"),
]
DEEPSEEK_R1 = [
    *("<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜begin▁of▁sentence｜>"),
    *("<|EOT|>", "<think>", "</think>", *QWEN[7:]),
]


def deepseek_r1(kind):
    """Its distillate in a Qwen2.5 of 14B, ids as they are, the words before them made up."""
    words = [f"word{i}" for i in range(151_643)]
    kinds = [kind if "think" in text else CONTROL for text in DEEPSEEK_R1]
    own = [(text, CONTROL) for text in QWEN]
    models = {
        "base": [*words, *own, *padding(500)],
        "tuned:r1": [*words, *zip(DEEPSEEK_R1, kinds, strict=True), *padding(100)],
        "reference:r1": [*words, *own, *padding(100)],
    }
    ends = {"base": [151_643, 151_645], "tuned:r1": [151_643], "reference:r1": [151_643, 151_645]}
    return {
        role: Vocabulary(f"{role}.gguf", tokens, ends=ends[role], eos=151_643)
        for role, tokens in models.items()
    }


def test_the_refusal_of_deepseek_r1_names_the_key_that_adopts_its_marks():
    models = deepseek_r1(NORMAL)
    with pytest.raises(VocabularyError) as caught:
        reconcile(models)
    assert str(caught.value).endswith(
        "token 151648 is '<|box_start|>' in the one and '<think>' in the other (7 of 151752 tokens "
        "differ); use models of one family; for tokens that tuned:r1 renamed and means, write "
        "adopt = [151648, 151649] in its table of the recipe"
    )
    common = adopt(models, 151_648, 151_649)
    assert common.masked.tolist() == [*range(151_644, 151_648)]
    (warning,) = common.warnings
    assert "generated: 151644 '<|im_start|>' → '<｜User｜>', 151645 '<|im_end|>'" in warning
    assert warning.endswith("write adopt = [151644, 151646, 151647] in its table of the recipe")
    common = adopt(models, *range(151_644, 151_650))
    assert common.adopted == {
        151_644: "<｜User｜>",
        151_646: "<｜begin▁of▁sentence｜>",
        151_647: "<|EOT|>",
        151_648: "<think>",
        151_649: "</think>",
    }
    assert (common.end_token, common.masked.tolist(), common.warnings) == (151_643, [151_645], ())
    assert common.padding.startswith("fine: behind the first 151,752 they have padding only (base")


def test_marks_that_print_are_suggested_where_nothing_is_refused():
    (warning,) = reconcile(deepseek_r1(USER_DEFINED)).warnings
    assert "are therefore never generated: 151644 '<|im_start|>' → '<｜User｜>'" in warning
    assert warning.endswith("write adopt = [151648, 151649] in its table of the recipe")


@pytest.mark.parametrize(
    ("n", "is_named"), [(9, True), (10, False)], ids=["a handful", "more than a hundredth"]
)
def test_adopting_is_not_suggested_for_another_vocabulary(n, is_named):
    models = family([BOX] * n, [(f"<{i}>", NORMAL) for i in range(n)])
    with pytest.raises(VocabularyError, match="use models of one family") as caught:
        reconcile(models)
    assert ("adopt =" in str(caught.value)) is is_named


def test_a_reference_of_another_vocabulary_is_not_told_to_adopt():
    with pytest.raises(VocabularyError, match=r"and reference:r1 .* family$"):
        reconcile(family([BOX], [("<r5>", CONTROL)], [THINK]))


def test_a_base_that_was_tuned_likewise_needs_the_key_for_the_reference():
    """DeepSeek-R1's own 32B as the base of its 1.5B: only the reference has the old marks."""
    models = family([THINK], [THINK], [BOX])
    with pytest.raises(
        VocabularyError, match=r"reference:r1 .*that tuned:r1 renamed .* adopt = \[901\]"
    ):
        reconcile(models)
    common = adopt(models, 901)
    assert (common.adopted, common.masked.tolist()) == ({901: "<think>"}, [])


def test_an_adopted_end_token_stays_one():
    """It is in the end slot; the base's <|im_end|> is not a turn's mark of the tuned model's."""
    base = [("<|object|>", CONTROL), ("<|im_end|>", CONTROL), BOX]
    models = family(base, [("<|EOT|>", CONTROL), ("<Reply>", CONTROL), THINK], base)
    models["tuned:r1"].end_tokens = frozenset({0, 901})
    models["base"].end_tokens = frozenset({0, 902})
    common = adopt(models, 901, 902, 903)
    assert common.adopted == {903: "<think>"}
    assert common.masked.tolist() == [901, 902]
    assert (common.ends_of("base"), common.ends_of("tuned:r1")) == ([0, 902], [0, 901])
    assert common.warnings == ()


def test_an_end_of_both_is_not_called_never_generated():
    """<|endoftext|> of the one is <｜end▁of▁sentence｜> of the other: both end the reply."""
    models = family([], [])
    models["tuned:r1"].tokens[0] = ("<end>", CONTROL)
    common = reconcile(models)
    assert (common.warnings, common.end_token, common.masked.tolist()) == ((), 0, [])
    assert common.renamed == frozenset()


def test_one_text_that_prints_in_tuned_alone_is_adopted_to_print():
    models = family([("<think>", CONTROL)], [("<think>", USER_DEFINED)])
    (warning,) = reconcile(models).warnings
    assert warning.endswith(
        "disagree on what is a control token: 901 '<think>'; to print them as tuned:r1 does, "
        "write adopt = [901] in its table of the recipe"
    )
    common = adopt(models, 901)
    assert (common.adopted, common.warnings, common.silent) == (
        {901: "<think>"}, (), {"</s>": {0}},
    )  # fmt: skip


def test_a_token_that_means_the_same_to_all_needs_no_adoption():
    common = adopt(family([THINK], [THINK], [THINK]), 901, 5)
    assert (common.adopted, common.masked.tolist(), common.warnings) == ({}, [], ())


def test_a_reference_may_have_a_third_name_for_a_reserved_token():
    """Llama 3 and 3.1 number their reserved tokens otherwise."""
    models = family([("<r5>", CONTROL)], [("<think>", USER_DEFINED)], [("<r2>", CONTROL)])
    assert adopt(models, 901).masked.tolist() == []
    models = family([("<r5>", CONTROL)], [("<think>", USER_DEFINED)], ["word"])
    with pytest.raises(VocabularyError, match=r"base .* and reference:r1 .*'word'"):
        adopt(models, 901)


@pytest.mark.parametrize("both", [True, False])
def test_a_token_that_two_tuned_models_mean_otherwise_is_refused_by_both_names(both):
    models = family([BOX], [THINK], [BOX], [("<tool>", CONTROL)], [BOX])
    keys = {"tuned:r1": frozenset({901})} | ({"tuned:b": frozenset({901})} if both else {})
    with pytest.raises(VocabularyError) as caught:
        reconcile(models, adopt=keys)
    assert str(caught.value) == (
        "tuned:r1 (tuned:r.gguf) adopts token 901 as '<think>', which is '<tool>' for tuned:b "
        "(tuned:.gguf); a token has one meaning: leave it out of adopt, or leave one of the two "
        "deltas out"
    )


def test_two_tuned_models_may_adopt_one_token_or_one_leave_it_alone():
    common = reconcile(
        family([BOX], [THINK], [BOX], [THINK], [THINK]),
        adopt={"tuned:r1": frozenset({901}), "tuned:b": frozenset({901})},
    )
    assert common.adopters == {901: "tuned:r1"}
    assert adopt(family([BOX], [THINK], [BOX], [BOX], [BOX]), 901).masked.tolist() == []


def test_a_token_above_the_common_width_cannot_be_adopted():
    models = family(["x"], ["x", THINK], ["x", BOX])
    with pytest.raises(VocabularyError, match=r"adopts token 902 '<think>', and .* up to 901"):
        adopt(models, 902)


# -- padding -----------------------------------------------------------------------------------


def test_vocabularies_that_differ_in_padding_only_are_said_to_be_fine():
    models = family(padding(1000), [], [])
    common = reconcile(models)
    assert common.padding == (
        "fine: they differ in padding only "
        "(base 1,901, tuned:r1 and reference:r1 901; the first 901 agree)"
    )
    assert common.warnings == ()
    assert common.widths == {"base": 1901, "tuned:r1": 901, "reference:r1": 901}
    assert reconcile(family([], [])).padding == ""
    older = [("[PAD901]", USER_DEFINED), ("", UNUSED)]
    assert reconcile(family([], older)).padding.startswith("fine: they differ in padding only (")


def test_padding_is_fine_beside_tokens_that_differ():
    models = family([BOX, *padding(2)], [("<think>", USER_DEFINED)], [BOX])
    expected = "fine: behind the first 902 they have padding only (base 904, tuned:r1"
    for common in (reconcile(models), adopt(models, 901)):
        assert common.padding.startswith(expected)


def test_a_tail_with_tokens_in_it_is_not_called_padding():
    assert reconcile(family([], [*padding(2), ("<tool>", CONTROL)])).padding == ""


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
