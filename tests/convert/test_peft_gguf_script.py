"""files/peft_gguf against llama.cpp's own script: the same tensors. Needs the extra `convert`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from helpers.convert_tools import compare, exact_logits
from helpers.hugging_face import transformers_logits, write_adapter

from edge_eft.convert.scripts import hf_to_gguf
from edge_eft.files.gguf_check import GGUFHeader, read_header
from edge_eft.files.gguf_header import TensorInfo
from edge_eft.files.peft import read_peft
from edge_eft.files.peft_gguf import REORDERED, to_gguf

pytestmark = pytest.mark.convert

SHAPE = {
    "vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 0, "max_position_embeddings": 128,
}  # fmt: skip
CONFIGURATIONS = {
    "llama": ("LlamaConfig", {}),
    "granite": ("GraniteConfig", {}),
    "smollm3": ("SmolLM3Config", {}),
    "qwen2": ("Qwen2Config", {}),
    "qwen3": ("Qwen3Config", {}),
    "gemma": ("GemmaConfig", {}),
    "gemma2": ("Gemma2Config", {}),
    "gemma3": ("Gemma3TextConfig", {}),
    "olmo2": ("Olmo2Config", {}),
    "phi3": ("Phi3Config", {}),
}

# Importing torch takes longer than a conversion, so that one process does them all.
MANY = """
import json, runpy, sys
script = sys.argv[1]
sys.path[0] = script.rpartition("/")[0]
for adapter, base, target in json.loads(sys.argv[2]):
    sys.argv = [script, adapter, "--base", base, "--outfile", target]
    runpy.run_path(script, run_name="__main__")
"""


def write_model(root: Path, name: str) -> Any:
    import torch
    import transformers

    kind, more = CONFIGURATIONS[name]
    torch.manual_seed(0)
    config = getattr(transformers, kind)(**SHAPE, **more)
    model = transformers.AutoModelForCausalLM.from_config(config).float()
    model.save_pretrained(root / name)
    return model


def header_of(model: Any, name: str) -> GGUFHeader:
    """What the header of its GGUF says; not every tokenizer of these can be made small."""
    numbers = {text: number for number, text in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(numbers[name], SHAPE["num_hidden_layers"])
    tensors = []
    for path, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if weight is not None and weight.ndim == 2 and path != "lm_head":
            shape = tuple(weight.shape)[::-1]
            tensors.append(TensorInfo(f"{names.get_name(path)}.weight", shape, "F32", 0, 0))
    metadata = {
        f"{name}.block_count": SHAPE["num_hidden_layers"],
        f"{name}.attention.head_count": SHAPE["num_attention_heads"],
        f"{name}.attention.head_count_kv": SHAPE["num_key_value_heads"],
    }
    return GGUFHeader(Path(f"{name}.gguf"), 0, 3, name, metadata, tuple(tensors), (), ())


def tensors_of(path: Path) -> dict[str, np.ndarray]:
    read_header(path)
    return {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(path).tensors}


@pytest.fixture(scope="module")
def made(scripts, tmp_path_factory) -> dict[str, tuple[Path, Path]]:
    """Architecture → what the script makes of an adapter of all its matrices, and what we do."""
    root = tmp_path_factory.mktemp("architectures")
    for module in ("torch", "transformers", "peft"):
        pytest.importorskip(module)
    pairs, jobs = {}, []
    for name in CONFIGURATIONS:
        model = write_model(root, name)
        write_adapter(root / name, root / f"{name}-adapter", target_modules="all-linear")
        theirs, ours = root / f"{name}-theirs.gguf", root / f"{name}-ours.gguf"
        to_gguf(read_peft(root / f"{name}-adapter"), header_of(model, name), ours)
        jobs.append([str(root / f"{name}-adapter"), str(root / name), str(theirs)])
        pairs[name] = theirs, ours
    script = str(scripts / "convert_lora_to_gguf.py")
    done = subprocess.run(
        [sys.executable, "-c", MANY, script, json.dumps(jobs)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return pairs


def test_every_architecture_is_compared():
    assert set(CONFIGURATIONS) == set(REORDERED)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_tensors_are_those_of_llama_cpps_script(made, name):
    theirs, ours = map(tensors_of, made[name])
    assert len(theirs) >= 16  # two sides of four or more matrices in two layers
    assert list(theirs.keys() ^ ours.keys()) == []
    for tensor in theirs:
        assert theirs[tensor].dtype == ours[tensor].dtype == np.float32
        assert np.array_equal(theirs[tensor], ours[tensor]), tensor
    alphas = {read_header(path).metadata["adapter.lora.alpha"] for path in made[name]}
    assert alphas == {8.0}
    assert {read_header(path).architecture for path in made[name]} == {name}


def test_an_adapter_acts_as_peft_says(models, scripts, tmp_path):
    """rsLoRA, and strengths of single modules; on the model as llama.cpp has it."""
    adapted = write_adapter(
        models / "llama", tmp_path / "adapter", use_rslora=True,
        alpha_pattern={"v_proj": 32}, rank_pattern={"down_proj": 6},
    )  # fmt: skip
    model, ours = tmp_path / "model.gguf", tmp_path / "adapter.gguf"
    hf_to_gguf(scripts, models / "llama", model, dtype="f32", name="llama")
    to_gguf(read_peft(tmp_path / "adapter"), read_header(model), ours)
    tokens = [1, *np.random.default_rng(2).integers(3, 400, 80).tolist()]
    truth = transformers_logits(adapted, tokens)
    assert compare(exact_logits(model, tokens, ours), truth) <= (1e-2, 1.0)
    assert compare(exact_logits(model, tokens), truth)[0] > 0.1
