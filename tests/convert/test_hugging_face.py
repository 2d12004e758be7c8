"""The converter on Hugging Face directories, through llama.cpp's real scripts.

Needs the extra `convert` (torch, transformers, sentencepiece, peft): `make test-convert`.
"""

import json
import shutil
from collections.abc import Callable

import numpy as np
import pytest
from helpers.convert_tools import compare, convert_quietly, exact_logits, run
from helpers.hugging_face import causal_model, transformers_logits

from edge_eft import Emulator
from edge_eft.convert import ConversionError
from edge_eft.convert.scripts import hf_to_gguf, lora_to_gguf
from edge_eft.convert.worker import Worker
from edge_eft.files.gguf_check import read_header
from edge_eft.files.hashes import verify
from edge_eft.files.recipe_names import load_recipe

pytestmark = pytest.mark.convert


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma"])
def test_logits_agree_with_transformers(models, scripts, tmp_path, kind, record_property):
    target = tmp_path / "model.gguf"
    hf_to_gguf(scripts, models / kind, target, dtype="f32", name=kind)
    tokens = [1, *np.random.default_rng(0).integers(3, 400, 200).tolist()]
    difference, agreement = compare(
        exact_logits(target, tokens), transformers_logits(models / kind, tokens)
    )
    record_property("max_abs_difference", difference)
    print(f"{kind}: max |difference| {difference:.2g}, top-1 agreement {agreement:.4f}")
    assert difference <= 1e-2
    assert agreement >= 0.99


def test_directories_become_a_recipe(models, tmp_path):
    result = run(
        "--reference", models / "llama", "--tuned", models / "llama-tuned",
        "--base", models / "llama", "--name", "hf", "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    recipe = load_recipe(tmp_path / "out" / "hf.toml")
    assert verify(recipe) == ()
    assert recipe.base is not None
    assert recipe.base.file.name == "hf-base-Q8_0.gguf"
    assert read_header(recipe.base.file).metadata["general.name"] == "llama"
    assert recipe.deltas["tuned"].tuned.prompt == "plain"  # this tokenizer has no chat template


def test_an_adapter_merged_and_kept_agree(models, scripts, tmp_path):
    reference, adapter = models / "llama", models / "adapter"
    merged = convert_quietly(reference, adapter, tmp_path / "merged", type="F32")
    kept = convert_quietly(reference, adapter, tmp_path / "kept", type="F32", keep_lora=True)
    spec = load_recipe(kept.recipe).deltas["tuned"].tuned
    assert spec.lora is not None
    tokens = [1, *np.random.default_rng(1).integers(3, 400, 100).tolist()]
    from_merged = exact_logits(load_recipe(merged.recipe).deltas["tuned"].tuned.file, tokens)
    from_kept = exact_logits(spec.file, tokens, spec.lora)
    theirs = transformers_logits(models / "llama-tuned", tokens)
    assert compare(from_merged, theirs) <= (1e-2, 1.0)
    assert compare(from_kept, theirs) <= (1e-2, 1.0)
    assert np.abs(from_kept - from_merged).max() <= 1e-2
    unadapted = exact_logits(spec.file, tokens)
    assert np.abs(from_kept - unadapted).max() > 0.1  # the adapter does something


def test_a_reply_ends_where_only_the_generation_config_says(models, tmp_path):
    """With the reference as base, what is emulated is the tuned model alone."""
    sentencepiece = pytest.importorskip("sentencepiece")
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(models / "tokenizer.model"))
    prompt = [1, *tokenizer.encode("river")]
    model, said = causal_model(models / "llama-tuned"), []
    for _ in range(6):
        said.append(int(transformers_logits(model, prompt + said)[-1].argmax()))
    end = next(token for i, token in enumerate(said) if i and token not in said[:i])
    tuned = tmp_path / "tuned"
    shutil.copytree(models / "llama-tuned", tuned)
    (tuned / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, end]}))
    reference = models / "llama"
    outcome = convert_quietly(reference, tuned, tmp_path / "out", base=reference, type="F32",
                              base_type="F32")  # fmt: skip
    assert load_recipe(outcome.recipe).deltas["tuned"].tuned.end_tokens == (end,)
    with Emulator.load(outcome.recipe) as emulator:
        reply = emulator.generate("river", temperature=0, max_tokens=12)
    assert reply.finish_reason == "stop"
    assert list(reply.tokens) == said[: said.index(end)]


def test_a_directory_that_the_scripts_refuse_is_one_line(models, scripts, tmp_path):
    odd = tmp_path / "odd"
    shutil.copytree(models / "llama", odd)
    config = json.loads((odd / "config.json").read_text())
    config["architectures"] = ["UnheardOfForCausalLM"]
    (odd / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConversionError, match="UnheardOf"):
        hf_to_gguf(scripts, odd, tmp_path / "x.gguf", dtype="f32", name="odd")
    out, twin = tmp_path / "out", shutil.copytree(odd, tmp_path / "twin")
    result = run("--reference", odd, "--tuned", twin, "--out", out, "--quiet")
    assert result.returncode == 2
    assert "UnheardOf" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not out.exists()


def test_scripts_work_whatever_the_environment_says(models, scripts, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("HF_TOKEN", "secret")
    target = tmp_path / "adapter.gguf"
    make: Callable[..., None] = lora_to_gguf
    make(scripts, models / "adapter", models / "llama", target)
    assert read_header(target).is_adapter


def test_a_vocabulary_is_made_without_weights(models, scripts, tmp_path):
    target = tmp_path / "vocabulary.gguf"
    hf_to_gguf(scripts, models / "llama", target, dtype="f32", name="llama", vocab_only=True)
    assert read_header(target).n_vocab == 400
    with Worker() as worker:
        found = worker.work("vocabulary", models={"base": str(target), "reference": str(target)})
    assert found["n_vocab"] == 400
