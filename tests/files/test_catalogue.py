"""The catalogue: every recipe reads, and what it says of tokens and prompts holds for its family.

No model is at hand here: `published_vocabularies` makes tokenizers with the families' real special
tokens, and the sources are compared with each other and with docs/catalogue.md.
"""

import re
from collections import defaultdict
from pathlib import Path

import pytest
from helpers.chat_templates import assistant, shown, user
from helpers.published_vocabularies import PUBLISHED, family_of, vocabulary

from edge_eft.files.hub_file import HubFile
from edge_eft.files.recipe import ModelSpec, Recipe
from edge_eft.files.recipe_names import catalogue, load_recipe
from edge_eft.files.recipe_vocabulary import reconcile_recipe
from edge_eft.text.prompt_format import PromptFormat
from edge_eft.text.vocabulary import CommonVocabulary

RECIPES = {name: load_recipe(name) for name in sorted(catalogue())}
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "catalogue.md"
QUANTISATION = re.compile(r"(?<![A-Za-z0-9])(Q\d_\d|Q\d_K_[SML]|Q6_K)\.gguf$", re.IGNORECASE)
# Of a base: a block of tokens gives the logits that each gives alone. What is called Q4_0 has an
# output matrix in Q6_K, for which that does not hold.
EXACT = {"Q8_0"}
MEMORY = (8, 16, 32, 64)  # gigabytes
SMALLER_PAIR = {"llama2-70b"}  # beside 41 GB a pair of 14 GB leaves nothing of 64

each_recipe = pytest.mark.parametrize("name", RECIPES)


def sides(recipe: Recipe) -> dict[str, ModelSpec]:
    """Side → its model: base, tuned and reference, and the large tuned one if there is one."""
    found = {role.partition(":")[0]: spec for role, spec in recipe.roles().items()}
    return found | ({"instruct": recipe.instruct} if recipe.instruct else {})


def source(spec: ModelSpec) -> HubFile:
    assert isinstance(spec.source, HubFile)
    return spec.source


def quantisation(spec: ModelSpec) -> str:
    found = QUANTISATION.search(source(spec).file)
    assert found, f"{source(spec).file} does not say how it is quantised"
    return found[1].upper()


def common(name: str) -> CommonVocabulary:
    roles = RECIPES[name].roles()
    models = {role: vocabulary(family_of(name), role.partition(":")[0])[0] for role in roles}
    return reconcile_recipe(RECIPES[name], roles, models)


# --- what the recipes say ------------------------------------------------------------------


