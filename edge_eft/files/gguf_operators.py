"""What llama.cpp's operators cannot compute: types of tensors, widths of heads, constants.

The loader takes such a file, and an assert ends the process when the first graph is built or
computed. After ggml's CPU operators and the asserts in llama.cpp's src/models/*.cpp (as of
llama-cpp-python 0.3.36); what the loader refuses by itself, as wrong shapes, is left to it. What
is not known to end the process passes: published models differ in more than can be foreseen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from .gguf_header import GGUFArray, Layout, TensorInfo, quoted

# Types that ggml stores and has no product with (vec_dot in ggml-cpu.c).
NO_PRODUCT = frozenset({"F64", "I8", "I16", "I32", "I64", "Q8_1", "Q8_K"})
# Tables of numbers of tokens or experts, which are looked up and not multiplied.
_INTEGER_TABLE = re.compile(r"(.*\.)?(ffn_gate_tid2eid|d2t|t2d|masked_embd_ordering)(\.weight)?")
# Added to or multiplied with F32 activations element by element (binary-ops.cpp), or read as
# floats (rope, soft_max, ssm_conv, ssm_scan).
_F32_ALONE = re.compile(
    r".*\.(bias|scale|input_scale)|(.*\.)?[^.]*norm[^.]*\.weight"
    r"|(.*\.)?rope_(freqs|factors_long|factors_short)\.weight|.*\.attn_sinks(\.weight)?"
    r"|.*\.(ssm_conv1d|shortconv\.conv)\.weight|.*\.ssm_[ad]"
)

# The architectures whose graph asserts that keys are as wide as values …
_EQUAL_WIDTHS = """
    afmoe apertus arcee arctic baichuan bailingmoe2 bitnet bloom chameleon chatglm codeshell
    cogvlm cohere2 cohere2moe command-r dbrx deci deepseek dots1 dream ernie4_5 ernie4_5-moe
    exaone exaone-moe exaone4 falcon glm4 glm4moe gpt2 gptneox granite granite_swa granitehybrid
    graniteswitch grok grovemoe hunyuan-moe hunyuan_vl hy_v3 internlm2 jais jais2 laguna llada
    llada-moe llama llama4 maincoder mellum minimax-01 minimax-m2 minimax-m3 mistral3 mpt
    muse-glimmer nanbeige nemotron nemotron_h nemotron_h_moe olmo olmo2 olmoe openelm orion
    paddleocr pangu-embedded phi2 phi3 plamo qwen qwen2 qwen2moe qwen2vl qwen3 qwen35 qwen35moe
    qwen3moe qwen3next qwen3vl qwen3vlmoe qwen4exp refact rnd1 seed_oss smallthinker smollm3
    spark2_5 stablelm starcoder starcoder2 talkie xverse
"""
# … and those of them in which rope turns the whole width.
_WHOLE_ROPE = """
    apertus arcee arctic baichuan chameleon codeshell cogvlm cohere2moe dbrx deci deepseek dots1
    dream ernie4_5 ernie4_5-moe exaone exaone-moe exaone4 falcon granite granite_swa graniteswitch
    grok grovemoe hunyuan-moe hunyuan_vl hy_v3 internlm2 jais2 llada llada-moe llama llama4
    maincoder mellum mistral3 olmo olmo2 olmoe orion paddleocr pangu-embedded plamo qwen2 qwen2moe
    qwen2vl qwen3 qwen3moe qwen3vl qwen3vlmoe rnd1 seed_oss smallthinker smollm3 starcoder2 talkie
    xverse
"""

# Constants of an architecture that must be finite and not negative.
_CONSTANT = re.compile(
    r"attention\.(layer_norm_epsilon|layer_norm_rms_epsilon|group_norm_epsilon|scale)"
    r"|attention\.(clamp_kqv|max_alibi_bias|output_scale|temperature_scale)"
    r"|(logit|embedding|residual)_scale|(attn|final|router)_logit_softcapping"
    r"|rope\.(freq_base|freq_base_swa|scale_linear|scaling\.factor|scaling\.attn_factor)"
)


def is_vector(name: str) -> bool:
    """Return whether a tensor of this name is used element by element, and never as a matrix."""
    return _F32_ALONE.fullmatch(name) is not None


def check_tensor_types(layout: Layout) -> None:
    """Raise ModelFileError if a tensor has a type that its operator does not take."""
    for tensor in layout.tensors:
        if tensor.type != "F32" and is_vector(tensor.name):
            raise _type_error(layout, tensor, "llama.cpp computes with F32 alone there")
        if tensor.type in NO_PRODUCT and not _INTEGER_TABLE.fullmatch(tensor.name):
            raise _type_error(layout, tensor, "llama.cpp has no product with that type")


def _type_error(layout: Layout, tensor: TensorInfo, reason: str) -> Exception:
    fix = f"{reason}; convert the model again"
    return layout.error(f"tensor {quoted(tensor.name)} has type {tensor.type}", fix)


def check_widths(
    layout: Layout, architecture: str, heads: Sequence[int], heads_kv: Sequence[int]
) -> None:
    """Raise ModelFileError if keys, values and rope have widths that a graph asserts not to have.

    Args:
        heads: of each layer; the graphs take their widths from the first, 0 without attention.
        heads_kv: heads of keys and values of each layer, all 0 if that is not stated.
    """
    prefix, n_head = architecture + ".", heads[0]
    if architecture in _WHOLE_ROPE.split() and any(heads_kv):
        # In a hybrid such a layer has no attention; in these it has, without keys.
        layers = [
            i for i, (n, n_kv) in enumerate(zip(heads, heads_kv, strict=True)) if n and not n_kv
        ]
        if layers and architecture != "deci":
            raise layout.error(
                f"layer {layers[0]} has {heads[layers[0]]} heads and no keys for them"
            )
    of_windows = (
        "attention.key_length_swa",
        "attention.value_length_swa",
        "rope.dimension_count_swa",
    )
    if not n_head or any(prefix + key in layout.metadata for key in of_windows):
        return  # where windows have widths of their own, it depends on the layer
    default = layout.integer(prefix + "embedding_length", None) // n_head
    keys = layout.integer(prefix + "attention.key_length", default)
    values = layout.integer(prefix + "attention.value_length", default)
    rope_key = prefix + "rope.dimension_count"
    rope = layout.integer(rope_key, keys)
    if architecture in _EQUAL_WIDTHS.split() and keys != values:
        seen = f"keys are {keys} wide and values {values}"
        raise layout.error(f"{seen}, which a {architecture} cannot have")
    whole = architecture in _WHOLE_ROPE.split()
    turns = rope_key in layout.metadata or whole
    if turns and rope % 2:
        raise layout.error(f"rope turns {rope} dimensions, which is odd")
    if turns and (rope > keys or (rope != keys and whole)):
        raise layout.error(f"rope turns {rope} dimensions of keys that have {keys}")


def check_numbers(layout: Layout, architecture: str) -> None:
    """Raise ModelFileError if a constant that the graphs compute with is no number for that."""
    prefix = architecture + "."
    for key, value in layout.metadata.items():
        if not key.startswith(prefix) or not _CONSTANT.fullmatch(key.removeprefix(prefix)):
            continue
        values = value.values if isinstance(value, GGUFArray) else (value,)
        for each in values:
            if isinstance(each, float) and not 0 <= each < math.inf:
                raise layout.error(f"{key} is {each:g}, not a finite number, 0 or more")
