"""A bounds-checked look at a GGUF header, before native code sees the file.

llama.cpp aborts the process, or worse, on some headers that a stranger can craft (CVE-2024-21802
and its siblings), and the reader of the `gguf` package hangs on a 43-byte file. So all that either
would trust is checked first: the bounds by `gguf_header`, shapes and parts here, after the asserts
in llama.cpp's llama-model.cpp (as of llama-cpp-python 0.3.36), and the rest by `gguf_operators`,
`gguf_tokenizer` and `adapter_check`. `read_header` returns a header or raises ModelFileError,
nothing else.

Only headers are read, never the weights; of a split model those of all parts, as one. It knows
nothing of llama_cpp and of what a model is for.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import ModelFileError
from .adapter_check import check_adapter
from .gguf_header import TOKENS_KEY, GGUFArray, Layout, TensorInfo, Walked, quoted
from .gguf_operators import check_numbers, check_tensor_types, check_widths
from .gguf_split import first_part, part_paths
from .gguf_tokenizer import check_tokenizer
from .plain_text import reason

# A name is a prefix of keys and stands in messages; llama.cpp itself refuses one it does not know.
_ARCHITECTURE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
MAX_LAYERS = 512  # LLAMA_MAX_LAYERS
MAX_EXPERTS = 1024  # LLAMA_MAX_EXPERTS
# Diffusion models and encoders: llama.cpp gives them all tokens at once, or no logits.
_NOT_CAUSAL = {"dream", "llada", "llada-moe", "rnd1", "gemma-embedding", "t5", "t5encoder"}
_ONE_EXPERT_IS_NONE = {"hunyuan-dense", "hunyuan_vl"}  # dense models whose config names one
_ROPE_SCALINGS = {"none", "linear", "yarn", "longrope"}


@dataclass(frozen=True)
class GGUFHeader:
    """A header that passed every check.

    `metadata` holds Python scalars, strings and `GGUFArray`. Of a split model `path` is the first
    of its `parts`, and sizes and tensors are those of all parts together; in each the data of its
    tensors begin at one of `data_starts`.
    """

    path: Path
    file_size: int
    version: int
    architecture: str
    metadata: Mapping[str, Any]
    tensors: tuple[TensorInfo, ...]
    parts: tuple[Path, ...]
    data_starts: tuple[int, ...]

    @property
    def is_adapter(self) -> bool:
        """Whether this is a LoRA adapter, which has no tokenizer and runs only on its model."""
        return self.metadata.get("general.type") == "adapter"

    @property
    def n_ctx_train(self) -> int:
        """Context length of the training, in tokens; 0 for an adapter."""
        return self.integer("context_length")

    @property
    def n_layer(self) -> int:
        """Number of blocks; 0 for an adapter."""
        return self.integer("block_count")

    @property
    def n_vocab(self) -> int:
        """Number of tokens, which is the width of a logits row; 0 for an adapter."""
        tokens = self.metadata.get(TOKENS_KEY)
        return tokens.count if isinstance(tokens, GGUFArray) else 0

    @property
    def n_parameters(self) -> int:
        """Number of weights in the model's tensors."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors)

    @property
    def n_bytes(self) -> int:
        """Size of the model's tensors in bytes."""
        return sum(tensor.n_bytes for tensor in self.tensors)

    @property
    def quantisation(self) -> str:
        """The ggml type that holds the most weights, such as "Q8_0"; "" if there are no tensors."""
        counts: Counter[str] = Counter()
        for tensor in self.tensors:
            counts[tensor.type] += math.prod(tensor.shape)
        return counts.most_common(1)[0][0] if counts else ""

    def integer(self, name: str, default: int = 0) -> int:
        """Return `ARCHITECTURE.name`, of one per layer the largest.

        `default` where it is missing or no number that llama.cpp would read; 0 for an adapter.
        """
        if self.is_adapter:  # what it states was not checked, and nothing rests on it
            return 0
        value = self.metadata.get(f"{self.architecture}.{name}")
        stated = value.values if isinstance(value, GGUFArray) else (value,)
        sound = [n for n in stated if isinstance(n, int) and 0 <= n < 1 << 32]
        return max(sound) if sound else default

    def per_layer(self, name: str, default: int = 0) -> tuple[int, ...]:
        """Return `ARCHITECTURE.name` for each layer, whether stored once or per layer."""
        value = self.metadata.get(f"{self.architecture}.{name}", default)
        if isinstance(value, GGUFArray):
            return tuple(int(each) for each in value.values)
        return (int(value),) * self.n_layer


