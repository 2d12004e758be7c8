"""adapter_strength: a GGUF adapter that does not do what PEFT's merged model shows is refused."""

import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
from helpers import tiny_models

from edge_eft.convert import ConversionError
from edge_eft.convert.adapter_strength import check_strength


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write_adapter(tmp_path_factory.mktemp("adapter") / "adapter.gguf")


def merged(target: Path, model: Path, adapter: Path, strength: float = 1.0, **other: float) -> Path:
    """The model with `strength` times the adapter merged, and `other` tensors moved."""
    shutil.copy(model, target)
    pairs = {tensor.name: tensor.data for tensor in gguf.GGUFReader(adapter).tensors}
    for tensor in gguf.GGUFReader(target, "r+").tensors:
        if f"{tensor.name}.lora_a" in pairs:  # their alpha is their rank
            a, b = pairs[f"{tensor.name}.lora_a"], pairs[f"{tensor.name}.lora_b"]
            tensor.data[:] += strength * (b @ a)
        tensor.data[:] += np.float32(other.get(tensor.name.replace(".", "_"), 0.0))
    return target


def test_the_same_change_passes(pair, adapter, tmp_path):
    check_strength(adapter, pair[0], merged(tmp_path / "m.gguf", pair[0], adapter), "it")


@pytest.mark.parametrize("strength", [0.25, 0.98, 1.02, 4.0])
def test_another_strength_is_refused_with_its_slope(pair, adapter, tmp_path, strength):
    other = merged(tmp_path / "m.gguf", pair[0], adapter, strength)
    with pytest.raises(
        ConversionError, match=rf"act at {1 / strength:.2f} of PEFT's .*--keep-lora"
    ):
        check_strength(adapter, pair[0], other, "it")


@pytest.mark.parametrize(
    "name", ["output_norm.weight", "blk_1_ffn_down_weight", "token_embd_weight"]
)
def test_a_change_that_the_adapter_lacks_is_refused(pair, adapter, tmp_path, name):
    moved = {name.replace(".", "_"): 0.01}
    other = merged(tmp_path / "m.gguf", pair[0], adapter, **moved)
    with pytest.raises(ConversionError, match=r"act at 0\.00 .*--keep-lora"):
        check_strength(adapter, pair[0], other, "it")


def test_an_adapter_where_peft_changes_nothing_is_refused(pair, adapter):
    with pytest.raises(ConversionError, match="leaves as it is"):
        check_strength(adapter, pair[0], pair[0], "it")


def test_a_merged_model_of_other_tensors_is_refused(pair, adapter, tmp_path):
    deep = tiny_models.write_random(tmp_path / "d.gguf", seed=1, n_layer=3, quantised=False)
    with pytest.raises(ConversionError, match="other tensors"):
        check_strength(adapter, pair[0], deep, "it")
