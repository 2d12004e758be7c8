"""What the names of models say: which are one model, and which were tuned or only pre-trained.

Names are hints, and whoever asks for one says so. Files are not opened here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

TUNED = frozenset({"instruct", "chat", "it", "assistant", "sft", "dpo", "rlhf"})
PRETRAINED = frozenset({"base", "pt", "pretrain", "pretrained", "foundation"})
_PACKING = re.compile(
    r"[-._](gguf|i?q\d[\w.]*|mxfp4|fp?16|bf16|f32|(unsloth-)?bnb-\d-?bit|\d-?bit|unsloth|hf)$"
)


def words(name: str) -> frozenset[str]:
    """Return the words that a name is made of, in lower case."""
    return frozenset(re.split(r"[^a-z0-9.]+", name.lower())) - {""}


def plain_name(name: str) -> str:
    """Return a model's name without its owner, its directory and how it was packed.

    Of "unsloth/Qwen3-0.6B-GGUF", "Qwen3-0.6B-Q8_0.gguf" and "./Qwen3-0.6B" that is "qwen3-0.6b".
    """
    found = re.split(r"[/\\]", name.strip().rstrip("/\\"))[-1].lower().replace(" ", "-")
    while (shorter := _PACKING.sub("", found)) != found and shorter:
        found = shorter
    return found


def says_before_tuning(name: str, tuned: Iterable[str]) -> bool:
    """Return whether `name` says that it is what one of the `tuned` names was tuned from."""
    here = words(plain_name(name))
    if here & TUNED:
        return False
    return bool(here & PRETRAINED) or any(
        words(plain_name(other)) & TUNED and words(plain_name(other)) - TUNED == here
        for other in tuned
    )