Opener = Callable[[Path], BinaryIO]  # opens a file for reading, or raises OSError


def read_header(
    path: str | os.PathLike[str], *, opener: Opener | None = None, walked: Walked | None = None
) -> GGUFHeader:
    """Read and check the header of the GGUF file at `path`, and of the parts that belong to it.

    Takes well under a second and a few times the header's size in memory, whatever the file holds.
    Of a split model `path` is the first part; the others are found beside it by llama.cpp's rule.

    Args:
        path: the file.
        opener: what opens it, and each other part; None: the file system. What it returns can be
            sought in, and is closed here.
        walked: what the headers of other files brought, for reading many.

    Raises ModelFileError, with what was seen and what to do, if there is no such file, it is not
    a GGUF file that llama.cpp can load, loading or tokenising with it could harm the process, it
    is a later part, or a part is missing or belongs to another model.
    """
    place = Path(path)
    return checked_header(read_layout(place, opener, walked), place, opener)


def checked_header(layout: Layout, place: Path, opener: Opener | None = None) -> GGUFHeader:
    """Check what `read_layout` has read; arguments and errors as of `read_header`."""
    number, count = _split(layout)
    if number:
        first = first_part(place) or f"whose name ends with -00001-of-{count:05d}.gguf"
        seen = f"is part {number + 1} of {count} of a model"
        raise layout.error(seen, f"give the first part, {first}")
    # Later parts carry tensors and their number only: the keys of the first count.
    architecture = _architecture(layout)
    paths = (place,) if count == 1 else _later(layout, place, count, opener)
    later = (_part(each, index, count, opener) for index, each in enumerate(paths) if index)
    layouts = [layout, *later]
    tensors = _joined(layouts)
    if not tensors:
        raise layout.error("holds no tensors, only metadata", "use the file with the weights")
    if layout.metadata.get("general.type") == "adapter":
        if count > 1:
            fix = "join it with llama-gguf-split --merge; llama.cpp reads only the first"
            raise layout.error(f"is an adapter in {count} parts", fix)
        check_adapter(layout)
    else:
        _check_shape(layout, architecture)
        check_numbers(layout, architecture)
        for each in layouts:
            check_tensor_types(each)
        check_tokenizer(layout)
    return GGUFHeader(
        path=place,
        file_size=sum(each.size for each in layouts),
        version=layout.version,
        architecture=architecture,
        metadata=layout.metadata,
        tensors=tensors,
        parts=paths,
        data_starts=tuple(each.data_start for each in layouts),
    )


def read_layout(place: Path, opener: Opener | None = None, walked: Walked | None = None) -> Layout:
    """Return the layout of one file, whose bounds alone are checked; see `read_header`."""
    shown = str(place) if str(place).isprintable() else ascii(str(place))
    try:
        with opener(place) if opener else _open(place, shown) as file:
            layout = Layout(shown, file, walked)
            layout.read()
    except FileNotFoundError:
        raise ModelFileError(f"{shown}: no such file; check the path") from None
    except OSError as error:
        raise ModelFileError(f"{shown}: cannot be read ({reason(error)}); check the path") from None
    except ValueError:  # a NUL in the path
        raise ModelFileError(f"{shown}: is not a path; check it") from None
    return layout


def _open(place: Path, shown: str) -> BinaryIO:
    # Asked before opening, because opening a pipe would wait for a writer forever.
    mode = os.stat(place).st_mode
    if stat.S_ISDIR(mode):
        raise ModelFileError(f"{shown}: is a directory; name the .gguf file in it")
    if not stat.S_ISREG(mode):
        raise ModelFileError(f"{shown}: is not a regular file; give the path of a .gguf file")
    return open(place, "rb")


def _split(layout: Layout) -> tuple[int, int]:
    """Return the file's number in its model, from 0, and how many files that has."""
    count = layout.integer("split.count", 0, high=(1 << 16) - 1)
    if count <= 1:
        return 0, 1
    number = layout.integer("split.no", None, high=count - 1)
    for key in ("split.no", "split.count"):
        if layout.types[key] != "uint16":
            raise layout.error(f"{key} is of the wrong type ({layout.types[key]})")
    return number, count


def _later(layout: Layout, place: Path, count: int, opener: Opener | None) -> tuple[Path, ...]:
    """Return the paths of all parts, which are there."""
    paths = part_paths(place)
    if len(paths) != count:
        seen = f"is the first of {count} parts of a model"
        name = f"NAME-00001-of-{count:05d}.gguf"
        raise layout.error(seen, f"name the parts {name} and so on: llama.cpp finds them by that")
    # Elsewhere than on this machine opening them tells.
    missing = [each.name for each in paths if not (opener or each.exists())]
    if missing:
        names = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        seen = f"is the first of {count} parts, and beside it {len(missing)} are missing: {names}"
        raise layout.error(seen, "download them into the same folder")
    return paths


