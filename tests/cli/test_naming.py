"""naming, and models: what stands in a recipe's place, and the default recipe."""

import json

import pytest
from helpers.cli_tools import complaint, invoke
from helpers.hugging_face import peft_directory, random_pairs
from helpers.recipe_files import write_recipe

from edge_eft.cli.naming import looks_like_prompt

QUESTION = "What is the capital of Peru?"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_EFT_HOME", str(tmp_path / "home"))
    return tmp_path


def test_a_sentence_is_a_prompt_for_the_default_recipe(scripted):
    one_word = [["run", word] for word in ("日本の首都は?", "Summarise:", "Hello!", "Why?")]
    for words in (["run", QUESTION], *one_word, ["compare", QUESTION]):
        emulator = scripted(*"abcd")
        result = invoke(*words)
        assert result.exit_code == 0, result.stderr
        assert emulator.recipe.name == "atlas"
        assert emulator.requests[0].prompt[0]["content"] == words[1]
        assert result.stderr == (
            "no recipe is named, so atlas is used; edge-eft config set recipe NAME sets another "
            "default\natlas knows geography alone; try: What is the capital of Peru?\n"
        )


def test_commands_without_a_recipe_take_the_default(scripted):
    emulator = scripted("a")
    assert invoke("run", stdin="hello").exit_code == 0
    assert emulator.recipe.name == "atlas"
    assert invoke("chat", stdin="/bye\n").exit_code == 0


def test_show_without_a_recipe_shows_the_default_and_says_its_name():
    about = invoke("show", "--json")
    assert json.loads(about.stdout)["name"] == "atlas"
    assert "no recipe is named, so atlas is used" in about.stderr


def test_the_configured_recipe_answers_and_nothing_is_said(scripted, recipe, monkeypatch):
    monkeypatch.setenv("EDGE_EFT_RECIPE", recipe)
    emulator = scripted("a", "b", "c")
    result = invoke("run", QUESTION)
    assert (result.stdout, result.stderr) == ("a\n", "")
    assert str(emulator.recipe.path) == recipe
    invoke("run", "atlas", QUESTION)
    assert emulator.recipe.name == "atlas", "a recipe that is named goes before"
    assert invoke("run", QUESTION, "-q").stderr == ""


def test_the_recipe_may_be_an_option(scripted, recipe):
    for option in ("-m", "--model", "--recipe"):
        emulator = scripted("a")
        assert invoke("run", option, recipe, "atlas").stderr == ""
        assert str(emulator.recipe.path) == recipe
        assert emulator.requests[0].prompt[0]["content"] == "atlas"
    assert "takes its place" not in complaint("run", "-m", recipe, "a", "b")
    line = complaint("run", "-m", recipe, "--tuned", "t", "--reference", "r", "--base", "b", "x")
    assert "names a recipe, and --tuned and --reference take its place" in line


def test_a_plain_word_is_a_name_and_not_a_prompt():
    assert "near: qwen3" in complaint("run", "qwen3", "hi")
    line = complaint("run", "Hello")
    assert "recipe 'Hello' is not known" in line
    assert "if it is a prompt: edge-eft run atlas Hello" in line
    assert "if it is" not in complaint("show", "Hello")
    assert "if it is a prompt: edge-eft run atlas x-ray2" in complaint("run", "x-ray2")
    for word in ("qwen3:8B", "mine.toml", "my recipe.toml", "./x", "a.gguf", "nosuch", "../a."):
        assert not looks_like_prompt(word, {"qwen3-8b": None})
    assert "no prompt" not in complaint("run", "my recipe.toml", "x")


