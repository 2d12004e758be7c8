"""recipe_names: which recipe a word means, and what becomes one of the user's own."""

from __future__ import annotations

import os
import resource
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.recipe_files import DELTA

from edge_eft.errors import RecipeError
from edge_eft.files import recipe_names
from edge_eft.files.recipe import Recipe, from_files
from edge_eft.files.recipe_names import list_recipes, load_recipe, own_recipes, save_recipe


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The `models` of a package with an embedded recipe and one in the catalogue."""
    package = tmp_path / "site" / "edge_eft"
    (package / "models" / "catalogue").mkdir(parents=True)
    for name in ("atlas", "catalogue/large-8b"):
        (package / "models" / f"{name}.toml").write_text(DELTA)
    monkeypatch.setattr(recipe_names, "__file__", str(package / "files" / "recipe_names.py"))
    return package / "models"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's directory of recipes, which is not there yet."""
    monkeypatch.setenv("EDGE_EFT_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "recipes"


def recipe(name: str) -> Recipe:
    return replace(from_files("/m/b.gguf", "/m/t.gguf", "/m/r.gguf"), name=name)


def test_recipes_are_found_by_name(tmp_path: Path, installed: Path, own: Path) -> None:
    assert list_recipes() == {
        "atlas": installed / "atlas.toml",
        "large-8b": installed / "catalogue" / "large-8b.toml",
    }
    assert load_recipe("atlas").path == installed / "atlas.toml"
    with pytest.raises(RecipeError, match=r"'atlsa' is not known; near: atlas$"):
        load_recipe("atlsa")
    with pytest.raises(RecipeError, match=r"near: large-8b \(edge-eft pull large-8b\)$"):
        load_recipe("Large")
    for place in (tmp_path, tmp_path / "none.toml"):
        with pytest.raises(RecipeError, match=r"cannot be read .* `edge-eft list` shows"):
            load_recipe(place)


def test_models_beside_the_package_are_ours_in_a_checkout_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In site-packages a folder `models` belongs to another package."""
    (tmp_path / "edge_eft").mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "atlas.toml").write_text(DELTA)
    place = tmp_path / "edge_eft" / "files" / "recipe_names.py"
    monkeypatch.setattr(recipe_names, "__file__", str(place))
    assert list_recipes() == {}
    (tmp_path / "pyproject.toml").write_text("")
    assert list(list_recipes()) == ["atlas"]


def test_a_saved_recipe_is_found_by_its_name_and_before_the_catalogue(
    installed: Path, own: Path
) -> None:
    mine = recipe("large-8b")
    path = save_recipe(mine)
    assert path == own / "large-8b.toml"
    assert load_recipe("large-8b") == replace(mine, path=path)
    assert os.listdir(own) == ["large-8b.toml"]


def test_a_recipe_is_replaced_only_by_force(installed: Path, own: Path) -> None:
    save_recipe(recipe("mine"))
    for name in ("mine", "Mine"):  # one file to a Mac or Windows
        with pytest.raises(RecipeError, match=r"'mine' already; .* edge-eft remove mine"):
            save_recipe(recipe(name))
    path = save_recipe(replace(recipe("Mine"), description="new"), force=True)
    assert own_recipes() == {"mine": path}
    assert load_recipe("mine").description == "new"


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "../x",
        "a/b",
        "a\\b",
        "/tmp/x",
        "~",
        "nul",
        "COM1.x",
        "a b",
        "x" * 65,
        "a\nb",
        "a\0",
        "é",
        "-rf",
        "x.toml",
        "atlas",
        "ATLAS",
    ],
)
def test_a_name_that_is_no_plain_one_is_refused(installed: Path, own: Path, name: str) -> None:
    with pytest.raises(RecipeError, match=r"cannot be the name of a recipe|comes with edge_eft"):
        save_recipe(recipe(name))
    assert not own.exists()


def test_a_directory_that_cannot_be_written_is_said_and_nothing_is_left(
    tmp_path: Path, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGE_EFT_HOME", str(tmp_path / "file"))
    with pytest.raises(RecipeError, match=r"'mine' cannot be saved .* EDGE_EFT_HOME"):
        save_recipe(recipe("mine"))


def test_a_full_disk_is_said(installed: Path, own: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, limits[1]))
    try:
        with pytest.raises(RecipeError, match=r"cannot be saved \(File too large\); EDGE_EFT_HOME"):
            save_recipe(recipe("mine"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(own.iterdir()) == []


def test_a_half_written_recipe_is_none(installed: Path, own: Path) -> None:
    own.mkdir(parents=True)
    (own / ".mine.toml").write_text("name = ")
    assert own_recipes() == {}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with a name")
def test_a_pipe_is_no_recipe_and_is_not_waited_for(installed: Path, own: Path) -> None:
    own.mkdir(parents=True)
    os.mkfifo(own / "pipe.toml")
    (own / "gone.toml").symlink_to("nowhere")
    assert own_recipes() == {"gone": own / "gone.toml"}


def test_a_path_is_read_without_a_look_at_what_else_there_is(
    installed: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`list` reads every recipe by its path, and there may be a thousand of them."""
    path = save_recipe(recipe("mine"))
    monkeypatch.setattr(recipe_names, "list_recipes", lambda: pytest.fail("looked for all"))
    assert load_recipe(path).name == "mine"


def test_a_name_may_be_spelled_as_elsewhere(installed: Path, own: Path) -> None:
    path = installed / "catalogue" / "large-8b.toml"
    assert load_recipe("Large:8B").path == load_recipe("large-8b").path == path


def test_a_name_that_no_file_can_have_is_one_line(installed: Path, own: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe("x" * 300)
