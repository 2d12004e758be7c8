"""GGUF files of published shapes with a hole where the weights are, to ask llama.cpp for sizes."""

import logging
import os
import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from edge_eft.backend.library import L, start_library

# Name → architecture, then hidden size, heads, key-value heads, head size, feed-forward size.
SHAPES: dict[str, tuple[str, tuple[int, int, int, int, int]]] = {
    "SmolLM2-135M": ("llama", (576, 9, 3, 64, 1536)),
    "Llama-3.2-1B": ("llama", (2048, 32, 8, 64, 8192)),
    "Llama-3.1-8B": ("llama", (4096, 32, 8, 128, 14336)),
    "Qwen3-0.6B": ("qwen3", (1024, 16, 8, 128, 3072)),
    "Qwen3-8B": ("qwen3", (4096, 32, 8, 128, 12288)),
    "Qwen2.5-0.5B": ("qwen2", (896, 14, 2, 64, 4864)),
    "Gemma-3-1B": ("gemma3", (1152, 4, 1, 256, 6912)),
    "Gemma-3-12B": ("gemma3", (3840, 16, 8, 256, 15360)),
    "Qwen3-30B-A3B": ("qwen3moe", (2048, 32, 4, 128, 768)),
}
# The same of hybrids, every fourth layer of which attends.
HYBRIDS: dict[str, tuple[str, tuple[int, int, int, int, int]]] = {
    "LFM2-350M": ("lfm2", (1024, 16, 8, 64, 4608)),
    "LFM2-1.2B": ("lfm2", (2048, 32, 8, 64, 8192)),
    "Qwen3.5-0.8B": ("qwen35", (1024, 8, 2, 256, 3584)),
    "Qwen3.5-9B": ("qwen35", (4096, 16, 4, 256, 12288)),
}
STATE, HEADS_K = 128, 16  # of Qwen3.5's delta rule; as many value heads, or twice as many
N_EXPERTS, N_USED = 128, 8
N_VOCAB = 8192  # published ones have up to 262,144, which take a second each to load


