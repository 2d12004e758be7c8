"""What files say of each other: pairs that are refused, and doubts that are only said."""

import json
import logging
import os
from dataclasses import replace

import pytest
from helpers.cli_tools import complaint, invoke
from helpers.emulator_tools import open_emulator
from helpers.families import Family, twin
from helpers.recipe_files import write_toml
from helpers.tiny_models import write_adapter, write_random

from edge_eft import Emulator
from edge_eft.engine import pairs
from edge_eft.errors import RecipeError
from edge_eft.files import memory
from edge_eft.files.recipe import from_files
from edge_eft.files.recipe_names import load_recipe

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def messages(caplog, monkeypatch):
    """The log reaches caplog, whatever the command line's tests did to it."""
    monkeypatch.setattr(logging.getLogger("edge_eft"), "propagate", True)
    return caplog


def doubts(base, tuned, reference, prompt=None, metadata=None):
    """The lines for three files; `metadata`: side → what its file is to say as well."""
    recipe = from_files(base, tuned, reference, prompt=prompt)
    headers = memory.headers(recipe.roles())
    for side, more in (metadata or {}).items():
        header = headers[f"{side}:tuned"]
        headers[f"{side}:tuned"] = replace(header, metadata={**header.metadata, **more})
    return list(pairs.doubts(recipe, headers))


# -- refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["same", "link", "copy"])
def test_a_delta_of_a_model_with_itself_is_refused(tiny, tmp_path, how):
    other = tmp_path / "other.gguf"
    if how == "link":
        other.symlink_to(tiny.tuned)
    elif how == "copy":
        other.write_bytes(tiny.tuned.read_bytes())
    reference = tiny.tuned if how == "same" else other
    seen = "hold the same weights" if how == "copy" else "are the same file"
    with pytest.raises(RecipeError, match=rf"tuned and reference of delta 'tuned' .*{seen}"):
        open_emulator((tiny.base, tiny.tuned, reference))


def test_one_stated_hash_for_both_is_refused_unread(tiny, tmp_path):
    recipe = from_files(*tiny[:3])
    delta = recipe.deltas["tuned"]
    sides = {
        side: replace(getattr(delta, side), sha256="5" * 64) for side in ("tuned", "reference")
    }
    recipe = replace(recipe, deltas={"tuned": replace(delta, **sides)})
    with pytest.raises(RecipeError, match="hold the same weights"):
        pairs.check(recipe, memory.headers(recipe.roles()))


def test_one_model_in_a_pair_is_one_line_on_the_command_line(tiny):
    files = [f"--base={tiny.base}", f"--tuned={tiny.tuned}", f"--reference={tiny.tuned}"]
    assert "give the model that tuned was tuned from" in complaint("run", *files, "hi")


def test_an_adapter_on_the_reference_and_a_base_that_is_tuned_are_fine(tiny, tmp_path):
    adapter = write_adapter(tmp_path / "adapter.gguf", loudness=0.1)
    path = write_toml(
        tmp_path,
        f"[base]\nfile = '{tiny.base}'\n"
        f"[delta.a]\ntuned = {{ lora = '{adapter}', on = 'reference' }}\n"
        f"reference = {{ file = '{tiny.reference}' }}\n"
        f"[delta.b]\ntuned = {{ file = '{tiny.base}' }}\n"
        f"reference = {{ file = '{tiny.reference}' }}\n",
    )
    with Emulator.load(path, n_ctx=64, n_threads=1) as emulator:
        assert len(emulator.generate("the", max_tokens=2).tokens) == 2


def test_an_adapter_of_zeros_is_refused(tiny, tmp_path):
    """A PEFT adapter that was never trained: the reply was the base's, and nothing was said."""
    adapter = write_adapter(tmp_path / "adapter.gguf", loudness=0.0)
    path = write_toml(
        tmp_path,
        f"[base]\nfile = '{tiny.base}'\n"
        f"[delta.a]\ntuned = {{ lora = '{adapter}', on = 'reference' }}\n"
        f"reference = {{ file = '{tiny.reference}' }}\n",
    )
    assert "the adapter of delta 'a', adapter.gguf, was never trained" in complaint(
        "run", path, "a"
    )


