"""lora: one adapter on the small instruct model leads the large one; what cannot is one line."""

import json
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import pytest
from helpers import tiny_models
from helpers.hugging_face import adapter_directory, model_directory, peft_directory, random_pairs

from edge_eft import Emulator
from edge_eft.errors import EdgeEftError, ModelFileError, RecipeError
from edge_eft.files import hub_file, recipe_names
from edge_eft.files.lora import lora_on_files
from edge_eft.files.recipe import Delta, ModelSpec, Recipe
from edge_eft.files.recipe_names import load_recipe, save_recipe

MODULES = {
    f"layers.{layer}.self_attn.{name}_proj": (64, 64) for layer in (0, 1) for name in ("q", "v")
}


class Family(NamedTuple):
    """The large and the small instruct model, what they were tuned from, and an adapter."""

    large: Path
    small: Path
    base: Path
    reference: Path
    lora: Path
    peft: Path


@pytest.fixture(scope="module")
def family(tmp_path_factory) -> Family:
    folder = tmp_path_factory.mktemp("family")
    models = [
        tiny_models.write_random(folder / f"{name}.gguf", seed, d=d, name=name)
        for seed, (name, d) in enumerate(
            {"large-instruct": 128, "small-instruct": 64, "large": 128, "small": 64}.items()
        )
    ]
    lora = tiny_models.write_adapter(folder / "lora.gguf")
    peft = peft_directory(folder / "peft", random_pairs(MODULES))
    return Family(*models, lora, peft)


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """A cache and recipes of the test's own."""
    monkeypatch.setenv("EDGE_EFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EDGE_EFT_HOME", str(tmp_path / "home"))


def recipe_of(family: Family, name: str = "mine", **changes: object) -> Recipe:
    """A recipe as `pull` writes it: the pre-trained large one, and the instruct one beside."""
    small = ModelSpec(
        family.small, prompt="template", template_kwargs={"enable_thinking": False},
        end_tokens=("<other-end>",), adopt=("<reserved>",),
    )  # fmt: skip
    recipe = Recipe(
        name=name,
        description="",
        license="MIT",
        n_ctx=256,
        base=ModelSpec(family.base),
        deltas={"chat": Delta("chat", 0.5, small, ModelSpec(family.reference))},
        path=None,
        instruct=ModelSpec(family.large),
    )
    return replace(recipe, **changes)


def refusal(error: type[EdgeEftError], recipe: Recipe, adapter: Path) -> str:
    with pytest.raises(error) as caught:
        recipe.with_lora(adapter)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_roles_are_the_instruct_models_asked_alike(family):
    led = recipe_of(family).with_lora(family.lora)
    roles = led.roles()
    assert list(roles) == ["base", "tuned:tuned", "reference:tuned"]
    base, tuned, reference = roles.values()
    assert [spec.file for spec in roles.values()] == [family.large, family.small, family.small]
    assert [spec.lora for spec in roles.values()] == [None, family.lora, None]
    assert {spec.prompt for spec in roles.values()} == {"template"}
    assert all(spec.template_kwargs == {"enable_thinking": False} for spec in roles.values())
    assert tuned.end_tokens == reference.end_tokens == ("<other-end>",)
    assert base.end_tokens == tuned.adopt == reference.adopt == ()
    assert (led.name, led.license, led.n_ctx) == ("mine+lora", "MIT", 256)
    assert led.deltas["tuned"].weight == 1.0


def test_a_peft_directory_acts_as_its_gguf_does(family):
    recipe = recipe_of(family)
    led = recipe.with_lora(family.peft)
    converted = led.deltas["tuned"].tuned
    assert converted.lora is not None
    assert converted.source == str(family.peft)
    same = recipe.with_lora(shutil.copy(converted.lora, family.peft.with_suffix(".gguf")))
    replies = []
    for each in (led, same, recipe.with_lora(family.lora)):
        with Emulator(each) as emulator:
            replies.append(emulator.generate("the red one", temperature=0, max_tokens=12).tokens)
    assert replies[0] == replies[1] != replies[2]


