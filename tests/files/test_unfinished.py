"""unfinished: the pulls that have not ended, by name."""

import pytest
from helpers.hub_cache import pulled_spec, recipe_of

from edge_eft.errors import RecipeError
from edge_eft.files.pulled import forget_partials, partial_files
from edge_eft.files.recipe_names import list_recipes, load_recipe
from edge_eft.files.unfinished import begun, ended, stopped_pull, unfinished


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_EFT_HOME", str(tmp_path / "home"))
    specs = [pulled_spec(tmp_path / "hub", f"o/{each}", each.encode()) for each in "abc"]
    return recipe_of("Mine", *specs)


def test_a_pull_that_has_begun_is_known_until_it_ended(recipe):
    assert unfinished() == {}
    begun(recipe)
    begun(recipe)
    assert load_recipe(stopped_pull("mine")).base.source == recipe.base.source
    assert "Mine" not in list_recipes()
    ended("Mine")
    ended("Mine")
    assert (unfinished(), stopped_pull("mine")) == ({}, None)


def test_a_place_that_cannot_be_written_is_one_line(recipe, tmp_path):
    (tmp_path / "home").write_text("")
    with pytest.raises(RecipeError, match=r"cannot be noted .*EDGE_EFT_HOME"):
        begun(recipe)


def test_a_link_in_the_place_of_a_part_is_left_alone(recipe, tmp_path):
    (partial, name), *_ = partial_files(recipe.base).items()
    other = tmp_path / "other"
    other.write_bytes(b"x")
    partial.symlink_to(other)
    assert forget_partials({partial: name}) == 0
    assert other.exists()
    partial.unlink()
    partial.write_bytes(b"12")
    assert forget_partials({partial: name}) == 2
    assert name.exists()
