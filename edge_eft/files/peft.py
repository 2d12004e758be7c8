"""A PEFT adapter's directory: whether it is a LoRA, and what of it a GGUF adapter cannot carry.

A GGUF adapter is pairs of matrices at one strength, nothing else. llama.cpp's script and library
pass over much of the rest without a word (norms, per-module strengths), so that what an adapter's
names and settings promise is read here, before any of its numbers. What those numbers become is
`peft_gguf`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelFileError
from .gguf_header import quoted
from .hf_directory import read_json
from .model_names import MAX_NAME
from .safetensors_file import safetensors_shapes

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
Shapes = Mapping[str, tuple[int, ...]]

_HEADS = ("embed_tokens", "lm_head", "wte", "embed_in", "embed_out")
# What a tensor's name contains → what was done there; the first that fits.
_OTHERS = (
    ("lora_magnitude_vector", "uses DoRA"),
    ("lora_embedding_", "changes the embeddings"),
    ("trainable_tokens_", "trains single tokens"),
    (".bias", "trains biases"),
    ("norm", "trains norms"),
    *((head, "brings embeddings or a head of its own") for head in _HEADS),
)
# Keys of the configuration that change what the adapter does, and do not show in names or numbers.
_CONFIGURED = {
    "alora_invocation_tokens": "acts only after certain tokens (aLoRA)",
    "layer_replication": "repeats layers",
    "use_dora": "uses DoRA",  # what PEFT does without the magnitudes is no plain LoRA either
}
# Keys that say who made an adapter and how, or what its tensors' names and shapes say as well.
_SAID_ELSEWHERE = {
    *("peft_type", "peft_version", "task_type", "auto_mapping", "inference_mode", "revision"),
    *("base_model_name_or_path", "r", "lora_alpha", "lora_dropout", "rank_pattern"),
    *("alpha_pattern", "use_rslora", "lora_bias", "bias", "init_lora_weights"),
    *("target_modules", "exclude_modules", "target_parameters", "modules_to_save"),
    *("layers_to_transform", "layers_pattern", "trainable_token_indices", "ensure_weight_tying"),
    *("fan_in_fan_out", "megatron_config", "megatron_core", "runtime_config"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "qalora_group_size"),
}
# Of an α: more would not stay finite on its way to float32, whatever the rank.
_LARGEST = 1e30
# Ways to begin that leave the model's own weights as they are; PiSSA and its like do not.
_BEGINNINGS = ("gaussian", "eva", "orthogonal", "mica")


@dataclass(frozen=True)
class PeftAdapter:
    """A PEFT LoRA directory that was looked at: its configuration, and tensor name → shape."""

    path: Path
    config: Mapping[str, Any]
    shapes: Shapes

    @property
    def base_name(self) -> str:
        """The model that it says it was trained on, a repository or a directory; "" if none."""
        name = self.config.get("base_model_name_or_path")
        return name if isinstance(name, str) and len(name) <= MAX_NAME else ""


def read_peft(path: Path) -> PeftAdapter:
    """Return the PEFT LoRA in the directory `path`.

    Raises:
        ModelFileError: it is of another type, has no strength, or lacks or hurts its weights.
        ConversionError: its configuration is not JSON.
    """
    config = peft_config(path)
    return PeftAdapter(path, config, safetensors_shapes(path / WEIGHTS))


def peft_config(path: Path) -> dict[str, Any]:
    """Return the configuration of the PEFT LoRA in the directory `path`, whose weights are there.

    Raises as `read_peft`.
    """
    config = read_json(path / CONFIG)
    if config.get("peft_type") != "LORA":
        seen = f"is a PEFT adapter of type {config.get('peft_type')!r:.60}"
        if "peft_type" not in config:
            seen = f"has an {CONFIG} that is not PEFT's (no peft_type)"
        raise ModelFileError(f"{path} {seen}; only LORA works")
    if not (path / WEIGHTS).is_file():
        seen = f"{path} has no {WEIGHTS}"
        if any(path.glob("adapter_model.bin*")):
            seen += ", only a pickle (adapter_model.bin), which could run code when it is read"
        raise ModelFileError(f"{seen}; save it with safe_serialization=True")
    alpha = config.get("lora_alpha", 8)  # as PEFT has it
    if not is_number(alpha):
        raise ModelFileError(f"{path} has lora_alpha {alpha!r:.40}, which is not a number")
    return config


def is_number(value: object) -> bool:
    """Return whether a value is a number that arithmetic in float32 can begin with."""
    return type(value) in (int, float) and -_LARGEST <= value <= _LARGEST  # type: ignore[operator]


def beyond_lora(config: Mapping[str, Any], shapes: Shapes) -> tuple[str, str] | None:
    """Return what a GGUF adapter cannot carry: what the adapter does, and where that is seen."""
    for key, what in _CONFIGURED.items():
        if config.get(key):
            return what, key
    for name in shapes:
        if name.partition(".lora_")[2] not in ("A.weight", "B.weight"):
            return next(
                (what for mark, what in _OTHERS if mark in name), "is more than LoRA"
            ), quoted(name)
    return None


def beyond_numbers(config: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return what only PEFT itself can tell the effect of, as `beyond_lora` does.

    An unknown setting that is set may mean anything; a new one of PEFT's that is not set is null,
    false or empty.
    """
    begun = config.get("init_lora_weights", True)
    if isinstance(begun, str) and begun.lower() not in _BEGINNINGS:
        return "may also have changed its model's weights", f"init_lora_weights {quoted(begun)}"
    for key in config.keys() - _SAID_ELSEWHERE - _CONFIGURED.keys():
        if config[key]:
            return "has a setting that edge_eft does not know", quoted(key)
    return None
