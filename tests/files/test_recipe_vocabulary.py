"""recipe_vocabulary: the tokens that a recipe names, and the keys that name them."""

from pathlib import Path

import pytest
from helpers import tiny_models
from helpers.recipe_files import write_toml
from helpers.small_vocabularies import Vocabulary
from helpers.tiny_models import EOS, KIND, OTHER_END, RESERVED

from edge_eft import Emulator
from edge_eft.errors import RecipeError, VocabularyError
from edge_eft.files.gguf_vocabulary import read_vocabulary
from edge_eft.files.recipe_names import load_recipe
from edge_eft.files.recipe_vocabulary import named_tokens, reconcile_recipe
from edge_eft.text.vocabulary import CONTROL, UNKNOWN


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


def test_headers_alone_say_what_loaded_models_do(tmp_path: Path) -> None:
    """So that a trio is judged before it is fetched, by the same keys."""
    rename = {RESERVED: ("<think>", KIND.NORMAL)}
    base = tiny_models.write_random(tmp_path / "b.gguf", seed=0, n_padding=8)
    tuned = tiny_models.write_random(tmp_path / "t.gguf", seed=1, rename=rename)
    text = (
        f"[base]\nfile = '{base}'\nend_tokens = ['<other-end>']\n[delta.r1]\n"
        f"tuned = {{ file = '{tuned}', adopt = ['<think>'] }}\nreference = {{ file = '{base}' }}\n"
    )
    recipe = load_recipe(write_toml(tmp_path, text))
    roles = recipe.roles()
    headers = {role: read_vocabulary(spec.file) for role, spec in roles.items()}
    common = reconcile_recipe(recipe, roles, headers)
    assert (common.adopted, common.ends_of("base")) == ({RESERVED: "<think>"}, [EOS, OTHER_END])
    assert common.padding.startswith("fine: behind the first 352 they have padding only")
    with Emulator.load(recipe, n_threads=1, n_ctx=64) as emulator:
        loaded = emulator.vocabulary
    for name in ("adopted", "adopters", "silent", "padding", "warnings", "end_token", "widths"):
        assert getattr(common, name) == getattr(loaded, name)
    plain = load_recipe(write_toml(tmp_path, text.replace(", adopt = ['<think>']", "")))
    with pytest.raises(VocabularyError, match=rf"write adopt = \[{RESERVED}\] in its table"):
        reconcile_recipe(plain, plain.roles(), headers)
    wrong = load_recipe(write_toml(tmp_path, text.replace("<think>", "<thin>")))
    with pytest.raises(RecipeError, match=r"mine.toml: delta.r1.tuned.adopt names '<thin>'"):
        reconcile_recipe(wrong, wrong.roles(), headers)