def _part(path: Path, number: int, count: int, opener: Opener | None) -> Layout:
    """Return the layout of a later part, which says itself that it is that one."""
    layout = read_layout(path, opener)
    # llama.cpp asks a later part for its number alone.
    stated = layout.metadata.get("split.no"), layout.metadata.get("split.count", count)
    if stated != (number, count) or layout.types["split.no"] != "uint16":
        seen = f"does not say that it is part {number + 1} of {count}, as its name does"
        raise layout.error(seen, "download that part again")
    return layout


def _joined(layouts: list[Layout]) -> tuple[TensorInfo, ...]:
    """Return the tensors of all parts, which are as many as the first says and all different."""
    first = layouts[0]
    tensors: dict[str, TensorInfo] = {}
    for part, layout in enumerate(layouts):
        for tensor in layout.tensors:
            if tensor.name in tensors:
                seen = f"tensor {quoted(tensor.name)} is in an earlier part as well (duplicate)"
                raise layout.error(seen)
            tensors[tensor.name] = replace(tensor, part=part) if part else tensor
    if len(layouts) > 1:
        stated = first.integer("split.tensors.count", None)
        if stated != len(tensors):
            seen = f"states {stated:,} tensors, and its {len(layouts)} parts have {len(tensors):,}"
            raise first.error(seen, "the parts are of different models; download all of them again")
    return tuple(tensors.values())


def _architecture(layout: Layout) -> str:
    name = layout.metadata.get("general.architecture")
    if not isinstance(name, str):
        raise layout.error("lacks general.architecture as a text")
    if name == "clip":
        raise layout.error("is a vision projector, not a language model", "give the text model")
    if not _ARCHITECTURE.fullmatch(name):
        raise layout.error(f"has the impossible architecture {quoted(name)}")
    return name


def _check_shape(layout: Layout, architecture: str) -> None:
    """Check what load_hparams in llama-model.cpp asserts, or divides by."""
    prefix = architecture + "."
    if architecture in _NOT_CAUSAL or layout.metadata.get(prefix + "attention.causal") is False:
        seen = f"is a {architecture} whose tokens look at those to come (not causal)"
        raise layout.error(seen, "give a language model that writes from left to right")
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
    check_widths(layout, architecture, heads, heads_kv)

    _check_experts(layout, architecture, n_layer)
    scaling = layout.metadata.get(prefix + "rope.scaling.type", "linear")
    if scaling not in _ROPE_SCALINGS:
        raise layout.error(f"has the unknown rope.scaling.type {quoted(str(scaling))}")


def _check_experts(layout: Layout, architecture: str, n_layer: int) -> None:
    prefix = architecture + "."
    n_expert = layout.integer(prefix + "expert_count", 0, 0, MAX_EXPERTS)
    n_used = max(_layers(layout, prefix + "expert_used_count", n_layer, MAX_EXPERTS))
    if architecture in _ONE_EXPERT_IS_NONE and n_expert <= 1:
        n_expert = n_used = 0
    n_group = layout.integer(prefix + "expert_group_count", 0)
    n_group_used = layout.integer(prefix + "expert_group_used_count", 0)
    if n_used > n_expert or (n_expert and not n_used) or (n_group and n_group >= n_expert):
        seen = f"{n_used} used of {n_expert} experts in {n_group} groups is impossible"
        raise layout.error(seen)
    if n_group > 1 and (n_expert % n_group or not 0 < n_group_used < n_group):
        raise layout.error(f"{n_group_used} of {n_group} expert groups is impossible")


def _layers(layout: Layout, key: str, n_layer: int, high: int) -> tuple[int, ...]:
    """Return an integer of each layer, stored once or as an array; 0 if the key is missing."""
    value = layout.metadata.get(key)
    if not isinstance(value, GGUFArray):
        return (layout.integer(key, 0, 0, high),) * n_layer
    if value.count != n_layer:
        raise layout.error(f"{key} has {value.count:,} values for {n_layer} layers")
    if len(value.values) != n_layer or not all(
        isinstance(each, int) and 0 <= each <= high for each in value.values
    ):
        raise layout.error(f"{key} has values outside 0 to {high:,} or of the wrong type")
    return tuple(int(each) for each in value.values)
