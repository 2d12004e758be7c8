"""peft_gguf: a PEFT LoRA becomes the adapter that llama.cpp's script would make, or is refused.

With the script itself it is compared in tests/convert/test_peft_gguf_script.py.
"""

import json
import re
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import gguf
import numpy as np
import pytest
from helpers import tiny_models
from helpers.hugging_face import as_stored, peft_directory, random_pairs

from edge_eft.errors import ModelFileError
from edge_eft.files.gguf_check import GGUFHeader, read_header
from edge_eft.files.peft import read_peft
from edge_eft.files.peft_gguf import to_gguf

QUERY, KEY, VALUE = (f"layers.1.self_attn.{name}_proj" for name in "qkv")
DOWN = "layers.0.mlp.down_proj"
MODULES = {QUERY: (64, 64), KEY: (64, 64), VALUE: (64, 64), DOWN: (64, 128)}
PAIRS = random_pairs(MODULES)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> GGUFHeader:
    """A Llama with two layers of two heads of 32."""
    return read_header(tiny_models.write_random(tmp_path_factory.mktemp("m") / "small.gguf", 1))


def as_architecture(model: GGUFHeader, name: str) -> GGUFHeader:
    metadata = {key.replace("llama.", f"{name}."): value for key, value in model.metadata.items()}
    return replace(model, architecture=name, metadata=metadata)


def converted(directory: Path, model: GGUFHeader) -> tuple[float, dict[str, np.ndarray]]:
    """Its alpha and tensors, of which llama.cpp's checks are true."""
    target = directory.with_suffix(".gguf")
    to_gguf(read_peft(directory), model, target)
    header = read_header(target)
    assert header.is_adapter
    tensors = {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(target).tensors}
    return header.metadata["adapter.lora.alpha"], tensors


def refusal(directory: Path, model: GGUFHeader) -> str:
    with pytest.raises(ModelFileError) as caught:
        to_gguf(read_peft(directory), model, directory.with_suffix(".gguf"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_names_are_llama_cpps_and_numbers_stay(tmp_path, model):
    alpha, tensors = converted(peft_directory(tmp_path / "a", PAIRS), model)
    assert alpha == 8.0
    assert sorted(tensors) == [
        f"blk.{place}.weight.lora_{side}"
        for place in ("0.ffn_down", "1.attn_k", "1.attn_q", "1.attn_v")
        for side in "ab"
    ]
    for module, place in ((VALUE, "1.attn_v"), (DOWN, "0.ffn_down")):
        for values, side in zip(PAIRS[module], "ab", strict=True):
            assert np.array_equal(tensors[f"blk.{place}.weight.lora_{side}"], values)


def test_rows_of_queries_and_keys_are_paired_in_a_llama(tmp_path, model):
    """Row i of a head's first half and row i of its second become neighbours."""
    _, tensors = converted(peft_directory(tmp_path / "a", PAIRS), model)
    order = [head * 32 + half * 16 + i for head in (0, 1) for i in range(16) for half in (0, 1)]
    for module, place in ((QUERY, "1.attn_q"), (KEY, "1.attn_k")):
        assert np.array_equal(tensors[f"blk.{place}.weight.lora_a"], PAIRS[module][0])
        assert np.array_equal(tensors[f"blk.{place}.weight.lora_b"], PAIRS[module][1][order])


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "gemma3"])
def test_rows_stay_where_they_are_elsewhere(tmp_path, model, name):
    _, tensors = converted(peft_directory(tmp_path / "a", PAIRS), as_architecture(model, name))
    assert np.array_equal(tensors["blk.1.attn_q.weight.lora_b"], PAIRS[QUERY][1])


def test_keys_of_fewer_heads_are_paired_in_theirs(tmp_path, model):
    metadata = {**model.metadata, "llama.attention.head_count_kv": 1}
    tensors = [
        replace(tensor, shape=(64, 32)) if tensor.name == "blk.1.attn_k.weight" else tensor
        for tensor in model.tensors
    ]
    model = replace(model, metadata=metadata, tensors=tuple(tensors))
    pairs = random_pairs({KEY: (32, 64)})
    _, found = converted(peft_directory(tmp_path / "a", pairs), model)
    order = [half * 16 + i for i in range(16) for half in (0, 1)]
    assert np.array_equal(found["blk.1.attn_k.weight.lora_b"], pairs[KEY][1][order])


