"""Seeded mutants of GGUF files, for `mutant_trials` to run.

A mutant is one file of a family (three models, or a base and a LoRA adapter on a reference) with
one to three things wrong: header bytes flipped, a key's value, type or presence changed, tensors'
types, shapes and names exchanged, arrays cut, the file truncated, weights overwritten. The others
stay whole.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_eft.files.gguf_header import GGML_TYPES
from helpers import tiny_models
from helpers.families import ATLAS
from helpers.gguf_builder import ARR, BOOL, F32, LAYOUTS, STR, U16, U32, smollm2_path
from helpers.gguf_parts import SIZES, Parts, Tensor, Value, size_of


def _resized(tensor: Tensor, shape: tuple[int, ...], kind: int) -> None:
    """Give a tensor another shape and type, and data of the size that they ask for."""
    tensor.shape, tensor.kind = shape, kind
    size = min(size_of(shape, kind), 1 << 26)
    tensor.data = (tensor.data * (size // max(len(tensor.data), 1) + 1))[:size]


# What is put in for a number, of any kind that has it.
_NUMBERS = (
    *(0, 1, 2, 3, 5, 7, 31, 33, 64, 255, 4096, 65535, 1 << 20),
    *(2**31 - 1, 2**31, 2**32 - 1, -1),
)
_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-30, 1e30, math.nan, math.inf, -math.inf, 3.4e38)
_TEXTS = (b"", b"none", b"llama", b"gpt2", b"bert", b"t5", b"rwkv", b"plamo2", b"gemma4", b"x" * 99)
_ARCHITECTURES = (
    *(b"qwen2", b"qwen3", b"gemma", b"gemma2", b"gemma3", b"phi2", b"phi3", b"falcon", b"gpt2"),
    *(b"mamba", b"rwkv6", b"rwkv7", b"deepseek2", b"bert", b"t5", b"stablelm", b"starcoder2"),
    *(b"olmo2", b"granite", b"glm4", b"command-r", b"cohere2", b"gptneox", b"mpt", b"bloom"),
    *(b"minicpm", b"minicpm3", b"qwen2moe", b"llama4", b"lfm2", b"smollm3", b"jamba", b"chatglm"),
)
_SOME_KEYS: dict[bytes, Value] = {
    b"ARCH.attention.key_length": (U32, 32),
    b"ARCH.attention.value_length": (U32, 32),
    b"ARCH.rope.dimension_count": (U32, 32),
    b"ARCH.rope.scaling.type": (STR, b"yarn"),
    b"ARCH.rope.scaling.factor": (F32, 2.0),
    b"ARCH.rope.scaling.original_context_length": (U32, 64),
    b"ARCH.rope.scaling.attn_factor": (F32, 1.0),
    b"ARCH.attention.sliding_window": (U32, 16),
    b"ARCH.attention.causal": (BOOL, False),
    b"ARCH.attention.max_alibi_bias": (F32, 8.0),
    b"ARCH.attention.clamp_kqv": (F32, 8.0),
    b"ARCH.attention.layer_norm_epsilon": (F32, 1e-5),
    b"ARCH.attention.group_norm_epsilon": (F32, 1e-5),
    b"ARCH.attention.scale": (F32, 1.0),
    b"ARCH.logit_scale": (F32, 1.0),
    b"ARCH.embedding_scale": (F32, 1.0),
    b"ARCH.residual_scale": (F32, 1.0),
    b"ARCH.expert_count": (U32, 2),
    b"ARCH.expert_used_count": (U32, 1),
    b"ARCH.leading_dense_block_count": (U32, 1),
    b"ARCH.nextn_predict_layers": (U32, 1),
    b"ARCH.pooling_type": (U32, 1),
    b"ARCH.embedding_length_out": (U32, 32),
    b"ARCH.vocab_size": (U32, 64),
    b"general.alignment": (U32, 64),
    b"split.count": (U16, 2),
    b"split.no": (U16, 0),
    b"tokenizer.ggml.bos_token_id": (U32, 1),
    b"tokenizer.ggml.eos_token_id": (U32, 2),
    b"tokenizer.ggml.eot_token_id": (U32, 2),
    b"tokenizer.ggml.unknown_token_id": (U32, 0),
    b"tokenizer.ggml.padding_token_id": (U32, 0),
    b"tokenizer.ggml.fim_pre_token_id": (U32, 0),
    b"tokenizer.ggml.add_bos_token": (BOOL, True),
    b"tokenizer.ggml.add_sep_token": (BOOL, True),
    b"tokenizer.ggml.add_space_prefix": (BOOL, True),
    b"tokenizer.ggml.remove_extra_whitespaces": (BOOL, True),
    b"tokenizer.ggml.pre": (STR, b"llama-bpe"),
    b"tokenizer.ggml.precompiled_charsmap": (ARR, 0, [255] * 9),
    b"tokenizer.ggml.token_type_count": (U32, 2),
    b"tokenizer.chat_template": (STR, b"{{ messages }}"),
}
_EXTRA = (
    *(b"rope_freqs.weight", b"blk.0.attn_q.bias", b"blk.0.attn_output.bias", b"output.bias"),
    *(b"blk.0.ffn_down.bias", b"output_norm.bias", b"blk.0.attn_q_norm.weight"),
    *(b"blk.0.attn_q.scale", b"blk.0.attn_sinks.weight", b"token_types.weight"),
)
_ADAPTER_KEYS: dict[bytes, Value] = {
    b"adapter.lora.alpha": (F32, 4.0),
    b"adapter.alora.invocation_tokens": (ARR, U32, [1, 2]),
    b"adapter.type": (STR, b"lora"),
    b"general.alignment": (U32, 64),
}


def _architecture(parts: Parts) -> bytes:
    name = parts.keys.get(b"general.architecture", (STR, b""))[-1]
    return name if isinstance(name, bytes) else b"llama"


def _number(kind: int, rng: random.Random) -> Any:
    if kind == BOOL:
        return rng.random() < 0.5
    if kind in (F32, 12):
        return rng.choice(_FLOATS)
    bits = 8 * SIZES[kind]
    signed = LAYOUTS[kind].islower()
    value = rng.choice(_NUMBERS) & ((1 << bits) - 1)
    return value - (1 << bits) if signed and value >> (bits - 1) else value


def change_value(parts: Parts, rng: random.Random) -> str:
    """Another value of the same kind for a key that is there."""
    key = rng.choice(list(parts.keys))
    kind = parts.keys[key][0]
    if kind == ARR:
        return cut_array(parts, rng)
    value = rng.choice(_TEXTS) if kind == STR else _number(kind, rng)
    parts.keys[key] = (kind, value)
    return f"{key!r} = {value!r:.20}"


def change_number(parts: Parts, rng: random.Random) -> str:
    """Another value for a key of numbers: what shapes and arithmetic rest on."""
    names = [key for key, value in parts.keys.items() if value[0] not in (STR, ARR)]
    if not names:
        return cut_array(parts, rng)
    key = rng.choice(names)
    parts.keys[key] = (parts.keys[key][0], _number(parts.keys[key][0], rng))
    return f"{key!r} = {parts.keys[key][1]!r}"


def change_kind(parts: Parts, rng: random.Random) -> str:
    """A value of another type."""
    key = rng.choice(list(parts.keys))
    kind = rng.choice([*LAYOUTS, STR, ARR])
    if kind == ARR:
        inner = rng.choice([*LAYOUTS, STR])
        value = rng.choice(_TEXTS) if inner == STR else _number(inner, rng)
        parts.keys[key] = (ARR, inner, [value] * rng.choice((0, 1, 2, 9)))
        return f"{key!r} is an array of kind {inner}"
    parts.keys[key] = (kind, rng.choice(_TEXTS) if kind == STR else _number(kind, rng))
    return f"{key!r} is of kind {kind}: {parts.keys[key][1]!r:.20}"


def drop_key(parts: Parts, rng: random.Random) -> str:
    """A key less."""
    key = rng.choice(list(parts.keys))
    del parts.keys[key]
    return f"no {key!r}"


def add_key(parts: Parts, rng: random.Random) -> str:
    """A key that llama.cpp knows, as it might be or with any number."""
    known = _ADAPTER_KEYS if b"adapter.type" in parts.keys else _SOME_KEYS
    name, value = rng.choice(list(known.items()))
    name = name.replace(b"ARCH", _architecture(parts))
    if value[0] not in (STR, ARR) and rng.random() < 0.5:
        value = (value[0], _number(value[0], rng))
    parts.keys[name] = value
    return f"new {name!r} = {value[-1]!r:.20}"


def other_architecture(parts: Parts, rng: random.Random) -> str:
    """The same keys and tensors under another architecture's name."""
    old = _architecture(parts)
    new = rng.choice(_ARCHITECTURES)
    keys = {
        new + key[len(old) :] if key.startswith(old + b".") else key: value
        for key, value in parts.keys.items()
    }
    parts.keys = {**keys, b"general.architecture": (STR, new)}
    return f"architecture {new!r}"


