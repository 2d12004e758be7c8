"""What an input is, and what is wrong with it, told from headers before any long work.

Knows the layout of Hugging Face and PEFT directories and of safetensors headers; GGUF headers are
`gguf_check`'s business. No weights are read and no model code is run.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ..convert import ConversionError
from ..errors import ModelFileError
from ..files import adapter_check
from ..files.gguf_check import GGUFHeader, read_header
from ..files.hashes import file_sha256
from ..files.hf_directory import read_json
from ..files.peft import CONFIG, WEIGHTS, peft_config
from ..files.safetensors_file import safetensors_shapes

Kind = Literal["hf", "gguf", "peft", "lora"]
Shapes = Mapping[str, tuple[int, ...]]

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json", "*.tiktoken")
_EMBEDDINGS = ("embed_tokens", "lm_head", "token_embd", "output.weight", "wte.")


@dataclass(frozen=True)
class Source:
    """One input of a conversion.

    Attributes:
        role: `reference`, `tuned`, `tuned:NAME` or `base`.
        kind: Hugging Face directory, GGUF model, PEFT LoRA directory or LoRA GGUF.
        shapes: tensor name → shape, as the file has them; empty if it was not read.
    """

    role: str
    path: Path
    kind: Kind
    shapes: Shapes = field(default_factory=dict, repr=False)
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    header: GGUFHeader | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.role} ({self.path})"

    @property
    def is_adapter(self) -> bool:
        return self.kind in ("peft", "lora")

    @property
    def architecture(self) -> str:
        """The architecture's name as this kind of file spells it; "" for a PEFT directory."""
        if self.header is not None:
            return self.header.architecture
        return str((self.config.get("architectures") or [""])[0])

    @property
    def n_parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes.values())

    @cached_property
    def sha256(self) -> str:
        """Of the GGUF file; of a directory or parts, over the names and hashes of what counts."""
        if self.header and len(self.header.parts) == 1:
            return file_sha256(self.path)
        whole = hashlib.sha256()
        patterns = ("*.json", "*.safetensors", "*.model", "*.tiktoken", "*.txt", "*.jinja")
        found = {p for pattern in patterns for p in self.path.glob(pattern)}
        for path in self.header.parts if self.header else sorted(found):
            whole.update(f"{path.name} {file_sha256(path)}\n".encode())
        return whole.hexdigest()


def inspect(path: Path, role: str, *, trust_remote_code: bool = False) -> Source:
    """Return what the file or directory at `path` is.

    Raises:
        ConversionError: neither a model directory nor an adapter, or one that lacks something.
        ModelFileError: a GGUF file that does not pass `gguf_check`.
    """
    if not path.exists():
        raise ConversionError(f"{role}: {path}: no such file or directory")
    if not path.is_dir():
        header = read_header(path)
        kind: Kind = "lora" if header.is_adapter else "gguf"
        shapes = {tensor.name: tuple(tensor.shape) for tensor in header.tensors}
        return Source(role, path, kind, shapes, header=header)
    if (path / CONFIG).is_file():
        return _inspect_peft(path, role)
    if (path / "config.json").is_file():
        return _inspect_hf(path, role, trust_remote_code)
    raise ConversionError(
        f"{role}: {path} is not a model directory: it has neither config.json nor "
        "adapter_config.json"
    )


def _inspect_hf(path: Path, role: str, trust_remote_code: bool) -> Source:
    config = read_json(path / "config.json")
    weights = sorted(path.glob("model*.safetensors"))
    if not weights:
        raise ConversionError(
            f"{role}: {path} has no model*.safetensors; save the model with "
            "save_pretrained(…, safe_serialization=True)"
        )
    index = path / "model.safetensors.index.json"
    if index.is_file():
        named = set(map(str, read_json(index).get("weight_map", {}).values()))
        if missing := sorted(named - {part.name for part in weights}):
            raise ConversionError(f"{role}: {path} lacks {missing[0]}, which its index names")
    if not any(True for pattern in _TOKENIZER_FILES for _ in path.glob(pattern)):
        raise ConversionError(
            f"{role}: {path} has no tokenizer (tokenizer.json or tokenizer.model); save it with "
            "tokenizer.save_pretrained"
        )
    if not trust_remote_code:
        _refuse_code(path, role, config)
    shapes: dict[str, tuple[int, ...]] = {}
    for part in weights:
        shapes |= safetensors_shapes(part)
    return Source(role, path, "hf", shapes, config)


