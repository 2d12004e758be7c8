"""Random models of some thousand parameters with recurrent layers, as tiny_models has Llamas.

Every second layer attends, the others keep a state: a short convolution (LFM2), or a convolution
and a gated delta rule (Qwen3.5), or Mamba 2 (Granite 4 h), for which llama.cpp keeps no state to
go back to. Vocabulary and loudness are those of tiny_models.
"""

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np

from helpers.tiny_models import N_VOCAB, RESERVED, add_shape, begin, finish

HEAD = 32
N_LAYER = 4
Add = Callable[..., None]


def write_hybrid(path: Path, seed: int, architecture: str, *, d: int = 64) -> Path:
    """Random weights of one of `LAYERS`; an even layer is recurrent."""
    writer = begin(path, architecture)
    add_shape(writer, d=d, n_ff=2 * d, n_layer=N_LAYER, head_size=HEAD, n_ctx_train=512)
    rng = np.random.default_rng(seed)

    def add(name: str, *shape: int, scale: float | None = None) -> None:
        """Random numbers, Q8_0 if they are a matrix; ones where it is a norm."""
        if name.endswith("norm.weight"):
            writer.add_tensor(name, np.ones(shape, np.float32))
            return
        scale = 1.5 / np.sqrt(shape[-1]) if scale is None else scale
        values = (rng.standard_normal(shape) * scale).astype(np.float32)
        if name == "output.weight":  # bytes and control tokens: replies are text and seldom end
            values[: RESERVED + 1] = 0.0
        if name.endswith("ssm_a"):
            values = -np.abs(values)  # what is remembered fades
        if len(shape) == 2 and shape[-1] % 32 == 0:  # but for the kernels of convolutions
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)

    add("token_embd.weight", N_VOCAB, d, scale=1.0)
    add("output.weight", N_VOCAB, d, scale=2 / np.sqrt(d))
    for layer in range(N_LAYER):
        block = f"blk.{layer}."
        add(block + "attn_norm.weight", d)
        add(block + "ffn_gate.weight", 2 * d, d)
        add(block + "ffn_up.weight", 2 * d, d)
        add(block + "ffn_down.weight", d, 2 * d)
    LAYERS[architecture](writer, add, d)
    finish(writer)
    return path


def _lfm2(writer: gguf.GGUFWriter, add: Add, d: int) -> None:
    writer.add_shortconv_l_cache(3)
    writer.add_head_count_kv([0, d // HEAD] * (N_LAYER // 2))
    writer.add_rope_freq_base(10_000.0)
    add("token_embd_norm.weight", d)
    for layer in range(N_LAYER):
        block = f"blk.{layer}."
        add(block + "ffn_norm.weight", d)
        if layer % 2:
            _attention(add, block, d, gated=False)
        else:
            add(block + "shortconv.conv.weight", d, 3, scale=0.6)
            add(block + "shortconv.in_proj.weight", 3 * d, d)
            add(block + "shortconv.out_proj.weight", d, d)


def _qwen35(writer: gguf.GGUFWriter, add: Add, d: int) -> None:
    heads_k, heads_v = d // HEAD, d // HEAD
    keys, values = heads_k * HEAD, heads_v * HEAD
    writer.add_head_count_kv(d // HEAD)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_rope_dimension_sections([HEAD // 8, HEAD // 8, HEAD // 8, 0])
    writer.add_rope_freq_base(10_000.0)
    writer.add_full_attention_interval(2)
    writer.add_ssm_conv_kernel(4)
    writer.add_ssm_inner_size(values)
    writer.add_ssm_state_size(HEAD)
    writer.add_ssm_time_step_rank(heads_v)
    writer.add_ssm_group_count(heads_k)
    add("output_norm.weight", d)
    for layer in range(N_LAYER):
        block = f"blk.{layer}."
        add(block + "post_attention_norm.weight", d)
        if layer % 2:
            _attention(add, block, d, gated=True)
            continue
        add(block + "attn_qkv.weight", 2 * keys + values, d)
        add(block + "attn_gate.weight", values, d)
        add(block + "ssm_conv1d.weight", 2 * keys + values, 4, scale=0.6)
        add(block + "ssm_dt.bias", heads_v, scale=0.5)
        add(block + "ssm_a", heads_v, scale=0.5)
        add(block + "ssm_beta.weight", heads_v, d)
        add(block + "ssm_alpha.weight", heads_v, d)
        add(block + "ssm_norm.weight", HEAD)
        add(block + "ssm_out.weight", d, values)


def _granite(writer: gguf.GGUFWriter, add: Add, d: int) -> None:
    inner, state, heads = 2 * d, 16, 4
    writer.add_head_count_kv([0, d // HEAD] * (N_LAYER // 2))
    writer.add_ssm_conv_kernel(4)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(heads)
    writer.add_ssm_group_count(1)
    add("output_norm.weight", d)
    for layer in range(N_LAYER):
        block = f"blk.{layer}."
        add(block + "ffn_norm.weight", d)
        if layer % 2:
            for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
                add(f"{block}{name}.weight", d, d)
            continue
        add(block + "ssm_in.weight", 2 * inner + 2 * state + heads, d)
        add(block + "ssm_conv1d.weight", inner + 2 * state, 4, scale=0.6)
        add(block + "ssm_conv1d.bias", inner + 2 * state, scale=0.1)
        add(block + "ssm_dt.bias", heads, scale=0.5)
        add(block + "ssm_a", heads, 1, scale=0.5)
        add(block + "ssm_d", heads, 1, scale=0.5)
        add(block + "ssm_norm.weight", 1, inner)
        add(block + "ssm_out.weight", d, inner)


def _attention(add: Add, block: str, d: int, *, gated: bool) -> None:
    add(block + "attn_q.weight", (1 + gated) * d, d)
    for name in ("attn_k", "attn_v", "attn_output"):
        add(f"{block}{name}.weight", d, d)
    for name in ("attn_q_norm", "attn_k_norm"):
        add(f"{block}{name}.weight", HEAD)


GOING_BACK = ("lfm2", "qwen35")
LAYERS = {"lfm2": _lfm2, "qwen35": _qwen35, "granitehybrid": _granite}
