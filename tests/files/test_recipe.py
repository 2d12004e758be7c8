"""recipe: its models, another base, and a recipe of three files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from helpers.recipe_files import BASE, DELTA, WHOLE, write_toml

from edge_eft.errors import RecipeError
from edge_eft.files.hub_file import HubFile
from edge_eft.files.recipe import Delta, ModelSpec, Recipe, absolute, from_files
from edge_eft.files.recipe_names import load_recipe


def test_its_models_can_be_put_in_place_of_by_role(tmp_path: Path) -> None:
    recipe = load_recipe(write_toml(tmp_path, BASE + DELTA + '[instruct]\nfile = "i.gguf"\n'))
    assert list(recipe.models()) == ["base", "instruct", "tuned:d", "reference:d"]
    assert list(recipe.models(instruct=False)) == ["base", "tuned:d", "reference:d"]
    assert recipe.with_models(recipe.models()) == recipe
    other, lora = (
        ModelSpec(tmp_path / "o.gguf"),
        ModelSpec(tmp_path / "r.gguf", lora=tmp_path / "l"),
    )
    new = recipe.with_models({"reference:d": other, "tuned:d": lora})
    assert (new.base, new.instruct) == (recipe.base, recipe.instruct)
    assert new.deltas["d"].tuned.file == other.file, "an adapter is put on the reference"
    to_pull = ModelSpec("x.gguf", source=HubFile("o/n", "x.gguf"))
    assert recipe.with_models({"base": to_pull}).needs_pull
    assert not recipe.with_models({"instruct": to_pull}).needs_pull


def test_a_recipe_without_base_is_completed_by_with_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(write_toml(tmp_path, DELTA))
    assert recipe.base is None
    with pytest.raises(RecipeError, match="names no base model; give one: --base FILE"):
        recipe.roles()
    monkeypatch.chdir(tmp_path)
    whole = recipe.with_base("big.gguf")
    assert whole.base == ModelSpec(tmp_path / "big.gguf")
    assert whole.roles()["reference:d"].prompt == "plain"
    other = recipe.with_base("big.gguf", prompt="transcript")
    assert other.roles()["reference:d"].prompt == "transcript"
    again = other.with_base("big.gguf", prompt="chatml")
    assert again.roles()["reference:d"].prompt == "chatml", "it follows the base"
    assert recipe.base is None, "the first recipe is unchanged"
    with pytest.raises(RecipeError, match="did you mean plain"):
        recipe.with_base("big.gguf", prompt="plian")


def test_the_base_of_a_recipe_takes_another_prompt_format(tmp_path: Path) -> None:
    recipe = load_recipe(write_toml(tmp_path, BASE + DELTA))
    other = recipe.with_base(prompt="chatml")
    assert other.base == replace(recipe.base, prompt="chatml")
    assert other.roles()["reference:d"].prompt == "chatml"
    assert recipe.with_base() == recipe


def test_another_base_keeps_the_prompt_and_drops_the_hash(tmp_path: Path) -> None:
    recipe = load_recipe(write_toml(tmp_path, WHOLE)).with_base("/big.gguf")
    variables = {"enable_thinking": False, "tags": ["a", {"b": 1.5}]}
    told = {"prompt": "transcript", "template_kwargs": variables}
    assert recipe.base == ModelSpec(Path("/big.gguf"), **told)


def test_only_a_tuned_model_adopts_tokens() -> None:
    plain, adopting = (ModelSpec(Path("/m.gguf"), adopt=tokens) for tokens in ((), (5, "<t>")))
    delta = Delta("d", 1.0, adopting, plain)
    with pytest.raises(RecipeError, match="the reference of 'd' adopts tokens; only a tuned"):
        Delta("d", 1.0, plain, adopting)
    with pytest.raises(RecipeError, match="base adopts tokens; only a tuned"):
        Recipe("r", "", "", None, adopting, {"d": delta}, None)
    with pytest.raises(RecipeError, match="a token in adopt is None"):
        ModelSpec(Path("/m.gguf"), adopt=(None,))  # type: ignore[arg-type]


def test_from_files_makes_a_recipe_of_three_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = from_files("b.gguf", "t.gguf", "/r.gguf", prompt="chatml")
    assert recipe.roles() == {
        "base": ModelSpec(tmp_path / "b.gguf", prompt="chatml"),
        "tuned:tuned": ModelSpec(tmp_path / "t.gguf", prompt="template"),
        "reference:tuned": ModelSpec(Path("/r.gguf"), prompt="chatml"),
    }
    assert recipe.deltas["tuned"].weight == 1.0
    split = from_files("b-00001-of-00003.gguf", "t.gguf", "/r.gguf")
    assert (recipe.name, split.name) == ("b", "b"), "not after a part"
    with pytest.raises(RecipeError, match="prompt is 'chat-ml'"):
        from_files("b.gguf", "t.gguf", "r.gguf", prompt="chat-ml")


def test_a_path_that_cannot_be_made_absolute_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(RecipeError, match=r"^x\.gguf: the working directory is gone; "):
        absolute("x.gguf")
    assert absolute("/x.gguf") == Path("/x.gguf")
    with pytest.raises(RecipeError, match="a path is empty"):
        absolute("")
    with pytest.raises(RecipeError, match=r"no home directory .* '~nobody-here/x.gguf'; .* \./~"):
        absolute("~nobody-here/x.gguf")
    for name in ("a\0.gguf", "a\ud800.gguf"):  # was a ValueError of posixpath's
        with pytest.raises(RecipeError, match="cannot be the name of a file"):
            absolute(name)
