"""A bounds-checked look at a GGUF header, before native code sees the file.

llama.cpp aborts the process, or worse, on some headers that a stranger can craft (CVE-2024-21802
and its siblings), and the reader of the `gguf` package hangs on a 43-byte file. So all that either
would trust is checked first: the bounds by `gguf_header`, the values here, after the asserts and
uncaught exceptions in llama.cpp's llama-model.cpp, llama-vocab.cpp and llama-adapter.cpp (as of
llama-cpp-python 0.3.36). `read_header` returns a header or raises ModelFileError, nothing else.

Only the header is read, never the weights, and only this one file: of a model split into shards,
check each shard. It knows nothing of llama_cpp and of what a model is for.
"""

from __future__ import annotations

import math
import os
import re
import stat
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelFileError
from .gguf_header import (
    TOKEN_TYPES_KEY,
    TOKENS_KEY,
    GGUFArray,
    Layout,
    TensorInfo,
    quoted,
)

# A name is a prefix of keys and stands in messages; llama.cpp itself refuses one it does not know.
_ARCHITECTURE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
MAX_LAYERS = 512  # LLAMA_MAX_LAYERS
MAX_EXPERTS = 1024  # LLAMA_MAX_EXPERTS
_TOKENIZERS = {"llama", "bert", "gpt2", "hybriddna", "whitespace", "t5", "rwkv", "plamo2", "gemma4"}
_ROPE_SCALINGS = {"none", "linear", "yarn", "longrope"}
_BYTE_TYPE = 6  # LLAMA_TOKEN_TYPE_BYTE
_BYTE_TEXT = re.compile(rb"<0x[0-9A-Fa-f]{2}>")


@dataclass(frozen=True)
class GGUFHeader:
    """A header that passed every check.

    `metadata` holds Python scalars, strings and `GGUFArray`. `split` is (number from 0, count) for
    a shard of a split model, whose tensors are those of this shard only, else None.
    """

    path: Path
    file_size: int
    version: int
    architecture: str
    metadata: Mapping[str, Any]
    tensors: tuple[TensorInfo, ...]
    split: tuple[int, int] | None = None

    @property
    def is_adapter(self) -> bool:
        """Whether this is a LoRA adapter, which has no tokenizer and runs only on its model."""
        return self.metadata.get("general.type") == "adapter"

    @property
    def n_ctx_train(self) -> int:
        """Context length of the training, in tokens; 0 for an adapter or a later shard."""
        return self._integer("context_length")

    @property
    def n_layer(self) -> int:
        """Number of blocks; 0 for an adapter or a later shard."""
        return self._integer("block_count")

    @property
    def n_vocab(self) -> int:
        """Number of tokens, which is the width of a logits row; 0 for an adapter."""
        tokens = self.metadata.get(TOKENS_KEY)
        return tokens.count if isinstance(tokens, GGUFArray) else 0

    @property
    def n_parameters(self) -> int:
        """Number of weights in the file's tensors."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors)

    @property
    def n_bytes(self) -> int:
        """Size of the file's tensors in bytes."""
        return sum(tensor.n_bytes for tensor in self.tensors)

    @property
    def quantisation(self) -> str:
        """The ggml type that holds the most weights, such as "Q8_0"; "" if there are no tensors."""
        counts: Counter[str] = Counter()
        for tensor in self.tensors:
            counts[tensor.type] += math.prod(tensor.shape)
        return counts.most_common(1)[0][0] if counts else ""

    def _integer(self, name: str) -> int:
        value = self.metadata.get(f"{self.architecture}.{name}")
        # What an adapter or a later shard states was not checked, and nothing rests on it.
        return value if isinstance(value, int) and not self.is_adapter else 0

    def per_layer(self, name: str, default: int = 0) -> tuple[int, ...]:
        """Return `ARCHITECTURE.name` for each layer, whether stored once or per layer."""
        value = self.metadata.get(f"{self.architecture}.{name}", default)
        if isinstance(value, GGUFArray):
            return tuple(int(each) for each in value.values)
        return (int(value),) * self.n_layer


