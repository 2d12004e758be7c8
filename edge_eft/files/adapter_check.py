"""LoRA adapters: what a header must have in itself, and whether it fits the model it is put on.

llama.cpp checks two of an adapter's widths. What it takes beyond that ends the process in the first
decode, or is skipped without a word, and the reply is the untuned model's. The rules are those of
llama-adapter.cpp and of `build_lora_mm` and `build_inp_embd` in llama-graph.cpp (as of
llama-cpp-python 0.3.36).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import ModelFileError
from .gguf_header import Layout, TensorInfo, quoted
from .gguf_operators import NO_PRODUCT, is_vector

if TYPE_CHECKING:
    from .gguf_check import GGUFHeader

_MERGE = "merge it into the model instead"
# Looked up by index, or read element by element: no adapter acts on them.
_NOT_PRODUCTS = re.compile(
    r"(position_embd|token_types|per_layer_token_embd)\.weight|.*(_rel_b|_ape|tid2eid|embed_tokens)"
    r"(\.weight)?|.*\.time_mix_(lerp.*|ln|first|decay|[wav]0|k_[ak]|r_k)\.weight"
    r"|.*\.channel_mix_lerp.*|.*_(score|scale|base)\.weight"
    # multiplied without looking for adapters, whatever the architecture
    r"|.*\.(attn_k_b|attn_v_b|ffn_latent_down|ffn_latent_up|altup_router)\.weight|altup_.*"
    r"|per_layer_model_proj\.weight"
    r"|.*\.indexer\..*|.*\.time_mix_(decay_w|w|a|v|g)[12]\.weight"
)
# The same of single architectures, whose graphs call ggml_mul_mat where others call build_lora_mm.
_LATENT = r"blk\.\d+\.attn_(q|q_a|q_b|kv_a_mqa|kv_b)\.weight"
_NOT_IN = {
    **dict.fromkeys(("minicpm3", "plm"), re.compile(_LATENT)),
    **dict.fromkeys(
        ("deepseek2", "deepseek32", "mistral4", "dots3note", "glm-dsa", "hy_v4"),
        re.compile(_LATENT + r"|output\.weight"),
    ),
    **dict.fromkeys(
        ("kimi-linear", "glm5-next", "bailingmoe3"),
        re.compile(r"output\.weight|blk\.\d+\.(attn|ssm)_.*"),
    ),
    "deepseek2-ocr": re.compile(r"output\.weight"),
    "deepseek4": re.compile(r"output\.weight|blk\.\d+\.attn_output_a\.weight"),
    "graniteswitch": re.compile(r"blk\.\d+\.(attn|ffn)_.*"),
    "kimi-k3": re.compile(r"output\.weight|blk\.\d+\.(attn|ssm|ffn)_.*"),
}


def check_adapter(layout: Layout) -> None:
    """Raise ModelFileError unless an adapter's header is sound in itself.

    That is: a LoRA of a finite alpha, whose tensors are pairs of matrices of one rank.
    """
    if layout.metadata.get("adapter.type") != "lora":
        raise layout.error("is an adapter of another type than lora", "give a LoRA adapter")
    alpha = layout.metadata.get("adapter.lora.alpha", 0.0)
    is_float = layout.types.get("adapter.lora.alpha", "float32") == "float32"
    if not is_float or not isinstance(alpha, float):
        raise layout.error("adapter.lora.alpha is of the wrong type (not float32)")
    if not math.isfinite(alpha):
        raise layout.error(f"adapter.lora.alpha is {alpha}, not a finite number")
    if "adapter.alora.invocation_tokens" in layout.metadata:
        seen = "is an activated LoRA, which acts only after its invocation tokens"
        raise layout.error(seen, "give an adapter that acts everywhere")
    tensors = {tensor.name: tensor for tensor in layout.tensors}
    for tensor in layout.tensors:
        _check_tensor(layout, tensor)
        stem, _, side = tensor.name.rpartition(".lora_")
        other = tensors.get(f"{stem}.lora_{'b' if side == 'a' else 'a'}")
        if other is None:
            raise layout.error(f"adapter tensor {quoted(tensor.name)} lacks the other of its pair")
        a, b = _sides(tensors, stem)
        rank = a[0] if stem == "token_embd.weight" else a[1]
        if rank != b[0]:
            seen = f"the pair of {quoted(stem)} disagrees on its rank ({_shown(a)} and {_shown(b)})"
            raise layout.error(seen)


def _check_tensor(layout: Layout, tensor: TensorInfo) -> None:
    name = f"adapter tensor {quoted(tensor.name)}"
    stem, _, side = tensor.name.rpartition(".lora_")
    if side not in ("a", "b") or ".lora_" in stem:
        # llama.cpp refuses such a name, but passes over norms without a word.
        raise layout.error(f"{name} is not of a LoRA pair, and llama.cpp cannot apply it", _MERGE)
    if tensor.type in NO_PRODUCT:
        raise layout.error(f"{name} has type {tensor.type}, and llama.cpp has no product with it")
    if len(tensor.shape) > 3 and tensor.shape[3] != 1:
        raise layout.error(f"{name} has four dimensions ({_shown(tensor.shape)})")


def check_adapter_fits(adapter: GGUFHeader, model: GGUFHeader) -> None:
    """Raise ModelFileError, in one line, unless every tensor of `adapter` acts on `model`.

    Args:
        adapter: the header of a LoRA adapter.
        model: the header of the model that it is put on.
    """
    try:
        _check_fits(adapter, model)
    except ModelFileError as fault:
        raise ModelFileError(f"{adapter.path} does not fit {model.path.name}: {fault}") from None


def _check_fits(adapter: GGUFHeader, model: GGUFHeader) -> None:
    if adapter.architecture != model.architecture:
        raise ModelFileError(
            f"it is for a {adapter.architecture}, not a {model.architecture}; "
            "give the model that it was trained on"
        )
    full = {tensor.name: _padded(tensor.shape) for tensor in model.tensors}
    pairs = {tensor.name: tensor for tensor in adapter.tensors}
    for stem in sorted({name.rpartition(".lora_")[0] for name in pairs}):
        _check_target(stem, model.architecture, full)
        a, b = _sides(pairs, stem)
        wanted: tuple[tuple[int, ...], tuple[int, ...]]
        if stem == "token_embd.weight":
            wanted = ((a[0], full[stem][1], 1), (a[0], full[stem][0], 1))
        else:
            wanted = ((full[stem][0], a[1], full[stem][2]), (a[1], *full[stem][1:]))
        for side, seen, fitting in zip("ab", (a, b), wanted, strict=True):
            if seen != fitting:
                raise ModelFileError(
                    f"{stem}.lora_{side} is {_shown(seen)}, but {stem} is {_shown(full[stem])}; "
                    "give the model that it was trained on"
                )


def _check_target(stem: str, architecture: str, full: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ModelFileError unless llama.cpp applies an adapter of this tensor."""
    if stem == "output.weight" and stem not in full and "token_embd.weight" in full:
        raise ModelFileError(
            f"it changes {stem}, but that model's head is its embeddings (tied), which llama.cpp "
            f"cannot change by an adapter; {_MERGE}"
        )
    if stem not in full:
        raise ModelFileError(
            f"it changes {stem}, which that model lacks; give the model that it was trained on"
        )
    if stem == "token_embd.weight" and "output.weight" not in full:
        raise ModelFileError(
            f"it changes {stem}, which is that model's head as well (tied): llama.cpp would apply "
            f"it to the one in the shape of the other; {_MERGE}"
        )
    alone = _NOT_IN.get(architecture)
    if is_vector(stem) or _NOT_PRODUCTS.fullmatch(stem) or (alone and alone.fullmatch(stem)):
        raise ModelFileError(
            f"it changes {stem}, and llama.cpp applies no adapter there in a {architecture}; "
            f"{_MERGE}"
        )


def _sides(tensors: Mapping[str, TensorInfo], stem: str) -> tuple[tuple[int, ...], ...]:
    return tuple(_padded(tensors[f"{stem}.lora_{side}"].shape) for side in "ab")


def _padded(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return three dimensions, as ggml fills them up; GGUF has the innermost first."""
    return (*shape, 1, 1, 1)[:3]


def _shown(shape: tuple[int, ...]) -> str:
    """Return a shape for a message, without dimensions of one at its end."""
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return " × ".join(map(str, shape))