def test_a_saved_recipe_is_led_by_its_name(family):
    save_recipe(recipe_of(family))
    with Emulator.load("mine", lora=family.lora) as emulator:
        assert emulator.record.files["base"].path == family.large
        assert emulator.record.files["tuned:tuned"].path == family.lora
        assert len(emulator.contexts) == 3
        assert emulator.generate("the red one", max_tokens=4).text


def test_files_need_no_recipe(family):
    led = lora_on_files(family.large, family.small, family.lora)
    assert led.name == "large-instruct+lora"
    assert {spec.prompt for spec in led.roles().values()} == {"template"}
    plainly = lora_on_files(family.large, family.small, family.lora, prompt="plain")
    assert {spec.prompt for spec in plainly.roles().values()} == {"plain"}
    with pytest.raises(RecipeError, match="did you mean"):
        lora_on_files(family.large, family.small, family.lora, prompt="plian")


def test_a_recipe_without_a_large_instruct_model_says_what_to_do(family):
    said = refusal(RecipeError, recipe_of(family, instruct=None), family.lora)
    assert "names no large instruct model" in said
    assert "--base LARGE-INSTRUCT.gguf" in said
    led = recipe_of(family, instruct=None).with_lora(family.lora, base=family.large)
    assert led.roles()["base"].file == family.large
    assert led.roles()["base"].prompt == "template"


def on_hub(name: str, size: int | None = None) -> ModelSpec:
    """A model that has to be pulled."""
    place = hub_file.HubFile(f"org/{name}-GGUF", f"{name}-Q8_0.gguf", size=size)
    return ModelSpec(Path(place.file), source=place, prompt="template")


def not_pulled(family: Family) -> Recipe:
    """A recipe of the catalogue: neither instruct model is here."""
    tuned = on_hub("Wide-0.6B", 639_447_744)
    deltas = {"x": Delta("x", 1.0, tuned, on_hub("Wide-0.6B-Base"))}
    return recipe_of(family, deltas=deltas, instruct=on_hub("Wide-8B", 5_027_784_512))


def test_models_that_only_the_hub_has_are_to_be_pulled(family):
    said = refusal(RecipeError, recipe_of(family, instruct=on_hub("Large")), family.lora)
    assert said == (
        "not on this machine yet: the large instruct model of 'mine'; get what is missing with "
        "edge-eft pull mine --for-lora"
    )
    said = refusal(RecipeError, not_pulled(family), family.lora)
    assert "the large and the small instruct model of 'mine'" in said
    assert said.endswith(
        "edge-eft pull mine --for-lora (5.7 GB to fetch); lora.gguf does not say which model it "
        "was trained on"
    )


def test_before_a_pull_the_adapter_is_looked_at(family, tmp_path, caplog):
    """Gigabytes were asked for, whatever lay there."""
    assert "no such adapter" in refusal(ModelFileError, not_pulled(family), tmp_path / "typo")
    wide = tiny_models.write_adapter(tmp_path / "wide-lora.gguf", d=96)
    half_here = recipe_of(family, instruct=on_hub("Large"))
    assert "does not fit small-instruct.gguf" in refusal(ModelFileError, half_here, wide)
    peft = peft_directory(
        tmp_path / "peft", random_pairs(MODULES), base_model_name_or_path="Org/Wide-1.7B"
    )
    refusal(RecipeError, not_pulled(family), peft)
    assert "was trained on Org/Wide-1.7B, and not on org/Wide-0.6B-GGUF" in caplog.text


@pytest.mark.parametrize("adapter", [5, b"x", ["a"], "", "nowhere", "a\0b"])
def test_what_is_no_adapter_is_said_before_anything_is_to_be_pulled(family, adapter):
    recipe = recipe_of(family, instruct=None)
    said = refusal(EdgeEftError, recipe, adapter)
    assert "instruct" not in said