def write_sparse(path: Path, name: str, n_layer: int = 6) -> Path:
    """A file of that shape, with fewer layers: the buffer of a graph does not depend on them.

    Six are the least of which one of Gemma's attends to everything.
    """
    architecture, (d, heads, heads_kv, head, ff) = (SHAPES | HYBRIDS)[name]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(32768)
    writer.add_embedding_length(d)
    writer.add_block_count(n_layer)
    writer.add_feed_forward_length(ff)
    writer.add_head_count(heads)
    attends = [(i + 1) % 4 == 0 for i in range(n_layer)]
    writer.add_head_count_kv(
        [heads_kv * on for on in attends] if architecture == "lfm2" else heads_kv
    )
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(1e-5)
    if architecture == "gemma3":
        writer.add_sliding_window(512)
    if architecture == "qwen3moe":
        writer.add_expert_count(N_EXPERTS)
        writer.add_expert_used_count(N_USED)
        writer.add_expert_feed_forward_length(ff)
    if architecture == "lfm2":
        writer.add_shortconv_l_cache(3)
    if architecture == "qwen35":
        writer.add_rope_dimension_sections([11, 11, 10, 0])
        writer.add_ssm_conv_kernel(4)
        writer.add_ssm_inner_size(_values(d))
        writer.add_ssm_state_size(STATE)
        writer.add_ssm_time_step_rank(_values(d) // STATE)
        writer.add_ssm_group_count(HEADS_K)
    writer.add_tokenizer_model("llama")
    tokens = [b"<unk>", b"<s>", b"</s>", *(b"<0x%02X>" % byte for byte in range(256))]
    tokens += [b"t%d" % i for i in range(N_VOCAB - len(tokens))]
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * N_VOCAB)
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * (N_VOCAB - 259))
    tensors = _hybrid_tensors(name, n_layer) if name in HYBRIDS else _tensors(name, n_layer)
    sizes = [_add(writer, *each) for each in tensors]
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    data = sum(-(-size // 32) * 32 for size in sizes)
    os.truncate(path, -(-path.stat().st_size // 32) * 32 + data)
    return path


def _tensors(name: str, n_layer: int) -> list[tuple[str, tuple[int, ...]]]:
    architecture, (d, heads, heads_kv, head, ff) = SHAPES[name]
    q, k = heads * head, heads_kv * head
    found: list[tuple[str, tuple[int, ...]]] = [("token_embd", (N_VOCAB, d)), ("output_norm", (d,))]
    layer: dict[str, tuple[int, ...]] = {
        "attn_norm": (d,), "attn_q": (q, d), "attn_k": (k, d), "attn_v": (k, d),
        "attn_output": (d, q), "ffn_norm": (d,),
    }  # fmt: skip
    if architecture in {"qwen3", "qwen3moe", "gemma3"}:
        layer |= {"attn_q_norm": (head,), "attn_k_norm": (head,)}
    if architecture == "gemma3":
        layer |= {"post_attention_norm": (d,), "post_ffw_norm": (d,)}
    if architecture == "qwen3moe":
        n = N_EXPERTS
        layer |= {"ffn_gate_inp": (n, d), "ffn_gate_exps": (n, ff, d), "ffn_up_exps": (n, ff, d)}
        layer |= {"ffn_down_exps": (n, d, ff)}
    else:
        layer |= {"ffn_gate": (ff, d), "ffn_up": (ff, d), "ffn_down": (d, ff)}
    for i in range(n_layer):
        found += [(f"blk.{i}.{name}", size) for name, size in layer.items()]
        if architecture == "qwen2":
            found += [
                (f"blk.{i}.attn_{name}.bias", (n,))
                for name, n in zip("qkv", (q, k, k), strict=True)
            ]
    return found


def _values(d: int) -> int:
    """Elements of the delta rule's values."""
    return HEADS_K * STATE * (2 if d > 2048 else 1)


def _hybrid_tensors(name: str, n_layer: int) -> list[tuple[str, tuple[int, ...]]]:
    architecture, (d, heads, heads_kv, head, ff) = HYBRIDS[name]
    q, k, is_lfm2 = heads * head, heads_kv * head, architecture == "lfm2"
    norm, values, keys = (
        "token_embd_norm" if is_lfm2 else "output_norm",
        _values(d),
        HEADS_K * STATE,
    )
    found: list[tuple[str, tuple[int, ...]]] = [("token_embd", (N_VOCAB, d)), (norm, (d,))]
    each: dict[str, tuple[int, ...]] = {
        "attn_norm": (d,), "ffn_norm" if is_lfm2 else "post_attention_norm": (d,),
        "ffn_gate": (ff, d), "ffn_up": (ff, d), "ffn_down": (d, ff),
    }  # fmt: skip
    attention: dict[str, tuple[int, ...]] = {
        "attn_q": (q if is_lfm2 else 2 * q, d), "attn_k": (k, d), "attn_v": (k, d),
        "attn_output": (d, q), "attn_q_norm": (head,), "attn_k_norm": (head,),
    }  # fmt: skip
    convolution: dict[str, tuple[int, ...]] = {
        "shortconv.conv": (d, 3), "shortconv.in_proj": (3 * d, d), "shortconv.out_proj": (d, d),
    }  # fmt: skip
    delta: dict[str, tuple[int, ...]] = {
        "attn_qkv": (2 * keys + values, d), "attn_gate": (values, d),
        "ssm_conv1d": (2 * keys + values, 4), "ssm_dt.bias": (values // STATE,),
        "ssm_a": (values // STATE,), "ssm_beta": (values // STATE, d),
        "ssm_alpha": (values // STATE, d), "ssm_norm": (STATE,), "ssm_out": (d, values),
    }  # fmt: skip
    for i in range(n_layer):
        layer = attention if (i + 1) % 4 == 0 else convolution if is_lfm2 else delta
        found += [(f"blk.{i}.{name}", size) for name, size in (each | layer).items()]
    return found


def _add(writer: Any, name: str, shape: tuple[int, ...]) -> int:
    is_matrix = len(shape) > 1 and shape[-1] % 32 == 0 and "gate_inp" not in name
    kind = "Q8_0" if is_matrix else "F32"
    n_weights, n_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    size = int(np.prod(shape)) // n_weights * n_bytes
    full = name if name.endswith((".bias", "ssm_a")) else f"{name}.weight"
    raw = gguf.GGMLQuantizationType[kind]
    writer.add_tensor_info(full, shape, np.dtype(np.float32), size, raw_dtype=raw)
    return size


class Sizes:
    """What llama.cpp says it would allocate for contexts on a model, allocating nothing."""

    def __init__(self, path: Path) -> None:
        start_library()
        params = L.llama_model_default_params()
        params.no_alloc, params.load_mode = True, L.LLAMA_LOAD_MODE_NONE
        params.n_gpu_layers = 0
        self._model = L.llama_model_load_from_file(os.fsencode(path), params)
        assert self._model

    def of(
        self,
        *,
        n_ctx: int,
        n_slots: int,
        n_outputs: int,
        kv_type: int,
        flash_attn: bool,
        n_rs_seq: int = 0,
    ) -> tuple[float, float]:
        """Bytes of keys, values and recurrent states, and of the graph's buffer."""
        params = L.llama_context_default_params()
        params.n_ctx, params.n_seq_max = n_ctx * n_slots, n_slots
        params.n_batch = params.n_ubatch = 512
        params.kv_unified, params.swa_full = False, True
        params.n_outputs_max, params.n_rs_seq = n_outputs, n_rs_seq
        params.type_k = params.type_v = kv_type
        params.flash_attn_type = int(flash_attn)
        with _lines() as lines:
            context = L.llama_init_from_model(self._model, params)
        assert context
        L.llama_free(context)
        text = "\n".join(lines)
        kept = re.findall(r"llama_(?:kv_cache|memory_recurrent): size = +([\d.]+) MiB", text)
        found = re.findall(r"CPU compute buffer size = +([\d.]+) MiB", text)
        return sum(map(float, kept)) * 2**20, float(found[-1]) * 2**20

    def close(self) -> None:
        """Free the model."""
        L.llama_model_free(self._model)


class _lines(logging.Handler):  # noqa: N801
    """What llama.cpp logs in a block."""

    def __enter__(self) -> list[str]:
        self.found: list[str] = []
        self.log = logging.getLogger("edge_eft.llama")
        self.before = self.log.level
        self.log.setLevel(logging.DEBUG)
        self.log.addHandler(self)
        return self.found

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(record.getMessage())

    def __exit__(self, *_: object) -> None:
        self.log.removeHandler(self)
        self.log.setLevel(self.before)