# -- said --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bare(folder):
    """Three models of one size without chat templates."""
    paths = [
        write_random(folder / f"bare{i}.gguf", seed=10 + i, chat_template=None) for i in range(3)
    ]
    return Family(*paths, ("the",))


def test_a_base_smaller_than_tuned_is_called_down_scaling(bare, folder):
    small = write_random(folder / "small.gguf", seed=4, d=32, chat_template=None)
    (line,) = doubts(small, bare.tuned, bare.reference)
    assert line.startswith("base (small.gguf, 0.")
    assert "is smaller than tuned:tuned (bare1.gguf" in line
    assert "down-scaling" in line
    assert doubts(*bare[:3]) == []


def test_a_reference_with_a_template_that_tuned_lacks_is_asked_about(bare, tiny, tmp_path):
    with pytest.raises(RecipeError, match=r"swapped\? tuned \(bare1\.gguf\) has no chat template"):
        open_emulator((bare.base, bare.tuned, tiny.reference))
    path = write_toml(
        tmp_path,
        f"[base]\nfile = '{bare.base}'\n"
        f"[delta.a]\ntuned = {{ file = '{bare.tuned}', prompt = 'chatml' }}\n"
        f"reference = {{ file = '{tiny.reference}' }}\n",
    )
    recipe = load_recipe(path)
    (line,) = pairs.doubts(recipe, memory.headers(recipe.roles()))
    assert "swapped? Of tuned (bare1.gguf) and reference (random2.gguf)" in line


@pytest.mark.parametrize(
    ("tuned", "reference", "asks"),
    [
        ("Qwen3-0.6B-Base-Q8_0", "Qwen3-0.6B-Q8_0", True),
        ("Qwen3-0.6B-Base.Q8_0", "Qwen3-0.6B.Q8_0", True),
        ("Qwen3-0.6B-Q8_0", "Qwen3-0.6B-Base-Q8_0", False),
        ("Qwen3-0.6B.Q8_0", "Qwen3-0.6B-Base.Q8_0", False),
        ("gemma-3-1b-pt", "gemma-3-1b-it", True),
        ("gemma-3-1b-it", "gemma-3-1b-pt", False),
        ("SmolLM2-135M", "SmolLM2-135M-Instruct", True),
        ("SmolLM2-135M-Instruct", "SmolLM2-135M", False),
        ("my-base", "a-chat-model", True),
        # A tune of one's own on an instruct model, beside a larger instruct model as base.
        ("our-support-voice", "SmolLM2-135M-Instruct", False),
        ("SmolLM2-135M-Instruct-ours", "SmolLM2-135M-Instruct", False),
        ("ours-on-base", "small-base", False),
        ("tuned", "reference", False),
    ],
)
@pytest.mark.parametrize("where", ["file", "metadata"])
def test_names_that_say_it_the_other_way_round_are_asked_about(
    bare, tmp_path, tuned, reference, asks, where
):
    names = {}
    if where == "metadata":
        files = bare.tuned, bare.reference
        names = {"tuned": {"general.name": tuned}, "reference": {"general.name": reference}}
    else:
        files = tmp_path / f"{tuned}.gguf", tmp_path / f"{reference}.gguf"
        for path, source in zip(files, (bare.tuned, bare.reference), strict=True):
            os.link(source, path)
    lines = doubts(bare.base, *files, metadata=names)
    assert len(lines) == asks
    assert all("by their names" in line for line in lines)


def test_a_finetune_key_that_says_so_is_enough(bare):
    stated = {"tuned": {"general.finetune": "Base"}, "reference": {"general.finetune": "Instruct"}}
    assert "swapped?" in doubts(*bare[:3], metadata=stated)[0]


def test_chat_models_that_get_plain_prompts_are_pointed_at_the_key(tiny, bare):
    (line,) = doubts(*tiny[:3])
    assert "[base]" in line
    assert "edge-eft new" in line
    assert doubts(*tiny[:3], prompt="template") == []
    assert doubts(*tiny[:3], prompt="plain") == [], "it was asked for"
    assert doubts(bare.base, tiny.tuned, tiny.reference) == []
    assert doubts(tiny.base, tiny.tuned, bare.reference) == []