@pytest.mark.parametrize("dtype", ["F64", "F16", "BF16"])
def test_numbers_of_other_types_become_float32(tmp_path, model, dtype):
    _, tensors = converted(peft_directory(tmp_path / "a", PAIRS, dtype=dtype), model)
    raw = as_stored(PAIRS[VALUE][1], dtype)
    if dtype == "BF16":
        raw, dtype = b"".join(b"\0\0" + raw[i : i + 2] for i in range(0, len(raw), 2)), "F32"
    kind = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype]
    stored = np.frombuffer(raw, kind).astype(np.float32).reshape(64, 4)
    assert np.array_equal(tensors["blk.1.attn_v.weight.lora_b"], stored)
    assert tensors["blk.1.attn_v.weight.lora_b"].dtype == np.float32


def test_rslora_is_a_larger_alpha(tmp_path, model):
    alpha, tensors = converted(peft_directory(tmp_path / "a", PAIRS, use_rslora=True), model)
    assert alpha == 16.0  # 8/√4 = alpha/4
    assert np.array_equal(tensors["blk.1.attn_v.weight.lora_b"], PAIRS[VALUE][1])


def test_strengths_of_single_modules_are_written_into_their_numbers(tmp_path, model):
    pairs = {**PAIRS, **random_pairs({DOWN: (64, 128)}, rank=6)}
    patterns = {
        "alpha_pattern": {"v_proj": 32, "layers.0.mlp.down_proj": 3},
        "rank_pattern": {r"^model\.layers\.0\.mlp\.down_proj": 6},
    }
    alpha, tensors = converted(peft_directory(tmp_path / "a", pairs, **patterns), model)
    for module, place, strength in (
        (VALUE, "1.attn_v", 32 / 4),
        (DOWN, "0.ffn_down", 3 / 6),
    ):
        a, b = (tensors[f"blk.{place}.weight.lora_{side}"] for side in "ab")
        delta = strength * pairs[module][1] @ pairs[module][0]
        assert np.allclose(alpha / len(a) * b @ a, delta, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"init_lora_weights": "pissa_niter_4"}, "may also have changed its model's weights"),
        ({"init_lora_weights": "olora"}, "may also have changed its model's weights"),
        ({"alora_invocation_tokens": [1]}, r"\(aLoRA\)"),
        ({"layer_replication": [[0, 1]]}, "repeats layers"),
        ({"use_qalora": True}, "has a setting that edge_eft does not know .*use_qalora"),
        ({"of_next_year": {"x": 1}}, "has a setting that edge_eft does not know .*of_next_year"),
        ({"rank_pattern": {"(q+)+_proj": 4}}, "the expression .*which only PEFT reads"),
        ({"alpha_pattern": {"(q_proj": 4}}, "no expression"),
        ({"alpha_pattern": {"q_proj": "much"}}, "has 'much', not a number"),
        ({"alpha_pattern": {"q_proj": 10**400}}, "not a number"),
        ({"alpha_pattern": {"q_proj": 1e300}}, "has 1e\\+300, not a number"),
        ({"alpha_pattern": [1]}, "alpha_pattern is no table"),
        ({"alpha_pattern": {"(.|.)" * 30 + "X": 4}}, "the expression .*which only PEFT reads"),
        ({"alpha_pattern": {"(" * 900 + ")" * 900: 4}}, "the expression .*which only PEFT reads"),
        ({"alpha_pattern": {"(" * 500 + ")" * 500: 4}}, "no expression"),
        ({"r": 8}, "of rank 4, and its configuration says 8"),
        ({"lora_alpha": 0}, "never trained"),
        ({"lora_alpha": 1e-300}, "never trained"),
        ({"\x1b[31m\n" + "k" * 9999: 1}, r"know \('\\x1b\[31m\\nkkk[k.]*'\)"),
    ],
)
def test_a_setting_that_a_gguf_adapter_cannot_have_is_refused(tmp_path, model, config, message):
    assert re.search(message, refusal(peft_directory(tmp_path / "a", PAIRS, **config), model))


@pytest.mark.parametrize("alpha", [10**400, 1e39, float("inf"), -1e300, True, "8"])
def test_a_strength_that_float32_has_not_is_refused(tmp_path, alpha):
    with pytest.raises(ModelFileError, match=r"lora_alpha .* which is not a number"):
        read_peft(peft_directory(tmp_path / "a", PAIRS, lora_alpha=alpha))


