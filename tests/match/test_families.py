"""What the models of one vocabulary lack for a trio, and which two an adapter can use."""

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
from helpers.model_tree import CHAT, Shape, Tokens, Written

from edge_eft.files.hub_file import HubFile
from edge_eft.files.recipe import Delta, ModelSpec, Recipe
from edge_eft.match.candidates import read_candidates
from edge_eft.match.families import families
from edge_eft.match.stores import Found

SMALL = Shape("qwen3", 2, 256, 512, Tokens(9, 400, 390), 1)
LARGE = Shape("qwen3", 8, 512, 1024, Tokens(9, 400, 390), 2)
HUGE = replace(LARGE, n_layer=16)
CHATTING = {"tuned": 0.02, "template": CHAT}


def on_hub(repo, file, size):
    return ModelSpec(Path(file), source=HubFile(repo, file, size=size, confidence="named"))


def catalogued(size="8B", n_bytes=5 << 30):
    delta = Delta(
        "chat",
        1.0,
        on_hub("q/small", "Qwen3-0.6B-Q8_0.gguf", 600),
        on_hub("q/small-base", "Qwen3-0.6B-Base.Q8_0.gguf", 600),
    )
    return Recipe(
        f"qwen3-{size.lower()}",
        "",
        "",
        None,
        on_hub("q/base", f"Qwen3-{size}-Base.Q4_0.gguf", n_bytes),
        MappingProxyType({"chat": delta}),
        None,
        instruct=on_hub("q/instruct", f"Qwen3-{size}-Q4_0.gguf", n_bytes),
    )


@pytest.fixture
def found(tmp_path):
    def measured(models, recipes=(), *, on_the_hub=None, available=1, memory_of=lambda trio: 0):
        places, repos = [], on_the_hub or {}
        for name, model in models.items():
            owner = "Hugging Face" if name in repos else "folder"
            places.append(Found(model.write(tmp_path / name), owner, repos.get(name, "folder")))
        candidates, notes = read_candidates(places)
        assert notes == []
        return families(candidates, recipes, memory_of, available)

    return measured


INSTRUCT = {
    "Qwen3-8B-Q4_0.gguf": Written(LARGE, "Q4_0", **CHATTING),
    "Qwen3-0.6B-Q8_0.gguf": Written(SMALL, **CHATTING),
}


def test_the_recipe_that_has_most_of_the_models_completes_them(found):
    recipes = [catalogued("4B", 1 << 30), catalogued(), catalogued("14B", 9 << 30)]
    (family,) = found(INSTRUCT, recipes)
    assert [each.title for each in family.models] == ["Qwen3-8B-Q4_0", "Qwen3-0.6B-Q8_0"]
    assert family.lacks.startswith("tuned only")
    assert family.completion.name == "qwen3-8b", "for its instruct model is here"
    assert family.completion.lacking == (
        ("base", "Qwen3-8B-Base.Q4_0"),
        ("reference", "Qwen3-0.6B-Base.Q8_0"),
    )


def test_of_several_recipes_that_with_least_to_fetch_is_named(found):
    small = {"Qwen3-0.6B-Q8_0.gguf": INSTRUCT["Qwen3-0.6B-Q8_0.gguf"]}
    (family,) = found(small, [catalogued(), catalogued("4B", 1 << 30)])
    assert family.completion.name == "qwen3-4b"
    assert family.led == ()


@pytest.mark.parametrize(("repo", "spared"), [("q/small", 600), ("another/small", 0)])
def test_what_a_pull_finds_in_the_hubs_cache_is_not_fetched(found, repo, spared):
    (family,) = found(INSTRUCT, [catalogued()], on_the_hub={"Qwen3-0.6B-Q8_0.gguf": repo})
    assert family.completion.size == (5 << 30) + 1200 - spared


def test_vocabularies_are_kept_apart_and_unknown_ones_are_told_the_kind(found):
    stranger = replace(SMALL, architecture="llama", tokens=Tokens(10, 300, 290))
    models = INSTRUCT | {"Other-1B-base-Q8_0.gguf": Written(stranger)}
    of_qwen, other = found(models, [catalogued()])
    assert len(of_qwen.models) == 2
    assert other.completion is None
    assert other.lacks.startswith("not tuned: a trio takes a small tuned model")


def test_the_largest_that_fits_leads_and_no_base_does(found):
    models = INSTRUCT | {
        "Qwen3-14B-Q4_0.gguf": Written(HUGE, "Q4_0", **CHATTING),
        "Qwen3-32B-Base-Q4_0.gguf": Written(replace(HUGE, n_layer=20), "Q4_0"),
        "Qwen3-0.6B-Q4_0.gguf": Written(SMALL, "Q4_0", **CHATTING),
    }

    def needed(trio):
        return trio.base.header.n_layer

    def led(available):
        (family,) = found(models, memory_of=needed, available=available)
        return [(large.title, small.title) for large, small in family.led]

    assert led(100) == [
        ("Qwen3-14B-Q4_0", "Qwen3-8B-Q4_0"),
        ("Qwen3-14B-Q4_0", "Qwen3-0.6B-Q8_0"),
    ]
    assert led(10)[-1] == ("Qwen3-8B-Q4_0", "Qwen3-0.6B-Q8_0")
    assert led(1)[-1] == ("Qwen3-8B-Q4_0", "Qwen3-0.6B-Q8_0"), "nothing fits: the least"


def test_models_of_two_series_do_not_lead_one_another(found):
    models = {
        "Qwen3-8B-Q4_0.gguf": INSTRUCT["Qwen3-8B-Q4_0.gguf"],
        "Qwen2.5-0.5B-Instruct-Q8_0.gguf": Written(SMALL, **CHATTING),
    }
    (family,) = found(models)
    assert family.led == ()