def test_a_pair_of_two_sizes_is_said_to_be_none_and_not_down_scaling(tiny, tmp_path):
    large = write_random(tmp_path / "large.gguf", seed=7, d=128)
    (line,) = doubts(tiny.base, tiny.tuned, large, prompt="plain")
    assert "differ in size, so that they are no pair" in line
    (line,) = doubts(tiny.base, large, tiny.reference, prompt="plain")
    assert "large.gguf" in line
    assert "down-scaling" not in line


def test_doubts_are_logged_once_and_kept_in_the_record_and_shown(tiny, messages, tmp_path):
    with open_emulator(tiny) as emulator:
        (line,) = emulator.record.warnings
    assert [record.getMessage() for record in messages.records].count(line) == 1
    path = write_toml(
        tmp_path,
        f"[base]\nfile = '{tiny.base}'\n[delta.tuned]\n"
        f"tuned = {{ file = '{tiny.tuned}' }}\nreference = {{ file = '{tiny.reference}' }}\n",
    )
    assert json.loads(invoke("show", path, "--json").stdout)["warnings"] == [line]
    assert f"warning     {line}" in invoke("show", path).stdout


def test_a_load_that_fails_says_one_thing_only(tiny, tmp_path, messages):
    """Doubts about files that cannot be used are no help."""
    renamed = write_random(tmp_path / "r.gguf", seed=1, rename={300: ("something", 1)})
    files = [f"--base={tiny.base}", f"--tuned={renamed}", f"--reference={tiny.reference}"]
    assert "different vocabularies" in complaint("run", *files, "hi")


# -- what is not to be had ---------------------------------------------------------------------


def said(emulator, word):
    return [line for line in emulator.record.warnings if word in line]


def test_more_threads_than_the_machine_has_are_said(tiny):
    n = (os.cpu_count() or 1) + 1
    with open_emulator(tiny, n_threads=n, n_ctx=64) as emulator:
        assert f"n_threads is {n}" in said(emulator, "n_threads")[0]
    with open_emulator(tiny, n_threads=n - 1, n_ctx=64) as emulator:
        assert not said(emulator, "n_threads")


@pytest.mark.parametrize(("gpu", "layers"), [(False, 1), (True, 4)])
def test_layers_beyond_what_is_there_are_said(tiny, monkeypatch, gpu, layers):
    """Two layers and the output are three; without a GPU there is no place for any."""
    monkeypatch.setattr("edge_eft.engine.loader.gpu_available", lambda: gpu)
    with open_emulator(tiny, n_gpu_layers=layers, n_ctx=64) as emulator:
        assert f"n_gpu_layers is {layers}" in said(emulator, "n_gpu_layers")[0]
    with open_emulator(tiny, n_gpu_layers=3 if gpu else 0, n_ctx=64) as emulator:
        assert not said(emulator, "n_gpu_layers")


def test_a_recipes_context_that_is_cut_is_said_with_both_numbers(tiny, tmp_path):
    recipe = replace(from_files(*tiny[:3]), n_ctx=4096)
    with Emulator(recipe, n_threads=1) as emulator:
        assert emulator.n_ctx == 512
        (line,) = said(emulator, "n_ctx")
    assert "512" in line
    assert "4096" in line
    with Emulator(recipe, n_threads=1, n_ctx=600) as emulator:
        assert said(emulator, "n_ctx") == ["n_ctx is 600; the models were trained on 512"]
    with Emulator(replace(recipe, n_ctx=300), n_threads=1) as emulator:
        assert not said(emulator, "n_ctx")


def test_a_twin_is_another_model(tiny):
    """The tests' own way to have one model in all roles."""
    with open_emulator((tiny.base, twin(tiny.base), tiny.base), n_ctx=64) as emulator:
        assert emulator.generate("the", max_tokens=3, temperature=0).text
