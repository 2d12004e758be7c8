"""gguf_operators: types, widths and constants that would end the process are refused, no others."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from helpers.gguf_builder import ARR, F32, STR, U32, File, layout, refusal, with_key

from edge_eft.files.gguf_check import read_header
from edge_eft.files.gguf_header import GGML_TYPES

WITHOUT_PRODUCT = ("F64", "I8", "I16", "I32", "I64", "Q8_1", "Q8_K")
TYPE_IDS = {name: number for number, (name, _, _) in GGML_TYPES.items()}


def loads(tmp_path: Path, file: File) -> bool:
    path = tmp_path / "x.gguf"
    path.write_bytes(file.build())
    return read_header(path).n_layer > 0


def with_tensor(name: str, kind: str, shape: tuple[int, ...] = (256, 2)) -> File:
    return File(tensors=layout((name.encode(), shape, TYPE_IDS[kind])))


@pytest.mark.parametrize("kind", WITHOUT_PRODUCT)
@pytest.mark.parametrize("name", ["token_embd.weight", "blk.0.attn_q.weight", "output.weight"])
def test_a_matrix_of_a_type_without_product_is_refused(tmp_path, name, kind):
    assert f"has type {kind}" in refusal(tmp_path, with_tensor(name, kind).build())


@pytest.mark.parametrize("kind", sorted(set(TYPE_IDS) - set(WITHOUT_PRODUCT)))
def test_every_other_type_is_a_matrix_type(tmp_path, kind):
    assert loads(tmp_path, with_tensor("blk.0.attn_q.weight", kind))


F32_ALONE = """
    output_norm.weight token_embd_norm.weight blk.0.attn_norm.weight blk.0.ffn_norm.weight
    blk.0.attn_q_norm.weight blk.0.post_attention_norm.weight blk.0.attn_norm_2.weight
    blk.0.attn_q.bias output.bias blk.0.ffn_down.bias blk.0.exp_probs_b.bias rope_freqs.weight
    blk.0.rope_factors_long.weight rope_factors_short.weight blk.0.attn_sinks.weight
    blk.0.ssm_conv1d.weight blk.0.ssm_a blk.0.ssm_d blk.0.shortconv.conv.weight
    blk.0.attn_q.scale
"""


@pytest.mark.parametrize("name", F32_ALONE.split())
def test_norms_biases_and_rope_factors_are_f32_or_refused(tmp_path, name):
    for kind in ("F16", "BF16", "Q8_0", "I32"):
        assert "computes with F32 alone" in refusal(tmp_path, with_tensor(name, kind).build())
    assert loads(tmp_path, with_tensor(name, "F32"))


PASSES = """
    blk.0.ffn_gate_inp.weight blk.0.ffn_gate_inp_shexp.weight token_types.weight
    position_embd.weight blk.0.ssm_in.weight blk.0.ssm_x.weight per_layer_token_embd.weight
    blk.0.attn_kv_a_mqa.weight blk.0.attn_k_b.weight blk.0.time_mix_w1.weight cls.weight
"""


@pytest.mark.parametrize("name", PASSES.split())
def test_other_tensors_may_be_of_half_precision(tmp_path, name):
    assert loads(tmp_path, with_tensor(name, "F16"))


@pytest.mark.parametrize("name", ["blk.0.ffn_gate_tid2eid.weight", "d2t"])
def test_tables_of_numbers_are_integers(tmp_path, name):
    """DeepSeek 4 routes by token id; a draft model's vocabulary is mapped."""
    assert loads(tmp_path, with_tensor(name, "I32"))


def shaped(architecture: str, **keys: int) -> File:
    file = File()
    changed = {key.replace("__", "."): (U32, value) for key, value in keys.items()}
    file.keys |= {f"llama.{key}".encode(): value for key, value in changed.items()}
    new = architecture.encode()
    file.keys = {key.replace(b"llama.", new + b"."): value for key, value in file.keys.items()}
    file.keys[b"general.architecture"] = (STR, new)
    return file


def widths(key: int, value: int, rope: int | None = None) -> dict[str, int]:
    found = {"attention__key_length": key, "attention__value_length": value}
    return found | ({} if rope is None else {"rope__dimension_count": rope})