def cut_array(parts: Parts, rng: random.Random) -> str:
    """An array that is shorter, longer, in another order, or holds another value."""
    arrays = [key for key, value in parts.keys.items() if value[0] == ARR and value[2]]
    if not arrays:
        return change_value(parts, rng) if parts.keys else ""
    key = rng.choice(arrays)
    _, inner, values = parts.keys[key]
    values = list(values)
    how = rng.choice(("shorter", "one less", "longer", "other", "swapped", "empty"))
    at = rng.randrange(len(values))
    if how == "shorter":
        values = values[:at]
    elif how == "one less":
        del values[at]
    elif how == "longer":
        values.append(values[at])
    elif how == "empty":
        values = []
    elif how == "swapped":
        other = rng.randrange(len(values))
        values[at], values[other] = values[other], values[at]
    else:
        wild = (b"", b"\0", b"<0x41>", b"\xff\xfe", b"a" * 999, b" ")
        values[at] = rng.choice(wild) if inner == STR else _number(inner, rng)
    parts.keys[key] = (ARR, inner, values)
    return f"array {key!r} {how} at {at}"


def change_type(parts: Parts, rng: random.Random) -> str:
    """A tensor of another ggml type; its data becomes as long as that type's."""
    tensor = rng.choice(parts.tensors)
    kind = rng.choice(list(GGML_TYPES))
    _resized(tensor, tensor.shape, kind)
    return f"{tensor.name!r} is {GGML_TYPES[kind][0]}"


