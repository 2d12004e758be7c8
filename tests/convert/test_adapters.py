"""PEFT adapters, kept and merged: they act as PEFT says. Needs the extra `convert`."""

import json
import shutil
from collections.abc import Iterator

import gguf
import numpy as np
import pytest
from helpers.convert_tools import compare, convert_quietly, exact_logits
from helpers.hugging_face import TOKENIZER, transformers_logits, write_adapter

from edge_eft.convert import ConversionError
from edge_eft.convert.masters import MasterMaker, hyperparameters
from edge_eft.convert.sources import inspect
from edge_eft.convert.talk import Talk
from edge_eft.convert.worker import Worker
from edge_eft.convert.workspace import Workspace
from edge_eft.files.gguf_check import read_header
from edge_eft.files.recipe_names import load_recipe

pytestmark = pytest.mark.convert

TOKENS = [1, *np.random.default_rng(5).integers(3, 400, 80).tolist()]


@pytest.fixture(scope="module")
def maker(models, tmp_path_factory) -> Iterator[MasterMaker]:
    out = tmp_path_factory.mktemp("masters")
    with Workspace(out, "x", force=False) as workspace, Worker() as worker:
        yield MasterMaker(workspace, worker, Talk(), None)


def slope(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Of the regression of our delta on theirs."""
    return float(np.vdot(ours, theirs) / np.vdot(theirs, theirs))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rslora", {"use_rslora": True}),
        ("patterns", {"alpha_pattern": {"v_proj": 32}, "rank_pattern": {"down_proj": 6}}),
    ],
)
def test_a_kept_adapter_acts_at_pefts_strength(models, maker, tmp_path, name, options):
    reference = maker.make(inspect(models / "llama", "reference"))
    adapted = write_adapter(models / "llama", tmp_path / "adapter", **options)
    tuned = inspect(tmp_path / "adapter", f"tuned:{name}")
    kept = maker.make_kept_adapter(tuned, reference)
    reader = gguf.GGUFReader(kept.lora)
    pairs = {tensor.name: tensor.data for tensor in reader.tensors}
    alpha = float(reader.get_field("adapter.lora.alpha").contents())
    layer = adapted.base_model.model.model.layers[1]
    for module, tensor in (
        (layer.self_attn.v_proj, "blk.1.attn_v.weight"),
        (layer.mlp.down_proj, "blk.1.ffn_down.weight"),
    ):
        a, b = pairs[f"{tensor}.lora_a"], pairs[f"{tensor}.lora_b"]
        theirs = module.get_delta_weight("default").detach().numpy()
        assert slope(alpha / len(a) * (b @ a), theirs) == pytest.approx(1, abs=0.01)
    truth = transformers_logits(adapted, TOKENS)
    assert compare(exact_logits(reference.gguf, TOKENS, kept.lora), truth) <= (1e-2, 1.0)
    assert compare(exact_logits(kept.merged, TOKENS), truth) <= (1e-2, 1.0)


def test_an_adapter_that_also_moved_its_model_is_not_kept(models, maker, tmp_path):
    """PiSSA takes its adapter's first values out of the weights, which no tensor's name says."""
    write_adapter(models / "llama", tmp_path / "adapter", init_lora_weights="pissa")
    reference = maker.make(inspect(models / "llama", "reference"))
    with pytest.raises(ConversionError, match=r"of PEFT's strength .*convert without --keep-lora"):
        maker.make_kept_adapter(inspect(tmp_path / "adapter", "tuned:pissa"), reference)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tied-head", {"target_modules": ["q_proj", "lm_head"]}),
        ("all-else", {"use_dora": True, "bias": "all", "modules_to_save": ["norm", "lm_head"]}),
        ("grown", {"n_vocab": 403, "modules_to_save": ["embed_tokens", "lm_head"]}),
    ],
)
def test_a_merged_adapter_says_what_peft_says(models, maker, tmp_path, name, options):
    adapted = write_adapter(models / "llama", tmp_path / "adapter", **options)
    tuned = inspect(tmp_path / "adapter", f"tuned:{name}")
    merged = maker.make_merged(tuned, inspect(models / "llama", "reference"))
    before = hyperparameters(read_header(maker.make(inspect(models / "llama", "reference")).gguf))
    assert hyperparameters(read_header(merged.gguf)) == before
    tokens = [*TOKENS, 402] if "n_vocab" in options else TOKENS
    truth = transformers_logits(adapted, tokens)
    assert compare(exact_logits(merged.gguf, tokens), truth) <= (1e-2, 1.0)


def test_rows_that_an_adapter_does_not_bring_are_named(models, maker, tmp_path):
    write_adapter(
        models / "llama", tmp_path / "adapter", n_vocab=403, target_modules=["q_proj", "lm_head"],
        save_embedding_layers=False,
    )  # fmt: skip
    tuned = inspect(tmp_path / "adapter", "tuned:without")
    with pytest.raises(ConversionError, match=r"vocabulary of 403 tokens and the model has 400"):
        maker.make_merged(tuned, inspect(models / "llama", "reference"))


def test_what_lies_beside_an_adapter_comes_into_the_recipe(models, tmp_path):
    """A grown vocabulary, an end token of its own, named templates, a mark before JSON."""
    reference = tmp_path / "reference"
    shutil.copytree(models / "llama", reference)
    (reference / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 300]}))
    adapter = tmp_path / "adapter"
    write_adapter(reference, adapter, n_vocab=401)
    templates = [{"name": "rag", "template": "{{ 1 }}"}, {"name": "default", "template": "{{ 2 }}"}]
    tokenizer = {
        **TOKENIZER, "eos_token": "<|done|>", "chat_template": templates,
        "added_tokens_decoder": {"400": {"content": "<|done|>", "special": True}},
    }  # fmt: skip
    (adapter / "tokenizer_config.json").write_text("\ufeff" + json.dumps(tokenizer))
    outcome = convert_quietly(reference, adapter, tmp_path / "out", type="F16")
    delta = load_recipe(outcome.recipe).deltas["tuned"]
    assert delta.tuned.prompt == "template"
    assert delta.reference.end_tokens == (300,)
    assert set(delta.tuned.end_tokens) == {300, "<|done|>"}
    assert any("never generated" in warning for warning in outcome.report.about["warnings"])
