"""`edge-eft show` and `list`: what a recipe is, without running it."""

import json
from pathlib import Path

from helpers.cli_tools import invoke


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


def test_list_shows_the_embedded_recipes(recipe, monkeypatch):
    monkeypatch.setattr("edge_eft.files.recipe_toml.list_recipes", lambda: {"family": Path(recipe)})
    assert "family" in (text := invoke("list").stdout)
    assert "Three times the same.  Apache-2.0  (1 files missing)" in text
    (about,) = json.loads(invoke("list", "--json").stdout)
    assert about["name"] == "family"
    monkeypatch.setattr("edge_eft.files.recipe_toml.list_recipes", dict)
    assert invoke("list", "--json").stdout == "[]\n"