def read_header(path: str | os.PathLike[str]) -> GGUFHeader:
    """Read and check the header of the GGUF file at `path`.

    Takes well under a second and a few times the header's size in memory, whatever the file holds.
    A shard of a split model is checked by itself: its siblings are not looked at.

    Raises ModelFileError, with what was seen and what to do, if there is no such file, it is not
    a GGUF file that llama.cpp can load, or loading or tokenising with it could harm the process.
    """
    place = Path(path)
    shown = str(place) if str(place).isprintable() else ascii(str(place))
    try:
        # Asked before opening, because opening a pipe would wait for a writer forever.
        mode = os.stat(place).st_mode
        if stat.S_ISDIR(mode):
            raise ModelFileError(f"{shown}: is a directory; name the .gguf file in it")
        if not stat.S_ISREG(mode):
            raise ModelFileError(f"{shown}: is not a regular file; give the path of a .gguf file")
        with open(place, "rb") as file:
            layout = Layout(shown, file)
            layout.read()
    except FileNotFoundError:
        raise ModelFileError(f"{shown}: no such file; check the path") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelFileError(f"{shown}: cannot be read ({reason}); check the path") from None
    except ValueError:  # a NUL in the path
        raise ModelFileError(f"{shown}: is not a path; check it") from None
    return _checked(place, layout)


def _checked(path: Path, layout: Layout) -> GGUFHeader:
    split = _split(layout)
    architecture = ""
    # Shards after the first carry tensors and their number only.
    if split is None or split[0] == 0:
        architecture = _architecture(layout)
        if not layout.tensors and split is None:
            fix = "use the file with the weights"
            raise layout.error("holds no tensors, only metadata", fix)
        if layout.metadata.get("general.type") == "adapter":
            _check_adapter(layout)
        else:
            _check_shape(layout, architecture)
            _check_tokenizer(layout)
    return GGUFHeader(
        path=path,
        file_size=layout.size,
        version=layout.version,
        architecture=architecture,
        metadata=layout.metadata,
        tensors=layout.tensors,
        split=split,
    )


def _split(layout: Layout) -> tuple[int, int] | None:
    count = layout.integer("split.count", 0, high=(1 << 16) - 1)
    if count <= 1:
        return None
    number = layout.integer("split.no", None, high=count - 1)
    if layout.types["split.no"] != "uint16":
        raise layout.error(f"split.no is of the wrong type ({layout.types['split.no']})")
    return number, count


def _architecture(layout: Layout) -> str:
    name = layout.metadata.get("general.architecture")
    if not isinstance(name, str):
        raise layout.error("lacks general.architecture as a text")
    if name == "clip":
        raise layout.error("is a vision projector, not a language model", "give the text model")
    if not _ARCHITECTURE.fullmatch(name):
        raise layout.error(f"has the impossible architecture {quoted(name)}")
    return name


def _check_adapter(layout: Layout) -> None:
    if layout.metadata.get("adapter.type") != "lora":
        raise layout.error("is an adapter of another type than lora", "give a LoRA adapter")
    if layout.types.get("adapter.lora.alpha", "float32") != "float32":
        raise layout.error("adapter.lora.alpha is of the wrong type (not float32)")
    for tensor in layout.tensors:
        # ggml has no product with these: it loads them, and the first decode ends the process.
        if tensor.type in ("F64", "I8", "I16", "I32", "I64"):
            raise layout.error(f"adapter tensor {quoted(tensor.name)} has type {tensor.type}")


def _check_shape(layout: Layout, architecture: str) -> None:
    """Check what load_hparams in llama-model.cpp asserts, or divides by."""
    prefix = architecture + "."
    n_layer = layout.integer(prefix + "block_count", None, 1, MAX_LAYERS)
    layout.integer(prefix + "context_length", None, 1)
    layout.integer(prefix + "embedding_length", None, 1, 1 << 20)
    layout.integer(prefix + "nextn_predict_layers", 0, 0, n_layer)
    for name in ("attention.key_length", "attention.value_length"):
        layout.integer(prefix + name, 1, 1, 1 << 16)
    _layers(layout, prefix + "feed_forward_length", n_layer, 1 << 24)
    heads = _layers(layout, prefix + "attention.head_count", n_layer, 1 << 16)
    heads_kv = _layers(layout, prefix + "attention.head_count_kv", n_layer, 1 << 16)
    for n_head, n_head_kv in zip(heads, heads_kv, strict=True):
        if n_head_kv and n_head % n_head_kv:
            seen = f"{n_head} attention heads are not a multiple of {n_head_kv} key-value heads"
            raise layout.error(seen)

    n_expert = layout.integer(prefix + "expert_count", 0, 0, MAX_EXPERTS)
    n_used = max(_layers(layout, prefix + "expert_used_count", n_layer, MAX_EXPERTS))
    n_group = layout.integer(prefix + "expert_group_count", 0)
    n_group_used = layout.integer(prefix + "expert_group_used_count", 0)
    if n_used > n_expert or (n_expert and not n_used) or (n_group and n_group >= n_expert):
        seen = f"{n_used} used of {n_expert} experts in {n_group} groups is impossible"
        raise layout.error(seen)
    if n_group > 1 and (n_expert % n_group or not 0 < n_group_used < n_group):
        raise layout.error(f"{n_group_used} of {n_group} expert groups is impossible")

    scaling = layout.metadata.get(prefix + "rope.scaling.type", "linear")
    if scaling not in _ROPE_SCALINGS:
        raise layout.error(f"has the unknown rope.scaling.type {quoted(str(scaling))}")


