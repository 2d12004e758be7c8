"""sources: what the converter says of directories, from their headers alone."""

import json
import struct

import pytest
from helpers import tiny_models
from helpers.hugging_face import SHAPES, adapter_directory, model_directory

from edge_eft.convert import ConversionError
from edge_eft.convert.sources import check_adapter_fits, check_same_family, inspect
from edge_eft.errors import ModelFileError


def test_a_model_directory_is_described_from_its_headers(tmp_path):
    source = inspect(model_directory(tmp_path / "m"), "reference")
    assert source.kind == "hf"
    assert source.architecture == "LlamaForCausalLM"
    assert source.n_parameters == 464 * 64
    assert len(source.sha256) == 64


def test_what_is_not_a_model_directory_is_refused(tmp_path):
    with pytest.raises(ConversionError, match="not a model directory"):
        inspect(tmp_path, "tuned")
    with pytest.raises(ConversionError, match="no such file"):
        inspect(tmp_path / "nowhere", "tuned")


def test_a_directory_without_tokenizer_is_refused(tmp_path):
    with pytest.raises(ConversionError, match="has no tokenizer"):
        inspect(model_directory(tmp_path / "m", tokenizer=False), "tuned")


def test_weights_that_are_pickled_or_short_are_refused(tmp_path):
    directory = model_directory(tmp_path / "m", missing=10)
    with pytest.raises(ModelFileError, match="truncated"):
        inspect(directory, "tuned")
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(ConversionError, match="safe_serialization"):
        inspect(directory, "tuned")


@pytest.mark.parametrize("header", [b"", b"\xff" * 8, struct.pack("<Q", 4) + b"nono", b"12345678{"])
def test_a_damaged_safetensors_header_is_refused(tmp_path, header):
    directory = model_directory(tmp_path / "m")
    (directory / "model.safetensors").write_bytes(header)
    with pytest.raises(ModelFileError, match="safetensors"):
        inspect(directory, "tuned")


def test_a_missing_shard_that_the_index_names_is_named(tmp_path):
    directory = model_directory(tmp_path / "m")
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConversionError, match=r"lacks model-2\.safetensors"):
        inspect(directory, "tuned")


def test_a_directory_with_code_is_refused_without_trust_remote_code(tmp_path):
    """llama.cpp's scripts pass trust_remote_code=True; a stranger's directory must not use it."""
    directory = model_directory(tmp_path / "m", config={"auto_map": {"AutoModel": "evil.Model"}})
    with pytest.raises(ConversionError, match="--trust-remote-code"):
        inspect(directory, "tuned")
    assert inspect(directory, "tuned", trust_remote_code=True).kind == "hf"


def test_directories_of_other_families_or_shapes_are_refused(tmp_path):
    reference = inspect(model_directory(tmp_path / "r"), "reference")
    qwen = {"architectures": ["Qwen2ForCausalLM"]}
    other = inspect(model_directory(tmp_path / "q", config=qwen), "tuned")
    with pytest.raises(ConversionError, match=r"Qwen2ForCausalLM and reference .*Llama"):
        check_same_family(reference, other)
    wide = {**SHAPES, "model.layers.0.q_proj.weight": (96, 64)}
    with pytest.raises(ConversionError, match="96 × 64"):
        check_same_family(reference, inspect(model_directory(tmp_path / "w", shapes=wide), "tuned"))
    padded = {**SHAPES, "model.embed_tokens.weight": (402, 64), "lm_head.weight": (402, 64)}
    tail = inspect(model_directory(tmp_path / "p", shapes=padded), "tuned")
    check_same_family(reference, tail)  # added tokens are vocabulary.py's business


def test_adapters_are_checked_against_their_reference(tmp_path):
    reference = inspect(model_directory(tmp_path / "r"), "reference")
    fitting = inspect(adapter_directory(tmp_path / "a"), "tuned")
    assert fitting.is_adapter
    check_adapter_fits(fitting, reference)
    other = inspect(adapter_directory(tmp_path / "b", n_in=128), "tuned")
    with pytest.raises(ConversionError, match="another model"):
        check_adapter_fits(other, reference)
    with pytest.raises(ConversionError, match="IA3"):
        inspect(adapter_directory(tmp_path / "c", peft_type="IA3"), "tuned")


def test_a_gguf_adapter_with_more_layers_than_its_model_is_refused(tmp_path):
    model = inspect(tiny_models.write_random(tmp_path / "m.gguf", seed=0), "reference")
    adapter = inspect(tiny_models.write_adapter(tmp_path / "a.gguf", n_layer=3), "tuned")
    with pytest.raises(ModelFileError, match=r"blk\.2"):
        check_adapter_fits(adapter, model)