@each_recipe
def test_a_recipe_reads_and_has_its_name(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.path is not None
    assert recipe.name == recipe.path.stem == name == name.lower()
    assert recipe.description
    assert recipe.license
    assert len(recipe.deltas) == 1
    assert family_of(name) in PUBLISHED


@each_recipe
def test_every_model_has_to_be_pulled_and_says_how_sure_it_is(name: str) -> None:
    for side, spec in sides(RECIPES[name]).items():
        assert spec.needs_pull, side
        assert source(spec).size
        assert source(spec).confidence in ("exact", "named", "guessed")
        assert quantisation(spec)
        if source(spec).confidence == "guessed":
            assert spec.sha256 is None
            assert source(spec).revision is None


@each_recipe
def test_the_pair_is_of_one_size_in_eight_bits(name: str) -> None:
    models = sides(RECIPES[name])
    tuned, reference = models["tuned"], models["reference"]
    assert source(tuned).size / source(reference).size == pytest.approx(1.0, abs=0.16)
    assert quantisation(tuned) == quantisation(reference)
    assert quantisation(tuned) == ("Q4_0" if name in SMALLER_PAIR else "Q8_0")
    assert source(tuned).size <= source(models["base"]).size


@each_recipe
def test_the_context_is_one_that_all_three_were_trained_for(name: str) -> None:
    n_ctx = RECIPES[name].n_ctx
    assert n_ctx is not None
    assert n_ctx <= min(PUBLISHED[family_of(name)].n_ctx, 8192)


def test_one_file_is_the_same_in_every_recipe() -> None:
    facts, names = defaultdict(set), defaultdict(set)
    for recipe in RECIPES.values():
        for spec in sides(recipe).values():
            place = source(spec).repo, source(spec).file
            facts[place].add((source(spec), spec.sha256))
            if spec.sha256:
                names[spec.sha256].add(place)
    assert not [place for place, said in facts.items() if len(said) > 1]
    assert not [sha256 for sha256, places in names.items() if len(places) > 1]


def test_every_family_has_a_large_tuned_model_for_adapters_where_one_exists() -> None:
    without = {family_of(name) for name, recipe in RECIPES.items() if not recipe.instruct}
    assert without <= {"codellama", "tinyllama", "r1"}


@pytest.mark.parametrize("name", [name for name in RECIPES if RECIPES[name].instruct])
def test_the_large_tuned_model_is_told_what_the_small_one_is(name: str) -> None:
    models = sides(RECIPES[name])
    tuned, large = models["tuned"], models["instruct"]
    assert (large.prompt, large.template_kwargs) == (tuned.prompt, tuned.template_kwargs)
    assert source(large).size > source(tuned).size


# --- what their models' tokenizers say to it --------------------------------------------------


@each_recipe
def test_the_vocabularies_can_be_combined(name: str) -> None:
    family = PUBLISHED[family_of(name)]
    found = common(name)
    widths = [vocabulary(family_of(name), side)[0].n_vocab for side in ("base", "tuned")]
    assert found.n_vocab == min(widths)
    lost = [line for line in found.warnings if "never generated" in line]
    assert bool(lost) == bool(family.renamed)
    assert ("padding only" in found.padding) == (len(set(widths)) > 1)


def test_a_model_that_renamed_its_thinking_marks_can_write_them() -> None:
    """Of DeepSeek-R1's seven names the reply has two; the others stand in its prompt alone."""
    reasoning = [name for name in RECIPES if family_of(name) == "r1"]
    assert reasoning
    for name in reasoning:
        found = common(name)
        assert list(found.adopted.values()) == ["<think>", "</think>"]
        assert not set(found.adopted) & set(found.masked.tolist())
        assert not [line for line in found.warnings if "think" in line]


@each_recipe
def test_what_ends_a_reply_of_either_ends_it(name: str) -> None:
    family, found = PUBLISHED[family_of(name)], common(name)
    ends = {}
    for side, text in (("base", family.eos), ("tuned", family.tuned_eos or family.eos)):
        texts = vocabulary(family_of(name), side)[0].token_texts()
        ends[side] = texts.index(text.encode())
        assert ends[side] in next(
            found.ends_of(role) for role in found.end_tokens if role.startswith(side)
        )
        assert found.slot_of(ends[side]) == found.end_token
    assert found.end_token == ends["base"]
    assert ends["tuned"] in {found.end_token, *found.masked.tolist()}


@each_recipe
def test_the_tuned_models_are_told_the_turn_and_do_not_think_aloud(name: str) -> None:
    family = family_of(name)
    turn = PUBLISHED[family].turn
    for side, spec in sides(RECIPES[name]).items():
        if side not in ("tuned", "instruct"):
            continue
        header, model = vocabulary(family, side)
        prompt = PromptFormat(spec.prompt or "", model, template_kwargs=spec.template_kwargs)
        ids = prompt.encode([user("Hi")])
        assert shown(model, ids).endswith(turn)
        if family in ("qwen3", "qwen3.5"):
            assert shown(model, ids).endswith("<think>\n\n</think>\n\n")
        longer = prompt.encode([user("Hi"), assistant("Hi"), user("Hi")])
        for told in (ids, longer):
            assert header.bos_token is None or told[1] != header.bos_token, "BOS twice"


@each_recipe
def test_base_and_reference_are_told_plain_text(name: str) -> None:
    for side in ("base", "reference"):
        spec = sides(RECIPES[name])[side]
        header, model = vocabulary(family_of(name), side)
        assert spec.prompt == "plain"
        ids = PromptFormat("plain", model).encode([user("Hi")])
        begun = [header.bos_token] if header.add_bos else []
        assert ids[: len(begun)] == begun
        assert header.bos_token not in ids[len(begun) :]


@each_recipe
def test_a_mark_of_a_turn_is_one_token_of_the_tuned_model(name: str) -> None:
    family = family_of(name)
    _, model = vocabulary(family, "tuned")
    turn = PUBLISHED[family].turn
    marks = [t.removeprefix("~") for t in PUBLISHED[family].special]
    for mark in (each for each in marks if each in turn):
        assert len(model.tokenize(mark, parse_special=True)) == 1


# --- what the page for people says --------------------------------------------------------------


def rows() -> dict[str, list[str]]:
    """Recipe → the cells behind its name, of the page's table."""
    lines = DOCUMENT.read_text("utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]
    return {row[0].strip("`"): row[1:] for row in cells if row[0].startswith("`") and len(row) > 4}


def test_the_page_lists_the_recipes_by_the_memory_they_need() -> None:
    assert list(rows()) == sorted(RECIPES, key=lambda name: (int(rows()[name][0]), name))


@each_recipe
def test_the_page_says_of_a_recipe_what_its_files_come_to(name: str) -> None:
    models = sides(RECIPES[name])
    sizes = {side: (source(models[side]).size or 0) / 1e9 for side in models}
    total = sizes["base"] + sizes["tuned"] + sizes["reference"]
    memory, base, tuned, files, ratio, drafts, licence = rows()[name]
    assert [base, tuned] == [Path(source(models[s]).file).stem for s in ("base", "tuned")]
    assert int(memory) == next(n for n in MEMORY if 1.1 * total + 2.5 <= n)
    assert float(files) == round(total, 1)
    assert float(ratio) == round(sizes["tuned"] / sizes["base"], 2)
    exact = quantisation(models["base"]) in EXACT and family_of(name) != "qwen3.5"
    assert drafts == ("exact" if exact else "up to rounding")
    gated = any(source(spec).gated for spec in models.values())
    assert licence == licence_in_short(RECIPES[name].license) + (", gated" if gated else "")


def licence_in_short(licence: str) -> str:
    return re.sub(r" (Community License|Terms of Use|\([^)]*\)|Falcon-LLM License)", "", licence)
