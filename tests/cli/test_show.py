"""`edge-eft show`: what a recipe is, without running it."""

import json

from helpers import tiny_models
from helpers.cli_tools import complaint, invoke
from helpers.gguf_parts import split_model
from helpers.recipe_files import write_toml
from helpers.tiny_models import KIND, OTHER_END, RESERVED

from edge_eft.system import byte_size


def test_show_tells_what_running_it_means(small):
    about = json.loads(invoke("show", small, "--json", "--threads", "1").stdout)
    base = about["roles"]["base"]
    assert (base["type"], base["architecture"], len(base["sha256"])) == ("Q4_1", "llama", 64)
    assert about["vocabulary"]["n_vocab"] == 49152
    assert about["threads"] == [1, "as given"]
    assert about["roles"]["tuned:chat"]["template_sha256"]
    assert base["end_tokens"] == [[0, "<|endoftext|>"], [2, "<|im_end|>"], [4, "<reponame>"]]
    assert about["warnings"] == []
    text = invoke("show", small, "--full").stdout
    assert "ends by   <|endoftext|> 0, <|im_end|> 2, <reponame> 4" in text
    for word in ("tuned:chat", "sha256", "chatml", "vocabulary", "memory", "Q8_0 KV", "cores"):
        assert word in text


def test_vocabularies_of_other_widths_are_said_to_be_fine(tiny, tmp_path):
    base = tiny_models.write_random(tmp_path / "b.gguf", seed=0, n_padding=2000)
    files = ["--base", base, "--tuned", tiny.tuned, "--reference", tiny.reference]
    shown = invoke("show", *files, "--full")
    said = (
        "fine: they differ in padding only "
        "(base 2,352, tuned:tuned and reference:tuned 352; the first 352 agree)"
    )
    assert said in " ".join(shown.stdout.split())
    assert "padding" not in shown.stderr, "it is no warning"
    vocabulary = json.loads(invoke("show", *files, "--json").stdout)["vocabulary"]
    assert vocabulary["padding"] == said
    sizes = [each.stat().st_size for each in (base, tiny.tuned)]
    assert f"llama, {byte_size(sizes[0])}, " in shown.stdout
    assert f"llama, {byte_size(sizes[1])}, 0.1 M parameters" in shown.stdout
    assert vocabulary["widths"] == {"base": 2352, "tuned:tuned": 352, "reference:tuned": 352}
    assert (vocabulary["warnings"], vocabulary["adopted"]) == ([], [])


def test_adopted_tokens_are_listed(tmp_path):
    rename = {OTHER_END: ("<think>", KIND.USER_DEFINED), RESERVED: ("\x1b[31m", KIND.NORMAL)}
    base = tiny_models.write_random(tmp_path / "b.gguf", seed=0)
    tuned = tiny_models.write_random(tmp_path / "t.gguf", seed=1, rename=rename)
    path = write_toml(
        tmp_path,
        f"[base]\nfile = '{base}'\n[delta.r1]\nreference = {{ file = '{base}' }}\n"
        f"tuned = {{ file = '{tuned}', adopt = ['<think>', {RESERVED}] }}\n",
    )
    shown = invoke("show", path).stdout
    assert f"            adopted from tuned:r1: <think> {OTHER_END}, " in shown
    assert "\x1b" not in shown
    vocabulary = json.loads(invoke("show", path, "--json").stdout)["vocabulary"]
    assert vocabulary["adopted"] == [
        [OTHER_END, "<think>", "tuned:r1"],
        [RESERVED, "\x1b[31m", "tuned:r1"],
    ]
    assert (vocabulary["padding"], vocabulary["warnings"]) == (None, [])


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
    text = invoke("show", "--base", parts, *files, "--full").stdout
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
