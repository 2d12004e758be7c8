"""What of a PEFT adapter a GGUF adapter can carry: pairs of matrices at one strength, nothing else.

llama.cpp's script and library pass over much of the rest without a word (norms, per-module
strengths), so an adapter is kept only if its names promise nothing else, and then only if its
numbers come out as PEFT's (`adapter_strength`).
"""

from __future__ import annotations

from ..convert import ConversionError
from .directory import added_tokens, first_of, known_tokens
from .sources import Source

INSTEAD = "convert without --keep-lora, which merges it"
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
}


def check_keepable(adapter: Source, reference: Source) -> None:
    """Raise ConversionError if a PEFT adapter holds what a GGUF adapter cannot carry.

    Args:
        reference: the Hugging Face directory that it is to be put on.
    """
    for key, what in _CONFIGURED.items():
        if adapter.config.get(key):
            raise _refusal(adapter, what, key)
    for name in adapter.shapes:
        module, _, side = name.partition(".lora_")
        if side not in ("A.weight", "B.weight"):
            what = next((what for mark, what in _OTHERS if mark in name), "is more than LoRA")
            raise _refusal(adapter, what, name)
        if module.endswith("lm_head") and "lm_head.weight" not in reference.shapes:
            raise ConversionError(
                f"{adapter} changes lm_head, which in {reference.path} is the table of embeddings "
                f"(tied): llama.cpp has no adapter for the head alone; {INSTEAD}"
            )
    there = known_tokens(reference.path)
    if there and (new := added_tokens(adapter.path) - there):
        raise _refusal(adapter, "adds tokens to the vocabulary", first_of(new))


def _refusal(adapter: Source, what: str, seen: str) -> ConversionError:
    return ConversionError(
        f"{adapter} {what} ({seen}), which a GGUF adapter cannot carry; {INSTEAD}"
    )