def _layers(layout: Layout, key: str, n_layer: int, high: int) -> tuple[int, ...]:
    """Return an integer of each layer, stored once or as an array; 0 if the key is missing."""
    value = layout.metadata.get(key)
    if not isinstance(value, GGUFArray):
        return (layout.integer(key, 0, 0, high),) * n_layer
    if value.count != n_layer:
        raise layout.error(f"{key} has {value.count:,} values for {n_layer} layers")
    if not all(isinstance(each, int) and 0 <= each <= high for each in value.values):
        raise layout.error(f"{key} has values outside 0 to {high:,} or of the wrong type")
    return tuple(int(each) for each in value.values)


def _check_tokenizer(layout: Layout) -> None:
    """Check what llama-vocab.cpp takes for granted to load, tokenise and write bytes."""
    model = layout.metadata.get("tokenizer.ggml.model", "none")
    if model in ("none", "no_vocab"):
        fix = "use a file that was converted with its tokenizer"
        raise layout.error("has no tokenizer, and no prompt can be given to it", fix)
    if model not in _TOKENIZERS:
        fix = "update edge_eft if it is a new one, or use another model"
        raise layout.error(f"has the unknown tokenizer {quoted(str(model))}", fix)
    n_tokens = _array_of(layout, TOKENS_KEY, ("string",))
    if not n_tokens:
        raise layout.error(f"lacks {TOKENS_KEY} or has none in it")
    _array_of(layout, "tokenizer.ggml.merges", ("string",))
    scores = _array_of(layout, "tokenizer.ggml.scores", ("float32", "int32"))
    types = _array_of(layout, TOKEN_TYPES_KEY, ("int32",))
    for name, count in (("scores", scores), ("token_type", types)):
        if count not in (None, n_tokens):
            raise layout.error(
                f"tokenizer.ggml.{name} has {count:,} values for {n_tokens:,} tokens"
            )

    # llama.cpp ends a text at a NUL, names empty ones so, and asserts that none is there twice.
    texts = layout.tokens
    if not all(texts) or b"\0" in b"".join(texts):
        ended = (text.partition(b"\0")[0] for text in texts)
        texts = [text or b"[EMPTY_%d]" % index for index, text in enumerate(ended)]
    distinct = set(texts)
    if len(distinct) != n_tokens:
        twice = Counter(texts).most_common(1)[0][0]
        raise layout.error(f"has the token {quoted(twice)} more than once (duplicate)")
    if types:
        kinds = struct.unpack(f"<{n_tokens}i", layout.token_types)
        for index in [i for i, kind in enumerate(kinds) if kind == _BYTE_TYPE]:
            if not _BYTE_TEXT.fullmatch(texts[index]):
                seen = f"token {index} is a byte token but reads {quoted(texts[index])}"
                raise layout.error(f"{seen}, not like '<0x0A>'")
    if model == "llama":
        # A character without a token is tokenised as bytes; a missing one ends the process by an
        # exception that nothing catches (byte_to_token).
        for byte in range(256):
            if b"<0x%02X>" % byte not in distinct and bytes([byte]) not in distinct:
                fix = "convert the model again with byte fallback in its tokenizer"
                raise layout.error(f"has no byte token '<0x{byte:02X}>' in its vocabulary", fix)


def _array_of(layout: Layout, key: str, types: tuple[str, ...]) -> int | None:
    """Return the length of the array at `key`, which must be of `types`; None if absent."""
    value = layout.metadata.get(key)
    if value is None:
        return None
    if not isinstance(value, GGUFArray) or value.type not in types:
        kind = f"array of {value.type}" if isinstance(value, GGUFArray) else layout.types[key]
        raise layout.error(f"{key} is of the wrong type ({kind}, not array of {types[0]})")
    return value.count