def change_shape(parts: Parts, rng: random.Random) -> str:
    """A tensor of another shape."""
    tensor = rng.choice(parts.tensors)
    shape = list(tensor.shape)
    axis = rng.randrange(len(shape)) if shape else 0
    how = rng.choice(("turned", "half", "double", "one more", "third", "flat", "block"))
    if how == "turned":
        shape.reverse()
    elif how == "third":
        shape.append(rng.choice((1, 2)))
    elif how == "flat":
        shape = [math.prod(shape)]
    else:
        width = {"half": shape[axis] // 2, "double": shape[axis] * 2, "one more": shape[axis] + 1}
        shape[axis] = max(1, width.get(how, shape[axis] + 32))
    _resized(tensor, tuple(shape[:4]), tensor.kind)
    return f"{tensor.name!r} is {shape}"


def change_name(parts: Parts, rng: random.Random) -> str:
    """A tensor less, under another's name, or under a name that nothing has."""
    tensor, other = rng.choice(parts.tensors), rng.choice(parts.tensors)
    how = rng.choice(("gone", "exchanged", "new", "part"))
    said = f"{tensor.name!r} {how}"
    if how == "gone":
        parts.tensors.remove(tensor)
    elif how == "exchanged":
        tensor.name, other.name = other.name, tensor.name
        said += f" with {tensor.name!r}"
    elif how == "new":
        tensor.name = rng.choice((b"", b"x", b"rope_freqs.weight", b"output.bias", b"\xff" * 9))
    else:
        marks = (
            *((b".weight", b".bias"), (b"lora_a", b"lora_b"), (b"attn_q", b"attn_norm")),
            *((b"attn_q", b"attn_qkv"), (b"attn_v", b"ffn_down"), (b"blk.0", b"blk.9")),
            *((b"token_embd", b"output"), (b"attn_q", b"attn_q_norm"), (b"blk.1", b"blk.0")),
        )
        old, new = rng.choice(marks)
        if new in tensor.name:
            old, new = new, old
        tensor.name = tensor.name.replace(old, new)
        said += f" {tensor.name!r}"
    return said


def add_tensor(parts: Parts, rng: random.Random) -> str:
    """A tensor more, of a kind that llama.cpp uses where it finds it."""
    if b"adapter.type" in parts.keys:
        names = (b"token_embd.weight", b"output.weight", b"output_norm.weight")
        names += (b"blk.0.attn_norm.weight", b"blk.0.attn_q.bias", b"blk.0.ffn_up.weight")
        stem, rank = rng.choice(names), rng.choice((1, 4))
        n_in, n_out = rng.choice(((64, 64), (64, 128), (64, 352), (352, 64), (64, 1)))
        for side, shape in ((b".lora_a", (n_in, rank)), (b".lora_b", (rank, n_out))):
            parts.tensors.append(Tensor(stem + side, shape, 0, bytes(4 * math.prod(shape))))
        return f"pair for {stem!r}"
    width = parts.keys.get(b"llama.embedding_length", (U32, 64))[-1]
    width = width if isinstance(width, int) and 0 < width < 9999 else 64
    name = rng.choice(_EXTRA)
    shape = (rng.choice((1, width, 64, 32, width // 2)),)
    kind = rng.choice((0, 0, 1, 30, 8, 26))
    tensor = Tensor(name, shape, kind, b"\1")
    _resized(tensor, shape, kind)
    parts.tensors.append(tensor)
    return f"new {name!r} {shape} {GGML_TYPES[kind][0]}"


def wild_weights(parts: Parts, rng: random.Random) -> str:
    """Weights of random bytes, NaN, infinity, or zero."""
    tensor = rng.choice(parts.tensors)
    how = rng.choice(("random", "nan", "inf", "zero"))
    patterns = {"nan": b"\xff", "inf": b"\x00\x7c", "zero": b"\0", "random": rng.randbytes(97)}
    tensor.data = (patterns[how] * len(tensor.data))[: len(tensor.data)]
    return f"{tensor.name!r} is {how}"


def change_alignment(parts: Parts, rng: random.Random) -> str:
    """Another alignment, kept to by the tensors."""
    parts.alignment = rng.choice((1, 2, 4, 8, 16, 64, 128, 4096, 48, 96))
    parts.keys[b"general.alignment"] = (U32, parts.alignment)
    return f"alignment {parts.alignment}"


Change = Callable[[Parts, random.Random], str]
CHANGES: tuple[Change, ...] = (
    *(change_value, change_number, change_number, change_kind, drop_key, add_key, add_key),
    *(other_architecture, cut_array, change_type, change_type, change_shape, change_name),
    *(add_tensor, wild_weights, change_alignment),
)


def mutate(path: Path, parts: Parts, rng: random.Random) -> tuple[bytes, str]:
    """One mutant of a file: its bytes, and what was done to it in words."""
    if rng.random() < 0.2:
        data, end = bytearray(parts.build()), parts.header_end
        if rng.random() < 0.2:
            end = rng.randrange(len(data) if rng.random() < 0.5 else end)
            return bytes(data[:end]), f"truncated to {end}"
        # Most of a header is tokens; half of the flips go to the keys and tensors around them.
        spots = [
            rng.randrange(end),
            rng.randrange(min(end, 1500)),
            end - 1 - rng.randrange(min(end, 3000)),
        ]
        chosen = [rng.choice(spots) for _ in range(rng.choice((1, 1, 2, 4)))]
        for at in chosen:
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, data[at] ^ (1 << rng.randrange(8))))
        return bytes(data), f"bytes at {chosen}"
    copy = Parts(dict(parts.keys), [Tensor(t.name, t.shape, t.kind, t.data) for t in parts.tensors])
    said = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if copy.keys and copy.tensors:
            said.append(rng.choice(CHANGES)(copy, rng))
    return copy.build(), ", ".join(said)


class Nursery:
    """Makes mutant number N of a seed: three files and a recipe in `folder`."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        whole = folder / "whole"
        whole.mkdir(parents=True, exist_ok=True)
        names = ("base", "chat", "reference")
        self.families = {
            "atlas": [ATLAS / f"{name}.gguf" for name in names],
            "smollm2": [whole / f"smollm2-{name}.gguf" for name in names],
            "adapter": [whole / f"tiny-{name}.gguf" for name in names],
        }
        for path, layers in zip(self.families["smollm2"], ((0, 1), (0, 2), (0, 3)), strict=True):
            if not path.exists():
                path.write_bytes(two_layers(smollm2_path(), layers).build())
        base, adapter, reference = self.families["adapter"]
        tiny_models.write_random(base, seed=1)
        tiny_models.write_random(reference, seed=2)
        tiny_models.write_adapter(adapter)
        self._parts: dict[Path, Parts] = {}

    def make(self, number: int) -> tuple[Path, str]:
        """Write mutant `number`; returns its recipe, and what it is in words."""
        rng = random.Random(f"{self.seed} {number}")
        family = ("atlas", "atlas", "adapter", "smollm2")[number % 4]
        paths = list(self.families[family])
        role = 1 if family == "adapter" else rng.randrange(3)
        if paths[role] not in self._parts:
            self._parts[paths[role]] = Parts.read(paths[role])
        data, said = mutate(paths[role], self._parts[paths[role]], rng)
        mutant = self.folder / f"mutant-{number}.gguf"
        mutant.write_bytes(data)
        paths[role] = mutant
        tuned = (
            f'lora = "{paths[1]}", on = "reference"'
            if family == "adapter"
            else f'file = "{paths[1]}"'
        )
        recipe = self.folder / f"mutant-{number}.toml"
        recipe.write_text(
            f'n_ctx = 64\n[base]\nfile = "{paths[0]}"\n[delta.d]\n'
            f'tuned = {{ {tuned}, prompt = "plain" }}\nreference = {{ file = "{paths[2]}" }}\n'
        )
        return recipe, f"{number} {family} {('base', 'tuned', 'reference')[role]}: {said}"

    def clear(self, number: int) -> None:
        for suffix in ("gguf", "toml"):
            (self.folder / f"mutant-{number}.{suffix}").unlink(missing_ok=True)


def two_layers(path: Path, layers: tuple[int, int]) -> Parts:
    """Two layers of a model, as a model."""
    parts = Parts.read(path)
    new = {b"blk.%d." % old: b"blk.%d." % index for index, old in enumerate(layers)}
    kept = []
    for tensor in parts.tensors:
        stem = tensor.name[: tensor.name.find(b".", 4) + 1]
        if not tensor.name.startswith(b"blk."):
            kept.append(tensor)
        elif stem in new:
            name = tensor.name.replace(stem, new[stem], 1)
            kept.append(Tensor(name, tensor.shape, tensor.kind, tensor.data))
    parts.tensors = kept
    parts.keys[b"llama.block_count"] = (U32, 2)
    return parts
