"""options: --lora puts an adapter on the small instruct model, in every command that loads one."""

import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers import tiny_models
from helpers.cli_tools import complaint, invoke
from helpers.hugging_face import peft_directory, random_pairs

from edge_eft.files.recipe import ModelSpec
from edge_eft.files.recipe_names import load_recipe, save_recipe


class Files(NamedTuple):
    """A recipe with [instruct], one without, the files of the first, and two forms of adapter."""

    recipe: Path
    without: Path
    large: Path
    small: Path
    lora: Path
    peft: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Files:
    folder = tmp_path_factory.mktemp("lora")
    for seed, (name, d) in enumerate({"large": 128, "small": 64, "reference": 64}.items()):
        tiny_models.write_random(folder / f"{name}.gguf", seed, d=d)
    delta = '[delta.x]\ntuned = { file = "small.gguf" }\nreference = { file = "reference.gguf" }\n'
    (folder / "mine.toml").write_text(f'n_ctx = 256\n{delta}[instruct]\nfile = "large.gguf"\n')
    (folder / "without.toml").write_text(delta)
    tiny_models.write_adapter(folder / "lora.gguf")
    peft_directory(folder / "peft", random_pairs({"layers.0.self_attn.v_proj": (64, 64)}))
    names = ("mine.toml", "without.toml", "large.gguf", "small.gguf", "lora.gguf", "peft")
    return Files(*(folder / name for name in names))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_EFT_CACHE", str(tmp_path / "cache"))


def text_of(*arguments: object) -> str:
    result = invoke("run", *arguments, "the red one", "--seed", 1, "--max-tokens", 8)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_a_recipe_and_files_give_one_reply(files):
    by_recipe = text_of(files.recipe, "--lora", files.lora)
    named = ("--base", files.large, "--reference", files.small)
    assert text_of(*named, "--lora", files.lora) == by_recipe
    assert text_of(files.without, "--base", files.large, "--lora", files.lora) == by_recipe
    assert text_of(*named, "--lora", files.peft) != by_recipe


def test_every_command_that_loads_models_takes_an_adapter(files):
    for command, stdin in (("compare", None), ("chat", "hello\n/bye\n"), ("show", None)):
        words = ["hello"] if command == "compare" else []
        result = invoke(command, files.recipe, *words, "--lora", files.lora, stdin=stdin)
        assert result.exit_code == 0, result.stderr
        assert result.stdout


def test_show_names_the_adapter_and_what_it_is_on(files):
    about = json.loads(invoke("show", files.recipe, "--lora", files.lora, "--json").stdout)
    assert about["name"] == "mine+lora"
    assert Path(about["roles"]["base"]["file"]) == files.large
    assert Path(about["roles"]["tuned:tuned"]["file"]) == files.lora
    assert Path(about["roles"]["reference:tuned"]["file"]) == files.small


def test_what_does_not_go_together_is_one_line(files, tmp_path):
    for arguments, message in (
        (("run", "--lora", files.lora, "--tuned", files.small, "x"), "leave out --tuned"),
        (("run", "--lora", files.lora, "--reference", files.small, "x"), "--base, --reference and"),
        (("run", "--lora", files.lora), "Name a recipe, or --base, --reference; --lora goes with"),
        (("run", "--lora", tmp_path / "no", "hello"), "no such adapter"),
        (("run", files.recipe, "--lora", "", "x"), "--lora is empty; name a LoRA adapter"),
        (("run", files.recipe, "--lora", "atlas", "x"), "'atlas' is a recipe"),
        (("run", files.without, "--lora", files.lora, "x"), "names no large instruct model"),
        (("run", "atlas", "--lora", files.lora, "x"), "names no large instruct model"),
        (("run", files.recipe, "--lora", tmp_path, "x"), "it has no adapter_config.json"),
        (("show", files.recipe, "--lora", files.large), "is a whole model and not an adapter"),
        (("chat", files.recipe, "--lora", tmp_path / "no"), "no such adapter"),
    ):
        assert message in complaint(*arguments), arguments


def test_who_names_no_recipe_with_an_adapter_is_told_which_it_fits(files, tmp_path, monkeypatch):
    said = complaint("run", "--lora", files.lora, "What is it?")
    assert "Name a recipe" in said
    assert "no recipe here is known to" in said
    monkeypatch.setenv("EDGE_EFT_HOME", str(tmp_path / "home"))
    save_recipe(replace(load_recipe(files.recipe), base=ModelSpec(files.large), name="mine"))
    for words in (["What is it?"], []):
        said = complaint("run", "--lora", files.lora, *words)
        assert "--lora goes with a recipe, and this adapter fits mine" in said


def test_a_prompt_before_the_recipe_is_told_the_order():
    said = complaint("run", "What's it?", "atlas", "--temperature", 0)
    assert """The recipe comes first: edge-eft run atlas 'What'"'"'s it?'.""" in said
    assert "'hello' is one word too many" in complaint("run", "atlas", "atlas", "hello")