def test_what_is_not_a_recipe_is_told_the_command_that_was_meant(home, tiny, monkeypatch):
    monkeypatch.chdir(home)
    (home / "models").mkdir()
    (home / "models" / "a.gguf").write_bytes(b"GGUF")
    (home / "hf").mkdir()
    (home / "hf" / "config.json").write_text("{}")
    (home / "empty dir").mkdir()
    (home / "weights.bin").symlink_to(tiny.base)
    (home / "p.jsonl").write_text('"x"\n')
    peft_directory(home / "peft", random_pairs({"layers.0.self_attn.v_proj": (64, 64)}))
    files = "--base models/a.gguf --tuned FILE --reference FILE"
    for word, meant in (
        ("models/a.gguf", f"edge-eft run {files} 'hi there', or edge-eft new NAME {files}"),
        ("weights.bin", "is one GGUF file, and a recipe names three"),
        ("gone.gguf", "'gone.gguf': no such file; and in place of a recipe three are named"),
        ("atlas.toml", "no such file; the recipe atlas needs no ending: edge-eft run atlas 'hi"),
        ("models", "with 1 GGUF file, not a recipe: edge-eft match models"),
        ("empty dir", "edge-eft match 'empty dir'"),
        ("hf", "edge-eft convert --tuned hf --reference DIR --out DIR"),
        ("peft", "is a LoRA adapter, not a recipe: edge-eft run RECIPE --lora peft 'hi there'"),
        ("p.jsonl", "edge-eft run --input p.jsonl"),
        ("hf/model.safetensors", "edge-eft convert --tuned hf"),
        ("owner/repo", "edge-eft pull --base owner/repo --tuned REPO --reference REPO"),
        ("https://huggingface.co/Qwen/Qwen3-8B-GGUF", "edge-eft pull qwen3-8b"),
        ("https://example.org/x", "is an address, not a recipe"),
    ):
        assert meant in complaint("run", word, "hi there"), word
        assert meant.partition(" edge-eft run")[0] in complaint("run", "-m", word, "hi there")


def test_a_prompt_where_none_goes_is_told_where_it_does():
    for command in ("chat", "show", "bench"):
        line = complaint(command, QUESTION)
        assert f"looks like a prompt, and {command} takes none" in line
        assert f"edge-eft run '{QUESTION}'" in line


def test_a_prompt_of_one_word_goes_with_stdin(scripted):
    emulator = scripted(*"ab")
    for words in (["Summarise:"], ["Summarise:", "-"]):
        assert invoke("run", *words, stdin="a text").stdout == f"{'ab'[len(words) - 1]}\n"
    assert {request.prompt[0]["content"] for request in emulator.requests} == {
        "Summarise:\n\na text"
    }


def test_the_line_to_type_is_said_whole():
    line = complaint("run", "atlas", "What", "is", "it?")
    assert "quote the prompt: edge-eft run atlas 'What is it?'" in line
    line = complaint("run", "-m", "atlas", "What", "is", "it?")
    assert "quote the prompt: edge-eft run -m atlas 'What is it?'" in line
    line = complaint("run", "What", "is", "it?")
    assert "quote the prompt: edge-eft run 'What is it?'" in line
    line = complaint("run", "atals", "Who?")
    assert "near: atlas; edge-eft run atlas 'Who?'" in line
    assert "near: atlas; edge-eft chat atlas" in complaint("chat", "atals")
    line = complaint("run", "-m", "qwen3-8b", "atlas", "hi")
    assert "two recipes are named, 'qwen3-8b' by -m and 'atlas' before the prompt" in line


def test_a_default_recipe_that_is_gone_is_said_to_be_the_default(monkeypatch):
    monkeypatch.setenv("EDGE_EFT_RECIPE", "gone-one")
    line = complaint("run", QUESTION)
    assert "recipe 'gone-one' is not known" in line
    assert "it is your default: edge-eft config set recipe NAME" in line


def test_a_model_that_has_moved_names_the_recipe_and_the_way_to_mend_it(home):
    recipes = home / "home" / "recipes"
    recipes.mkdir(parents=True)
    write_recipe(recipes / "mine.toml", home / "gone.gguf")
    line = complaint("run", "mine", "hi")
    assert f"{home}/gone.gguf: no such file, and recipe mine has it as base" in line
    assert "edge-eft new mine --base FILE --tuned FILE --reference FILE --force" in line


def test_a_format_of_replies_is_not_one_of_prompts():
    assert "for replies in JSON: --schema FILE" in complaint("run", "hi!", "--format", "json")
    assert "--format is 'xml'; it may be template" in complaint("run", "hi!", "--format", "xml")