def test_a_tuned_side_that_is_an_adapter_carries_no_other(family):
    tuned = ModelSpec(family.small, lora=family.lora)
    deltas = {"chat": Delta("chat", 1.0, tuned, ModelSpec(family.small))}
    assert "is an adapter itself" in refusal(
        RecipeError, recipe_of(family, deltas=deltas), family.lora
    )


def test_an_adapter_for_another_size_names_the_recipes_that_fit(family, tmp_path):
    wide = tiny_models.write_random(tmp_path / "wide.gguf", 5, d=96)
    wide_lora = tiny_models.write_adapter(tmp_path / "wide-lora.gguf", d=96)
    spec = ModelSpec(wide, prompt="template")
    save_recipe(
        recipe_of(family, "wide", deltas={"x": Delta("x", 1.0, spec, ModelSpec(family.reference))})
    )
    save_recipe(recipe_of(family, "without", instruct=None))
    said = refusal(ModelFileError, recipe_of(family), wide_lora)
    assert "does not fit small-instruct.gguf" in said
    assert said.endswith("it fits the small model of wide")
    modules = dict.fromkeys(MODULES, (96, 96))
    peft = peft_directory(tmp_path / "wide-peft", random_pairs(modules))
    assert refusal(ModelFileError, recipe_of(family), peft).endswith("the small model of wide")


def test_a_recipe_that_is_not_pulled_is_known_by_the_name_of_its_small_model(family, tmp_path):
    there = on_hub("Wide-0.6B")
    save_recipe(
        recipe_of(family, "wide", deltas={"x": Delta("x", 1.0, there, ModelSpec(family.reference))})
    )
    modules = dict.fromkeys(MODULES, (96, 96))
    for number, (base, fits) in enumerate(
        {
            "Org/Wide-0.6B": True,
            "org/wide-0.6b-unsloth-bnb-4bit": True,
            "Org/Wide-1.7B": False,
        }.items()
    ):
        peft = peft_directory(
            tmp_path / f"peft{number}", random_pairs(modules), base_model_name_or_path=base
        )
        said = refusal(ModelFileError, recipe_of(family), peft)
        assert said.endswith("it fits the small model of wide") == fits
        assert ("no recipe here has a small model that it fits" in said) != fits


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("Org/Small", "which is the model before tuning, and not on small-instruct"),
        ("Org/Small-Base", "which is the model before tuning"),
        ("Org/Small-Coder-Instruct", "Coder-Instruct, and not on small-instruct; if that is"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", ", the small model of smollm2-1.7b"),
        ("Org/Small-Instruct", ""),
        ("Org/small-instruct-unsloth-bnb-4bit", ""),
        ("/home/me/my-own", ""),
        ("./my-own", ""),
        ("my-own", ""),
        ("", ""),
    ],
)
def test_what_the_name_of_its_model_gives_to_think_is_said(family, tmp_path, caplog, base, said):
    peft = peft_directory(tmp_path / "peft", random_pairs(MODULES), base_model_name_or_path=base)
    with caplog.at_level(logging.WARNING, logger="edge_eft"):
        recipe_of(family).with_lora(peft)
    assert len(caplog.messages) == bool(said)
    assert said in caplog.text


@pytest.mark.parametrize("base", ["", None, " ", "/"])
def test_a_name_that_says_nothing_gives_no_doubt(family, tmp_path, caplog, base):
    """Of a model called chat it was said to be the model before tuning."""
    small = ModelSpec(tmp_path / "chat.gguf", prompt="template")
    shutil.copy(family.small, small.file)
    recipe = recipe_of(family, deltas={"x": Delta("x", 1.0, small, ModelSpec(family.reference))})
    peft = peft_directory(tmp_path / "peft", random_pairs(MODULES), base_model_name_or_path=base)
    recipe.with_lora(peft)
    recipe.with_lora(family.lora)
    assert caplog.messages == []


