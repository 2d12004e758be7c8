"""recipe: another base, a recipe of three files, and hashes."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.recipe_files import BASE, DELTA, SHA, WHOLE, write_toml

from edge_eft.errors import ModelFileError, RecipeError
from edge_eft.files import recipe as recipe_module
from edge_eft.files.recipe import (
    Delta,
    ModelSpec,
    Recipe,
    absolute,
    from_files,
    model_sha256,
    verify,
)
from edge_eft.files.recipe_names import load_recipe


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


def files_with_hashes(folder: Path) -> Path:
    for name in ("b", "t", "r"):
        (folder / f"{name}.gguf").write_bytes(name.encode() * 1000)
    digest = {
        name: hashlib.sha256((folder / f"{name}.gguf").read_bytes()).hexdigest()
        for name in ("b", "t", "r")
    }
    return write_toml(
        folder,
        f'[base]\nfile = "b.gguf"\nsha256 = "{digest["b"]}"\n[delta.d]\n'
        f'tuned = {{ lora = "t.gguf", on = "reference", sha256 = "{digest["t"]}" }}\n'
        f'reference = {{ file = "r.gguf", sha256 = "{digest["r"]}" }}\n',
    )


def test_verify_passes_what_is_as_stated(tmp_path: Path) -> None:
    assert verify(load_recipe(files_with_hashes(tmp_path))) == ()


@pytest.mark.parametrize("name", ["b", "t", "r"])
def test_verify_names_a_changed_file_and_both_digests(tmp_path: Path, name: str) -> None:
    recipe = load_recipe(files_with_hashes(tmp_path))
    stated = {(spec.lora or spec.file).stem: spec.sha256 for spec in recipe.roles().values()}[name]
    (tmp_path / f"{name}.gguf").write_bytes(b"changed")
    found = hashlib.sha256(b"changed").hexdigest()
    with pytest.raises(ModelFileError) as caught:
        verify(recipe)
    for part in (f"{name}.gguf: ", found[:12], str(stated)[:12], "get it again"):
        assert part in str(caught.value)


def test_verify_names_a_missing_file_of_a_recipe_without_base(tmp_path: Path) -> None:
    text = f'[delta.d]\ntuned = {{ file = "t.gguf", sha256 = "{SHA}" }}\n'
    recipe = load_recipe(write_toml(tmp_path, text + 'reference = { file = "r.gguf" }\n'))
    with pytest.raises(ModelFileError, match=r"t\.gguf: cannot be read"):
        verify(recipe)


def test_large_files_are_hashed_on_demand_and_named_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(files_with_hashes(tmp_path))
    monkeypatch.setattr(recipe_module, "VERIFIED_AT_LOAD", 999)
    (tmp_path / "b.gguf").write_bytes(b"x" * 1000)
    assert verify(recipe) == tuple(tmp_path / f"{name}.gguf" for name in "brt")
    with pytest.raises(ModelFileError, match=r"b\.gguf: sha256 is"):
        verify(recipe, all_sizes=True)


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


def test_every_part_of_a_split_model_has_its_own_hash(tmp_path: Path) -> None:
    parts = [tmp_path / f"b-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    for part in parts:
        part.write_bytes(part.name.encode())
    hashes = model_sha256(parts[0])
    assert hashes == tuple(hashlib.sha256(part.name.encode()).hexdigest() for part in parts)
    text = f"[base]\nfile = '{parts[0]}'\nsha256 = {list(hashes)}\n{DELTA}"
    recipe = load_recipe(write_toml(tmp_path, text))
    assert recipe.base is not None
    assert recipe.base.sha256 == hashes
    assert verify(recipe) == ()
    parts[1].write_bytes(b"changed")
    with pytest.raises(ModelFileError, match=r"b-00002-of-00003\.gguf: sha256 is .* states"):
        verify(recipe)
    parts[1].unlink()
    with pytest.raises(ModelFileError, match=r"b-00002-of-00003\.gguf: cannot be read"):
        verify(recipe)


def test_one_hash_for_three_parts_is_refused_and_never_taken_for_verified(tmp_path: Path) -> None:
    text = f"[base]\nfile = 'b-00001-of-00003.gguf'\nsha256 = '{SHA}'\n{DELTA}"
    with pytest.raises(ModelFileError, match="a model of 3 files, and the recipe states 1 sha256"):
        verify(load_recipe(write_toml(tmp_path, text)))
    text = text.replace("-00001-of-00003", "").replace(f"'{SHA}'", f"['{SHA}', '{SHA}']")
    with pytest.raises(ModelFileError, match="a model of 1 files, and the recipe states 2"):
        verify(load_recipe(write_toml(tmp_path, text)))
