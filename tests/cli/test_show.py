"""`edge-eft show` and `list`: what a recipe is, without running it."""

import json
from pathlib import Path

from helpers.cli_tools import complaint, invoke
from helpers.gguf_parts import split_model

from edge_eft.cli.show import prompt_name


def test_show_tells_what_running_it_means(small):
    about = json.loads(invoke("show", small, "--json", "--threads", "1").stdout)
    base = about["roles"]["base"]
    assert (base["type"], base["architecture"], len(base["sha256"])) == ("Q4_1", "llama", 64)
    assert about["vocabulary"]["n_vocab"] == 49152
    assert about["threads"] == [1, "as given"]
    assert about["roles"]["tuned:chat"]["template_sha256"]
    assert base["end_tokens"] == [[0, "<|endoftext|>"], [2, "<|im_end|>"], [4, "<reponame>"]]
    assert about["warnings"] == []
    text = invoke("show", small).stdout
    assert "  ends by   <|endoftext|> 0, <|im_end|> 2, <reponame> 4" in text
    for word in ("tuned:chat", "sha256", "chatml", "vocabulary", "memory", "Q8_0 KV", "cores"):
        assert word in text


def test_a_prompt_format_is_shown_by_its_name():
    """A named template was called inline Jinja."""
    for name in ("plain", "template", "template:tool_use"):
        assert prompt_name(name) == name
    assert prompt_name("{{ messages[0].content }}") == "inline Jinja"


def test_list_shows_the_embedded_recipes(recipe, monkeypatch):
    monkeypatch.setattr(
        "edge_eft.files.recipe_names.list_recipes", lambda: {"family": Path(recipe)}
    )
    assert "family" in (text := invoke("list").stdout)
    assert "Three times the same.  Apache-2.0  (1 files missing)" in text
    (about,) = json.loads(invoke("list", "--json").stdout)
    assert about["name"] == "family"
    monkeypatch.setattr("edge_eft.files.recipe_names.list_recipes", dict)
    assert invoke("list", "--json").stdout == "[]\n"


def test_a_split_base_is_shown_as_one_model(tiny, tmp_path):
    """All its parts are hashed and counted; a later part names the first."""
    parts = split_model(tiny.base, tmp_path, 3)
    files = ["--tuned", tiny.tuned, "--reference", tiny.reference]
    split, whole = (
        json.loads(invoke("show", "--base", base, *files, "--json").stdout)
        for base in (parts, tiny.base)
    )
    ours, theirs = split["roles"]["base"], whole["roles"]["base"]
    for key in ("type", "architecture", "parameters", "n_ctx_train", "prompt"):
        assert ours[key] == theirs[key]
    assert split["memory"] == whole["memory"]
    assert len(ours["sha256"]) == 3
    text = invoke("show", "--base", parts, *files).stdout
    assert all(each in text for each in ours["sha256"])
    later = tmp_path / "split-00003-of-00003.gguf"
    said = complaint("show", "--base", later, *files)
    assert "is part 3 of 3 of a model; give the first part, split-00001-of-00003.gguf" in said


def test_a_split_base_runs(tiny, tmp_path):
    files = ["--tuned", tiny.tuned, "--reference", tiny.reference, "the red one"]
    options = ["--max-tokens", "5", "--temperature", "0"]
    parts = split_model(tiny.base, tmp_path, 2)
    split, whole = (invoke("run", "--base", base, *files, *options) for base in (parts, tiny.base))
    assert (split.exit_code, split.stdout) == (0, whole.stdout)