def test_the_template_and_end_of_the_training_go_with_the_adapter(family, tmp_path):
    peft = peft_directory(tmp_path / "peft", random_pairs(MODULES))
    config = {"chat_template": tiny_models.CHAT, "eos_token": "<reserved>"}
    (peft / "tokenizer_config.json").write_text(json.dumps(config))
    tuned = recipe_of(family).with_lora(peft).deltas["tuned"].tuned
    assert tuned.prompt == "template"  # it is the model's own
    assert tuned.end_tokens == ("<other-end>", "<reserved>")
    (peft / "chat_template.jinja").write_text("{{ messages[0].content }}")
    led = recipe_of(family).with_lora(peft)
    assert led.deltas["tuned"].tuned.prompt == "{{ messages[0].content }}"
    assert led.deltas["tuned"].reference.prompt == "template"


def test_tokens_that_the_model_lacks_are_refused(family, tmp_path):
    peft = peft_directory(tmp_path / "peft", random_pairs(MODULES))
    (peft / "added_tokens.json").write_text(json.dumps({"<reserved>": 260, "</s>": 2}))
    recipe_of(family).with_lora(peft)
    (peft / "added_tokens.json").write_text(json.dumps({"<reserved>": 260, "<tool>": 400}))
    assert "adds tokens to the vocabulary ('<tool>')" in refusal(
        ModelFileError, recipe_of(family), peft
    )


@pytest.mark.parametrize("end", [-1, 352, 10**30, "<|im_end|>", "", ["<reserved>", 352]])
def test_an_end_that_the_model_lacks_is_told_of_the_adapter(family, tmp_path, end):
    """It was told of a recipe's key that nobody had written."""
    peft = peft_directory(tmp_path / "peft", random_pairs(MODULES))
    (peft / "config.json").write_text(json.dumps({"eos_token_id": end}))
    said = refusal(ModelFileError, recipe_of(family), peft)
    assert said.startswith(f"{peft} says that ")
    assert "ends a reply, a token that small-instruct.gguf lacks" in said


@pytest.mark.parametrize("base", ["a" + "-gguf" * 100_000, "b/" + "-" * 10**6, "x-base\n\x1b[31m"])
def test_a_name_that_is_none_is_soon_done_with(family, tmp_path, caplog, base):
    """Taking a long one apart took minutes."""
    peft = peft_directory(tmp_path / "peft", random_pairs(MODULES), base_model_name_or_path=base)
    begun = perf_counter()
    with caplog.at_level(logging.WARNING, logger="edge_eft"):
        recipe_of(family).with_lora(peft)
    assert perf_counter() - begun < 3
    assert all(each.isprintable() and len(each) < 500 for each in caplog.messages)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
@pytest.mark.parametrize("kind", ["fifo", "endless"])
def test_a_template_that_never_ends_is_refused(family, tmp_path, kind):
    peft = peft_directory(tmp_path / "peft", random_pairs(MODULES))
    place = peft / "chat_template.jinja"
    os.mkfifo(place) if kind == "fifo" else place.symlink_to("/dev/zero")
    assert "cannot be read as a template" in refusal(ModelFileError, recipe_of(family), peft)


@pytest.mark.parametrize("number", ["1e999", "Infinity", "NaN", "-Infinity"])
@pytest.mark.parametrize("key", ["shape", "data_offsets"])
def test_numbers_that_are_none_in_a_safetensors_header_are_damage(family, tmp_path, key, number):
    peft = peft_directory(tmp_path / "peft", random_pairs(MODULES))
    path = peft / "adapter_model.safetensors"
    found = json.loads(path.read_bytes()[8:].partition(b"}}")[0] + b"}}")
    next(iter(found.values()))[key] = [4, "NUMBER"]
    header = json.dumps(found).replace('"NUMBER"', number).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert "damaged safetensors header" in refusal(ModelFileError, recipe_of(family), peft)


