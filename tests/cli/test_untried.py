"""untried: three bare files are asked in the way that suits them, without a word about formats."""

import pytest
from helpers.cli_tools import invoke
from helpers.gguf_parts import with_template

PERU = ("What is the capital of Peru?", "--temperature", "0")


@pytest.fixture
def files(atlas):
    return ["--base", atlas.base, "--tuned", atlas.tuned, "--reference", atlas.reference]


def test_three_files_answer_as_their_recipe_does(files):
    result = invoke("run", *files, *PERU)
    assert result.stdout == "It is Lima.\n"
    assert result.stderr.startswith("prompt format of base and reference: template, which suits")


def test_a_format_that_is_given_is_not_tried(files):
    result = invoke("run", *files, *PERU, "--prompt", "plain")
    assert result.stdout != "It is Lima.\n"
    assert result.stderr == ""


def test_without_a_template_there_is_nothing_to_try(files, atlas, tmp_path):
    bare = with_template(atlas.base, tmp_path / "bare.gguf", None)
    result = invoke("run", *files, "--base", bare, *PERU)
    assert result.exit_code == 0
    assert result.stderr == ""


def test_a_context_too_small_for_the_questions_leaves_plain_prompts(files):
    result = invoke("run", *files, "hi", "--n-ctx", "12", "--max-tokens", "1")
    assert result.exit_code == 0
    assert result.stderr == ""


def test_a_recipe_is_as_it_says(atlas, tmp_path):
    path = tmp_path / "r.toml"
    path.write_text(
        f"base = {{ file = '{atlas.base}', prompt = 'plain' }}\n[delta.d]\n"
        f"tuned = {{ file = '{atlas.tuned}' }}\nreference = {{ file = '{atlas.reference}' }}\n"
    )
    assert invoke("run", path, *PERU).stderr == ""