def test_patterns_for_hundreds_of_modules_are_read_once(tmp_path, model):
    patterns = {rf"model\.layers\.{i}\.self_attn\.q_proj": 8 for i in range(2000)}
    patterns["layers.(0|1|2|3|4|5|6|7|8|9|10|11).self_attn.v_proj"] = 32
    path = peft_directory(tmp_path / "a", PAIRS, alpha_pattern=patterns)
    begun = perf_counter()
    assert converted(path, model)[0] == 32
    assert perf_counter() - begun < 5


def test_harmless_settings_are_passed_over(tmp_path, model):
    config = {
        "init_lora_weights": "gaussian", "megatron_core": "megatron.core", "of_next_year": None,
        "auto_mapping": {"base_model_class": "LlamaForCausalLM"}, "lora_dropout": 0.1,
        "target_modules": ["q_proj"], "qalora_group_size": 16, "bias": "none",
    }  # fmt: skip
    assert converted(peft_directory(tmp_path / "a", PAIRS, **config), model)[0] == 8.0


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (
            {"layers.0.self_attn.z_proj": (64, 64)},
            "changes 'model.layers.0.self_attn.z_proj', which",
        ),
        ({"layers.7.self_attn.q_proj": (64, 64)}, "blk.7.attn_q.weight|lacks"),
        ({QUERY: (64, 96)}, "blk.1.attn_q.weight.lora_a is 96 × 4, but .* is 64 × 64"),
        ({QUERY: (96, 64)}, "blk.1.attn_q.weight.lora_b is 4 × 96, but .* is 64 × 64"),
    ],
)
def test_what_does_not_fit_the_model_is_named(tmp_path, model, modules, message):
    said = refusal(peft_directory(tmp_path / "a", random_pairs(modules)), model)
    assert re.search(message, said)
    assert "give the model that it was trained on" in said


def test_a_side_without_the_other_is_refused(tmp_path, model):
    pairs = random_pairs({QUERY: (64, 64)})
    odd = {QUERY: (pairs[QUERY][0], np.zeros((64, 5), np.float32))}
    assert "not a pair of one rank" in refusal(peft_directory(tmp_path / "a", odd), model)


def test_another_architecture_is_sent_to_the_script(tmp_path, model):
    other = as_architecture(model, "falcon-h1")
    assert "edge-eft convert --keep-lora" in refusal(peft_directory(tmp_path / "a", PAIRS), other)


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "not finite"), (np.inf, "not finite"), (0.0, "never trained")]
)
def test_numbers_that_no_training_gives_are_refused(tmp_path, model, value, message):
    pair = {QUERY: (PAIRS[QUERY][0], np.full((64, 4), value, np.float32))}
    assert message in refusal(peft_directory(tmp_path / "a", pair), model)


def test_integers_are_refused(tmp_path, model):
    assert "of type I8" in refusal(peft_directory(tmp_path / "a", PAIRS, dtype="I8"), model)


def test_what_sees_is_passed_over_and_what_reads_is_found_in_it(tmp_path, model):
    directory = peft_directory(tmp_path / "a", {
        f"language_model.{QUERY}": PAIRS[QUERY],
        "vision_tower.encoder.layers.0.self_attn.q_proj": PAIRS[QUERY],
    })  # fmt: skip
    _, tensors = converted(directory, as_architecture(model, "gemma3"))
    assert sorted(tensors) == [f"blk.1.attn_q.weight.lora_{side}" for side in "ab"]


def test_the_base_is_named_in_the_file(tmp_path, model):
    directory = peft_directory(tmp_path / "a", PAIRS, base_model_name_or_path="org/Small-Instruct")
    converted(directory, model)
    header = read_header(directory.with_suffix(".gguf"))
    assert header.metadata["general.base_model.0.name"] == "org/Small-Instruct"


def test_a_configuration_with_a_mark_before_it_is_read(tmp_path, model):
    directory = peft_directory(tmp_path / "a", PAIRS)
    config = directory / "adapter_config.json"
    config.write_text("\ufeff" + json.dumps(json.loads(config.read_text())), "utf-8")
    assert converted(directory, model)[0] == 8.0
