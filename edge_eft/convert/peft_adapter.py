"""What of a PEFT adapter a GGUF adapter can carry: pairs of matrices at one strength, nothing else.

llama.cpp's script and library pass over much of the rest without a word (norms, per-module
strengths), so an adapter is kept only if its names promise nothing else, and then only if its
numbers come out as PEFT's (`adapter_strength`).
"""

from __future__ import annotations

from ..convert import ConversionError
from ..files.hf_directory import added_tokens, first_of, known_tokens
from ..files.peft import beyond_lora
from .sources import Source

INSTEAD = "convert without --keep-lora, which merges it"


def check_keepable(adapter: Source, reference: Source) -> None:
    """Raise ConversionError if a PEFT adapter holds what a GGUF adapter cannot carry.

    Args:
        reference: the Hugging Face directory that it is to be put on.
    """
    if found := beyond_lora(adapter.config, adapter.shapes):
        raise _refusal(adapter, *found)
    changes_head = any(".lm_head.lora_" in name for name in adapter.shapes)
    if changes_head and "lm_head.weight" not in reference.shapes:
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