def _refuse_code(path: Path, role: str, config: Mapping[str, Any]) -> None:
    """Refuse Python code in the directory: llama.cpp's scripts pass trust_remote_code=True."""
    tokenizer = path / "tokenizer_config.json"
    for name, content in (
        ("config.json", config),
        (tokenizer.name, read_json(tokenizer) if tokenizer.is_file() else {}),
    ):
        if content.get("auto_map"):
            raise ConversionError(
                f"{role}: {path / name} names Python code of its own (auto_map), which "
                "converting would run; pass --trust-remote-code if you trust it"
            )


def _inspect_peft(path: Path, role: str) -> Source:
    try:
        config = peft_config(path)
    except ModelFileError as error:
        raise ConversionError(f"{role}: {error}") from None
    return Source(role, path, "peft", safetensors_shapes(path / WEIGHTS), config)


def check_same_family(reference: Source, tuned: Source) -> None:
    """Raise ConversionError unless two models of one kind have one architecture and shapes.

    The vocabulary's side of the embeddings may differ (added tokens, padding): vocabulary.py
    judges that. An output tensor may be missing on one side, if embeddings are tied.
    """
    if reference.architecture != tuned.architecture:
        raise ConversionError(
            f"{tuned} is a {tuned.architecture} and {reference} a {reference.architecture}: "
            "tuned must be a fine-tune of the reference"
        )
    check_same_shapes(reference.shapes, tuned.shapes, str(reference), str(tuned))


def check_same_shapes(reference: Shapes, tuned: Shapes, reference_name: str, name: str) -> None:
    """Raise ConversionError, naming the first tensor in which the two differ, if any does."""
    for tensor in sorted(reference.keys() | tuned.keys()):
        ours, theirs = tuned.get(tensor), reference.get(tensor)
        if ours == theirs:
            continue
        if tensor.startswith(("lm_head.", "output.")) and (ours is None or theirs is None):
            continue
        # safetensors: (vocabulary, width); GGUF: the other way round.
        same_width = ours and theirs and (ours[-1] == theirs[-1] or ours[0] == theirs[0])
        if same_width and any(part in tensor for part in _EMBEDDINGS):
            continue
        raise ConversionError(
            f"{name} and {reference_name} differ in shape: {tensor} is {_shown(ours)} in the one "
            f"and {_shown(theirs)} in the other"
        )


def _shown(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else " × ".join(map(str, shape))


def check_adapter_fits(adapter: Source, reference: Source) -> None:
    """Raise ConversionError or ModelFileError if the adapter was made for another model.

    Compares only if both sides name tensors alike: PEFT on Hugging Face, LoRA GGUF on GGUF.
    """
    if adapter.kind == "lora" and adapter.header and reference.header:
        adapter_check.check_adapter_fits(adapter.header, reference.header)
    if (adapter.kind, reference.kind) != ("peft", "hf"):
        return
    if fault := _peft_fault(adapter.shapes, reference.shapes):
        raise ConversionError(
            f"{adapter} is an adapter for another model than {reference}: {fault}"
        )


def _peft_fault(adapter: Shapes, model: Shapes) -> str | None:
    for name, shape in adapter.items():
        module, _, side = name.partition(".lora_")
        if not side or side.startswith("embedding") or len(shape) != 2:
            continue
        weight = module.removeprefix("base_model.model.") + ".weight"
        full = model.get(weight)
        if full is None and weight.startswith("lm_head."):
            continue  # tied to the embeddings
        if full is None:
            return f"it changes {weight}, which that model lacks"
        if side.startswith("B") and any(part in weight for part in _EMBEDDINGS):
            continue  # of a vocabulary that grew
        # lora_A (rank, n_in), lora_B (n_out, rank)
        wanted = full[-1] if side.startswith("A") else full[0]
        seen = shape[1] if side.startswith("A") else shape[0]
        if seen != wanted:
            return f"{name} is {_shown(shape)}, but {weight} is {_shown(full)}"
    return None