@pytest.mark.parametrize(
    ("architecture", "keys", "reason"),
    [
        ("llama", widths(16, 8), "keys are 16 wide and values 8"),
        ("qwen3moe", widths(16, 8), "keys are 16 wide and values 8"),
        ("phi2", widths(16, 8), "keys are 16 wide and values 8"),
        ("llama", widths(16, 16, 8), "rope turns 8 dimensions of keys that have 16"),
        ("llama", widths(9, 9), "rope turns 9 dimensions, which is odd"),
        ("phi2", widths(16, 16, 7), "rope turns 7 dimensions, which is odd"),
        ("gemma3", widths(16, 16, 7), "rope turns 7 dimensions, which is odd"),
        ("gemma3", widths(16, 16, 32), "rope turns 32 dimensions of keys that have 16"),
    ],
)
def test_widths_that_a_graph_asserts_are_refused(tmp_path, architecture, keys, reason):
    assert reason in refusal(tmp_path, shaped(architecture, **keys).build())


def test_heads_without_keys_are_refused_unless_layers_may_lack_attention(tmp_path):
    for architecture, passes in (
        ("llama", False),
        ("qwen3", False),
        ("deci", True),
        ("jamba", True),
    ):
        file = shaped(architecture)
        file.keys[f"{architecture}.attention.head_count_kv".encode()] = (ARR, U32, [4, 0])
        if passes:
            assert loads(tmp_path, file)
        else:
            assert "layer 1 has 4 heads and no keys" in refusal(tmp_path, file.build())


# Published shapes: key_length, value_length, rope.dimension_count, heads, embedding_length.
PUBLISHED = {
    "Llama 3.2 1B": ("llama", widths(64, 64, 64), 32, 2048),
    "Qwen3 0.6B": ("qwen3", widths(128, 128), 16, 1024),
    "Gemma 3 270M": ("gemma3", widths(256, 256), 4, 640),
    "DeepSeek V2 Lite": ("deepseek2", widths(192, 128, 64), 16, 2048),
    "DeepSeek V3, latent": ("deepseek2", widths(576, 512, 64), 128, 7168),
    "MiniCPM3 4B": ("minicpm3", widths(96, 64, 32), 40, 2560),
    "Phi-2": ("phi2", {"rope__dimension_count": 32}, 32, 2560),
    "Phi-4-mini": ("phi3", {"rope__dimension_count": 96}, 24, 3072),
    "GLM-4 9B": ("glm4", widths(128, 128, 64), 32, 4096),
    "StableLM 2 1.6B": ("stablelm", {"rope__dimension_count": 16}, 32, 2048),
    "GPT-NeoX 20B": ("gptneox", {"rope__dimension_count": 24}, 64, 6144),
    "Qwen3-Next 80B": ("qwen3next", widths(256, 256, 64), 16, 2048),
    "PLM 1.8B": ("plm", widths(192, 128, 64), 16, 2048),
    "Gemma 4, other widths in windows": (
        "gemma4",
        widths(512, 512, 512)
        | {"attention__key_length_swa": 256, "attention__value_length_swa": 256},
        8,
        2560,
    ),
    "GPT-2, without rope": ("gpt2", {}, 12, 768),
    "Mamba, without attention": ("mamba", {}, 0, 768),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_shapes_pass(tmp_path, name):
    architecture, keys, heads, width = PUBLISHED[name]
    file = shaped(
        architecture,
        attention__head_count=heads,
        attention__head_count_kv=heads,
        **{"embedding_length": width} | keys,
    )
    assert loads(tmp_path, file)


CONSTANTS = """
    attention.layer_norm_rms_epsilon attention.layer_norm_epsilon attention.group_norm_epsilon
    attention.scale attention.clamp_kqv logit_scale embedding_scale residual_scale
    final_logit_softcapping rope.freq_base rope.freq_base_swa rope.scaling.factor
"""


@pytest.mark.parametrize("name", CONSTANTS.split())
def test_constants_are_finite_and_not_negative(tmp_path, name):
    key = f"llama.{name}".encode()
    for value in (math.nan, math.inf, -math.inf, -1.0):
        assert f"{name} is {value:g}, not a" in refusal(tmp_path, with_key(key, F32, value).build())
    assert loads(tmp_path, with_key(key, F32, 0.0))
    several = with_key(key, ARR, F32, [1.0, math.nan])
    assert "not a finite number" in refusal(tmp_path, several.build())


def test_constants_that_nothing_is_known_of_pass(tmp_path):
    """YaRN's factors are −1 where they are not set, and a time step may be without limit."""
    assert loads(tmp_path, with_key(b"llama.rope.scaling.yarn_ext_factor", F32, -1.0))
    assert loads(tmp_path, with_key(b"llama.ssm.time_step_max", F32, math.inf))
