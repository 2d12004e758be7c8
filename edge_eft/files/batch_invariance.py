"""Whether a model gives a token the same logits alone as in a block, bit for bit.

If all models of an emulation do, drafts leave its text as it is without them; if not, they leave it
so up to rounding. With flash attention and a Q8_0 cache the types below do on the CPU, K-quants and
floating point do not (measured on llama-cpp-python 0.3.36).

What is called Q4_0 or Q5_1 has an output matrix of Q6_K unless its maker asked for another, and its
logits differ by 10⁻⁶ from blocks of 8 tokens on; so of a name only Q8_0 says enough. Recurrent
layers did in tiny models of random weights (LFM2, Qwen3.5, Granite 4 h); nobody has measured
published ones, so that models that have some are not taken for exact.
"""

from __future__ import annotations

import re

from .gguf_check import GGUFHeader
from .model_names import quantisation

TYPES = frozenset({"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"})
# Families with recurrent layers, as their files are called.
_RECURRENT_NAME = re.compile(
    r"(?i)qwen3[._-]?5|qwen3-next|mamba|rwkv|jamba|lfm2|nemotron[._-]?h|falcon[._-]?h1|granite-4\.0-h"
)
_LOOKED_UP = ("token_embd.", "position_embd.", "token_types.")  # no products


def is_batch_invariant(header: GGUFHeader) -> bool:
    """Return whether every matrix of the model is of a type that is, and no layer is recurrent."""
    if any(".ssm." in key or ".wkv." in key for key in header.metadata):
        return False
    names = {tensor.name for tensor in header.tensors}
    is_tied = "output.weight" not in names  # the embedding is the output matrix as well
    return all(
        tensor.type in TYPES
        for tensor in header.tensors
        if len([size for size in tensor.shape if size > 1]) > 1
        and not (tensor.name.startswith(_LOOKED_UP[0]) and not is_tied)
        and not tensor.name.startswith(_LOOKED_UP[1:])
    )


def is_named_batch_invariant(name: str) -> bool:
    """Return whether a file's name states such a type, where there is no header to look at."""
    return quantisation(name) == "Q8_0" and not _RECURRENT_NAME.search(name)