def wrong_things(folder: Path, family: Family) -> dict[str, tuple[Path, str]]:
    """What people give by mistake → its path, and what is said."""
    folder.mkdir(exist_ok=True)
    empty = folder / "empty"
    empty.mkdir()
    merged = model_directory(folder / "merged")
    prompt = adapter_directory(folder / "prompt", peft_type="PROMPT_TUNING")
    mlx = folder / "mlx"
    mlx.mkdir()
    (mlx / "adapter_config.json").write_text('{"fine_tune_type": "lora"}')
    pickle = adapter_directory(folder / "pickle")
    (pickle / "adapter_model.safetensors").rename(pickle / "adapter_model.bin")
    dora = adapter_directory(
        folder / "dora",
        others={"base_model.model.model.layers.0.q_proj.lora_magnitude_vector": (64,)},
    )
    bare_dora = adapter_directory(folder / "bare-dora", use_dora=True)
    run = folder / "run"
    adapter_directory(run / "checkpoint-20")
    kept = folder / "kept"
    kept.mkdir()
    shutil.copy(family.lora, kept / "mine-lora.gguf")
    broken = adapter_directory(folder / "broken")
    (broken / "adapter_config.json").write_text("{")
    cut = adapter_directory(folder / "cut")
    weights = cut / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    torch_file = folder / "adapter_model.bin"
    torch_file.write_bytes(b"PK\x03\x04")
    text = folder / "notes.txt"
    text.write_text("hello")
    return {
        "nothing": (folder / "nothing", "no such adapter"),
        "empty": (empty, "it has no adapter_config.json"),
        "merged": (merged, "is a whole model and not an adapter; edge-eft convert --reference"),
        "model": (family.small, "is a whole model and not an adapter; give it as --tuned"),
        "prompt": (prompt, "of type 'PROMPT_TUNING'; only LORA works"),
        "mlx": (mlx, "not PEFT's (no peft_type); only LORA works"),
        "pickle": (pickle, "only a pickle (adapter_model.bin), which could run code"),
        "pickled": (torch_file, "is a pickle, which could run code"),
        "dora": (dora, "uses DoRA"),
        "bare-dora": (bare_dora, "uses DoRA (use_dora)"),
        "run": (run, "checkpoint-20 in it is one; give that"),
        "kept": (kept, "give the .gguf file in it, such as mine-lora.gguf"),
        "part": (
            dora / "adapter_model.safetensors",
            "is part of a PEFT adapter; give its directory",
        ),
        "broken": (broken, "cannot be read as JSON"),
        "cut": (cut, "is truncated"),
        "text": (text, "is a text file"),
        "long": (folder / ("x" * 5000), "cannot be read (File name too long)"),
    }


@pytest.mark.parametrize(
    "name",
    [
        *("nothing", "empty", "merged", "model", "prompt", "mlx", "pickle", "pickled", "dora"),
        *("bare-dora", "run", "kept", "part", "broken", "cut", "text", "long"),
    ],
)
def test_what_is_no_adapter_is_one_line(family, tmp_path, name):
    path, message = wrong_things(tmp_path / "wrong", family)[name]
    assert message in refusal(EdgeEftError, recipe_of(family), path)


def test_a_reference_that_is_an_adapter_is_refused(family):
    with pytest.raises(ModelFileError, match="--reference takes its model"):
        lora_on_files(family.large, family.lora, family.lora)


def test_a_damaged_recipe_of_ones_own_does_not_hide_the_others(family, tmp_path):
    directory = recipe_names.recipe_directory()
    directory.mkdir(parents=True)
    (directory / "odd.toml").write_text("= no")
    wide_lora = tiny_models.write_adapter(tmp_path / "wide-lora.gguf", d=96)
    assert "no recipe here" in refusal(ModelFileError, recipe_of(family), wide_lora)
    assert "odd" not in load_recipe("atlas").name
