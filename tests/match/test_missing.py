"""What is missing to complete a trio."""

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
from helpers.model_tree import CHAT, Shape, Tokens, Written

from edge_eft.files.gguf_split import model_stem
from edge_eft.files.hub_file import HubFile
from edge_eft.files.model_names import model_name
from edge_eft.files.recipe import Delta, ModelSpec, Recipe
from edge_eft.files.recipe_names import catalogue, load_recipe
from edge_eft.match.candidates import read_candidates
from edge_eft.match.missing import Missing, missing
from edge_eft.match.stores import Found
from edge_eft.match.trios import propose

SMALL = Shape("qwen3", 2, 256, 512, Tokens(9, 400, 390), 1)
LARGE = Shape("qwen3", 8, 512, 1024, Tokens(9, 400, 390), 2)
MODELS = {
    "base": ("Qwen3-8B-Base.Q4_K_M.gguf", Written(LARGE, "Q4_0")),
    "tuned": ("Qwen3-0.6B-Q8_0.gguf", Written(SMALL, tuned=0.02, template=CHAT)),
    "reference": ("Qwen3-0.6B-Base-Q8_0.gguf", Written(SMALL)),
}


def on_hub(file, size):
    return ModelSpec(Path(file), source=HubFile("o/r", file, size=size, confidence="named"))


def catalogued(name="qwen3-8b", base="Qwen3-8B-Base.Q4_0.gguf"):
    tuned = replace(on_hub("Qwen3-0.6B-Q8_0.gguf", 639 << 20), prompt="template")
    delta = Delta("chat", 1.0, tuned, on_hub("Qwen3-0.6B-Base.Q8_0.gguf", 600 << 20))
    deltas = MappingProxyType({"chat": delta})
    return Recipe(name, "", "", None, on_hub(base, 5 << 30), deltas, None)


@pytest.fixture
def lacking(tmp_path):
    def measured(*roles, recipes=(), more=()):
        models = [MODELS[role] for role in roles] + list(more)
        paths = [model.write(tmp_path / name) for name, model in models]
        candidates, _ = read_candidates(Found(path, "folder", "own") for path in paths)
        trios, _ = propose(candidates, lambda trio: 0, 1)
        return missing(candidates, trios, recipes)

    return measured


def test_the_catalogue_says_what_is_missing_and_how_large_it_is(lacking):
    assert lacking("tuned", "base", recipes=[catalogued()]) == [
        Missing(
            (("base", "Qwen3-8B-Base.Q4_K_M"), ("tuned", "Qwen3-0.6B-Q8_0")),
            "reference",
            "Qwen3-0.6B-Base.Q8_0",
            600 << 20,
            "o/r",
            "qwen3-8b",
        )
    ]


def test_models_of_other_vocabularies_are_not_completed_whatever_their_names(lacking):
    stranger = replace(LARGE, tokens=Tokens(10, 400, 390))
    more = [("Qwen3-8B-Base.Q4_K_M.gguf", Written(stranger, "Q4_0"))]
    assert lacking("tuned", more=more, recipes=[catalogued()]) == []


def test_of_each_larger_base_in_the_catalogue_one_line_is_said(lacking):
    recipes = [catalogued(), catalogued("qwen3-14b", "Qwen3-14B-Base.Q4_0.gguf")]
    found = lacking("tuned", "reference", recipes=recipes)
    assert [(lack.role, lack.pull) for lack in found] == [
        ("base", "qwen3-8b"),
        ("base", "qwen3-14b"),
    ]


@pytest.mark.parametrize("role", MODELS)
def test_a_recipe_of_which_one_model_is_here_is_not_spoken_of(lacking, role):
    assert not [lack for lack in lacking(role, recipes=[catalogued()]) if lack.pull]


def test_where_all_are_here_nothing_is_missing(lacking):
    assert lacking(*MODELS, recipes=[catalogued()]) == []


@pytest.mark.parametrize(
    ("here", "role", "what"),
    [
        (("tuned", "base"), "reference", "the pre-trained model that Qwen3-0.6B-Q8_0 was tuned"),
        (("reference", "base"), "tuned", "a model that was tuned from Qwen3-0.6B-Base-Q8_0"),
        (("tuned", "reference"), "base", "a larger pre-trained model of the family"),
    ],
)
def test_without_a_catalogue_the_kind_of_what_is_missing_is_said(lacking, here, role, what):
    (lack,) = lacking(*here)
    assert lack.role == role
    assert lack.what.startswith(what)
    assert {side for side, _ in lack.here} == set(here)
    assert lack.pull is None


def test_of_instruct_models_alone_nothing_is_said(lacking):
    more = [("Qwen3-8B-Q4_0.gguf", Written(LARGE, "Q4_0", tuned=0.02, template=CHAT))]
    assert lacking("tuned", more=more) == []


def test_quantisations_of_one_model_give_one_line(lacking):
    name, model = MODELS["tuned"]
    more = [(name.replace("Q8_0", "Q4_0"), replace(model, quantisation="Q4_0"))]
    assert len(lacking("tuned", "base", more=more)) == 1


def test_of_several_quantisations_in_the_catalogue_the_first_is_named(lacking):
    recipes = [catalogued(), catalogued("qwen3-8b-q8", "Qwen3-8B-Base.Q8_0.gguf")]
    (lack,) = lacking("tuned", "reference", recipes=recipes)
    assert lack.pull == "qwen3-8b"


def test_of_several_quantisations_that_of_the_files_here_is_named(lacking):
    recipes = [catalogued(), catalogued("qwen3-8b-k", "Qwen3-8B-Base.Q4_K_M.gguf")]
    (lack,) = lacking("tuned", "base", recipes=recipes)
    assert lack.pull == "qwen3-8b-k"


def test_who_has_a_trio_is_not_told_of_other_bases_for_its_pair(lacking):
    assert lacking(*MODELS, recipes=[catalogued("qwen3-14b", "Qwen3-14B-Base.Q4_0.gguf")]) == []


def test_the_names_in_the_catalogue_say_what_its_roles_are():
    for path in catalogue().values():
        for role, spec in load_recipe(path).roles().items():
            name = model_name(model_stem(spec.file))
            says = name.plainly_tuned if name.tuned is None else name.tuned
            if "codellama" not in name.core:  # tuned on code, and not by a chat
                assert (bool(name.core), says) == (True, role.startswith("tuned")), spec.file
