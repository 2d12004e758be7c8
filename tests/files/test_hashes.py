"""hashes: files that are as stated, changed, missing, large, or split."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from helpers.recipe_files import DELTA, SHA, write_toml

from edge_eft.errors import ModelFileError
from edge_eft.files import hashes as hashes_module
from edge_eft.files.hashes import model_sha256, verify
from edge_eft.files.recipe_names import load_recipe


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
    monkeypatch.setattr(hashes_module, "VERIFIED_AT_LOAD", 999)
    (tmp_path / "b.gguf").write_bytes(b"x" * 1000)
    assert verify(recipe) == tuple(tmp_path / f"{name}.gguf" for name in "brt")
    with pytest.raises(ModelFileError, match=r"b\.gguf: sha256 is"):
        verify(recipe, all_sizes=True)


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
