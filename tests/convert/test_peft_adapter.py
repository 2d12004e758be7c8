"""peft_adapter: what a GGUF adapter cannot carry is refused with --keep-lora, before any work."""

import json
from pathlib import Path

import pytest
from helpers.hugging_face import MODULE, SHAPES, adapter_directory, model_directory

from edge_eft.convert import ConversionError
from edge_eft.convert.inputs import gather
from edge_eft.convert.options import Options

ROOT = "base_model.model.model"


def inspected(reference: Path, tuned: Path, *, keep_lora: bool = True) -> None:
    gather(Options(reference, {"tuned": tuned}, reference.parent / "out", "x", keep_lora=keep_lora))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (f"{MODULE}.lora_magnitude_vector", (64,), "uses DoRA"),
        (f"{ROOT}.norm.weight", (64,), "trains norms"),
        (f"{ROOT}.layers.0.input_layernorm.weight", (64,), "trains norms"),
        (f"{MODULE}.base_layer.bias", (64,), "trains biases"),
        (f"{MODULE}.lora_B.bias", (64,), "trains biases"),
        ("base_model.model.lm_head.weight", (400, 64), "a head of its own"),
        (f"{ROOT}.embed_tokens.weight", (403, 64), "embeddings or a head"),
        (f"{ROOT}.embed_tokens.base_layer.weight", (403, 64), "embeddings or a head"),
        (f"{ROOT}.embed_tokens.lora_embedding_A", (4, 400), "changes the embeddings"),
        (
            f"{ROOT}.embed_tokens.token_adapter.trainable_tokens_delta",
            (2, 64),
            "trains single tokens",
        ),
        (f"{ROOT}.something.new", (2, 64), "is more than LoRA"),
    ],
)
def test_a_tensor_that_is_not_lora_is_refused_and_may_be_merged(tmp_path, name, shape, message):
    reference = model_directory(tmp_path / "model")
    adapter = adapter_directory(tmp_path / "adapter", others={name: shape})
    with pytest.raises(ConversionError, match=rf"{message}.*convert without --keep-lora"):
        inspected(reference, adapter)
    inspected(reference, adapter, keep_lora=False)


@pytest.mark.parametrize(
    "config", [{"alora_invocation_tokens": [1, 2]}, {"layer_replication": [[0, 1], [0, 1]]}]
)
def test_what_only_the_configuration_says_is_refused(tmp_path, config):
    reference = model_directory(tmp_path / "model")
    with pytest.raises(ConversionError, match="convert without --keep-lora"):
        inspected(reference, adapter_directory(tmp_path / "adapter", **config))


def test_an_adapter_on_a_tied_head_is_refused_with_the_reason(tmp_path):
    head = {"base_model.model.lm_head.lora_A.weight": (4, 64)}
    head |= {"base_model.model.lm_head.lora_B.weight": (400, 4)}
    adapter = adapter_directory(tmp_path / "adapter", others=head)
    with pytest.raises(ConversionError, match=r"tied.*convert without --keep-lora"):
        inspected(model_directory(tmp_path / "tied"), adapter)
    own = model_directory(tmp_path / "untied", shapes={**SHAPES, "lm_head.weight": (400, 64)})
    inspected(own, adapter)


def test_an_adapter_that_adds_tokens_is_refused(tmp_path):
    reference = model_directory(tmp_path / "model")
    known = {"model": {"vocab": {"a": 0}}, "added_tokens": [{"content": "</s>"}]}
    (reference / "tokenizer.json").write_text(json.dumps(known))
    adapter = adapter_directory(tmp_path / "adapter")
    (adapter / "added_tokens.json").write_text(json.dumps({"</s>": 2, "a": 0}))
    inspected(reference, adapter)
    (adapter / "added_tokens.json").write_text(json.dumps({"<|im_start|>": 401}))
    with pytest.raises(ConversionError, match=r"adds tokens.*im_start.*without --keep-lora"):
        inspected(reference, adapter)


def test_a_strength_that_is_no_number_is_refused(tmp_path):
    reference = model_directory(tmp_path / "model")
    for i, alpha in enumerate(["much", True, float("nan"), None]):
        with pytest.raises(ConversionError, match="lora_alpha"):
            inspected(reference, adapter_directory(tmp_path / str(i), lora_alpha=alpha))
