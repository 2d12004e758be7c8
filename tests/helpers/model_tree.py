"""A home directory as people have it: models of several families in other programs' stores.

The headers are whole and of real size, with the shapes and vocabularies that the families have;
the weights are holes in the files, but for the norms, which say who was tuned from whom.
"""

from __future__ import annotations

import functools
import hashlib
import json
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from helpers.gguf_builder import ARR, F32, I32, STR, U16, U32, File, encode, layout, text

TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q8_0": 8, "Q4_K_M": 12}
NORMAL, CONTROL, USER, UNUSED = 1, 3, 4, 5
CHAT = b"{% for m in messages %}{{ m.content }}{% endfor %}"


@dataclass(frozen=True)
class Tokens:
    """A vocabulary: `n` tokens in all, of which those from `padded` on are padding."""

    seed: int
    n: int
    padded: int
    renamed: tuple[tuple[int, bytes], ...] = ()  # reserved ids that this model gave a meaning

    @functools.cached_property
    def keys(self) -> bytes:
        """The arrays as they stand in a file."""
        return _encoded(self)


@functools.cache
def _encoded(tokens: Tokens) -> bytes:
    words = [b"%x%s" % (i, b"ghijklmnop"[: (i + tokens.seed) % 9 + 1]) for i in range(tokens.n)]
    kinds = [NORMAL] * tokens.n
    reserved = range(tokens.padded, tokens.n)
    for i in reserved:
        words[i], kinds[i] = b"[PAD%d]" % i, UNUSED
    words[tokens.padded - 1], kinds[tokens.padded - 1] = b"<|endoftext|>", CONTROL
    for i, word in tokens.renamed:
        words[i], kinds[i] = word, CONTROL
    merges = [b"%x %x" % (i, i + tokens.seed) for i in range(tokens.padded)]
    out = text(b"tokenizer.ggml.tokens") + encode((ARR, STR, words))
    out += text(b"tokenizer.ggml.token_type") + encode((ARR, I32, kinds))
    return out + text(b"tokenizer.ggml.merges") + encode((ARR, STR, merges))


QWEN25 = Tokens(1, 151_936, 151_665)
QWEN25_LARGE = replace(QWEN25, n=152_064)  # the same with a longer padded tail
QWEN3 = replace(QWEN25, renamed=((151_665, b"<think>"), (151_666, b"</think>")))
LLAMA3 = Tokens(2, 128_256, 128_000)
GEMMA3 = Tokens(3, 262_144, 262_000)
SMOLLM2 = Tokens(4, 49_152, 49_100)
SMOLLM = Tokens(5, 49_152, 49_100)  # of the same size, and another one
PHI4 = Tokens(6, 20_064, 20_000)


@dataclass(frozen=True)
class Shape:
    """An architecture and its sizes; `weights` is what each training from scratch has its own."""

    architecture: str
    n_layer: int
    d: int
    n_ff: int
    tokens: Tokens
    weights: int
    experts: int = 0


@dataclass(frozen=True)
class Written:
    """One model to write."""

    shape: Shape
    quantisation: str = "Q8_0"
    tuned: float = 0.0  # how far its norms are from those of the training
    name: bytes = b""
    template: bytes = b""
    made_from: bytes = b""
    more: dict[bytes, tuple[object, ...]] = field(default_factory=dict)

    def tensors(self) -> list[tuple[bytes, tuple[int, ...], int]]:
        """Fewer than a real model has, and the largest of them."""
        s, kind = self.shape, TYPES[self.quantisation]
        found = [(b"token_embd.weight", (s.d, s.tokens.n), kind)]
        for i in range(s.n_layer):
            block = b"blk.%d." % i
            found += [
                (block + b"attn_norm.weight", (s.d,), 0),
                (block + b"attn_q.weight", (s.d, s.d), kind),
                (block + b"attn_k.weight", (s.d, s.d), kind),
                (block + b"attn_v.weight", (s.d, s.d), kind),
                (block + b"attn_output.weight", (s.d, s.d), kind),
                (block + b"ffn_norm.weight", (s.d,), 0),
                (block + b"ffn_up.weight", (s.d, s.n_ff), kind),
                (block + b"ffn_gate.weight", (s.d, s.n_ff), kind),
                (block + b"ffn_down.weight", (s.n_ff, s.d), kind),
            ]
        return [*found, (b"output_norm.weight", (s.d,), 0)]

    def keys(self) -> dict[bytes, tuple[object, ...]]:
        s = self.shape
        prefix = s.architecture.encode() + b"."
        keys: dict[bytes, tuple[object, ...]] = {
            b"general.architecture": (STR, s.architecture.encode()),
            prefix + b"block_count": (U32, s.n_layer),
            prefix + b"context_length": (U32, 32768),
            prefix + b"embedding_length": (U32, s.d),
            prefix + b"feed_forward_length": (U32, s.n_ff),
            prefix + b"attention.head_count": (U32, s.d // 64),
            prefix + b"attention.head_count_kv": (U32, s.d // 64),
            prefix + b"attention.layer_norm_rms_epsilon": (F32, 1e-6),
            b"tokenizer.ggml.model": (STR, b"gpt2"),
            b"tokenizer.ggml.eos_token_id": (U32, s.tokens.padded - 1),
        }
        if s.experts:
            keys[prefix + b"expert_count"] = (U32, s.experts)
            keys[prefix + b"expert_used_count"] = (U32, 8)
        if self.name:
            keys[b"general.name"] = (STR, self.name)
        if self.template:
            keys[b"tokenizer.chat_template"] = (STR, self.template)
        if self.made_from:
            keys[b"general.base_model.count"] = (U32, 1)
            keys[b"general.base_model.0.name"] = (STR, self.made_from)
        return keys | self.more

    def write(self, path: Path, *, n_parts: int = 1) -> Path:
        """Write the file, or its parts; returns the (first) one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = self.tensors()
        if n_parts == 1:
            _write(path, self.keys(), tensors, self)
            return path
        each = -(-len(tensors) // n_parts)
        for i in range(n_parts):
            numbers: dict[bytes, tuple[object, ...]] = {
                b"split.no": (U16, i),
                b"split.count": (U16, n_parts),
                b"split.tensors.count": (I32, len(tensors)),
            }
            part = path.with_name(f"{path.stem}-{i + 1:05d}-of-{n_parts:05d}.gguf")
            keys = numbers if i else self.keys() | numbers
            _write(part, keys, tensors[i * each : (i + 1) * each], self, arrays=not i)
        return path.with_name(f"{path.stem}-00001-of-{n_parts:05d}.gguf")


def _write(path, keys, tensors, model, *, arrays=True):
    placed = layout(*tensors)
    counts = struct.pack("<IQQ", 3, len(placed), len(keys) + 3 * arrays)
    infos = (
        text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        for name, shape, kind, offset, _ in placed
    )
    with open(path, "wb") as file:
        file.write(b"GGUF" + counts)
        file.write(b"".join(text(key) + encode(value) for key, value in keys.items()))
        file.write(model.shape.tokens.keys if arrays else b"")
        file.write(b"".join(infos))
        start = -(-file.tell() // 32) * 32
        *_, offset, n_bytes = placed[-1]
        file.truncate(start + offset + -(-n_bytes // 32) * 32)
        for name, shape, kind, offset, _ in placed:
            if kind == 0 and name.endswith(b"norm.weight"):
                file.seek(start + offset)
                file.write(_norm(model, name, shape[0]))


def _norm(model: Written, name: bytes, n: int) -> bytes:
    seed = int.from_bytes(hashlib.sha256(b"%d %b" % (model.shape.weights, name)).digest()[:4])
    values = 1 + 0.2 * np.random.default_rng(seed).standard_normal(n, np.float32)
    moved = np.random.default_rng(seed + 1).standard_normal(n, np.float32)
    return (values + np.float32(0.2 * model.tuned) * moved).astype("<f4").tobytes()


def adapter(path: Path, shape: Shape, made_from: bytes = b"") -> Path:
    """A LoRA on the query weights of a model of this shape."""
    keys: dict[bytes, tuple[object, ...]] = {
        b"general.architecture": (STR, shape.architecture.encode()),
        b"general.type": (STR, b"adapter"),
        b"adapter.type": (STR, b"lora"),
        b"adapter.lora.alpha": (F32, 16.0),
    }
    if made_from:
        keys[b"general.base_model.count"] = (U32, 1)
        keys[b"general.base_model.0.name"] = (STR, made_from)
    d, name = shape.d, b"blk.0.attn_q.weight"
    tensors = layout((name + b".lora_a", (d, 8), 0), (name + b".lora_b", (8, d), 0))
    data = bytearray(File(keys=keys, tensors=tensors).build())
    data[-4:] = struct.pack("<f", 0.5)  # B is not all zeros
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


class Stores:
    """The stores below a home directory; each method puts a model where that program would."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.hub = home / ".cache" / "huggingface" / "hub"
        self.lm_studio = home / ".lmstudio" / "models"
        self.ollama = home / ".ollama" / "models"

    def environment(self) -> dict[str, str]:
        home = str(self.home)
        return {"HOME": home, "USERPROFILE": home, "OLLAMA_MODELS": str(self.ollama)}

    def on_hub(self, repo: str, file: str, model: Written, *, n_parts: int = 1) -> Path:
        """Blobs named by hashes, and a snapshot of links to them."""
        folder = self.hub / f"models--{repo.replace('/', '--')}"
        written = model.write(folder / "new" / file, n_parts=n_parts)
        snapshot = folder / "snapshots" / ("0123456789" * 4)
        for path in (folder / "blobs", folder / "refs", snapshot):
            path.mkdir(parents=True, exist_ok=True)
        (folder / "refs" / "main").write_text(snapshot.name)
        for part in sorted(written.parent.iterdir()):
            digest = hashlib.sha256(f"{repo}/{part.name}".encode()).hexdigest()
            part.rename(folder / "blobs" / digest)
            (snapshot / part.name).symlink_to(Path("../../blobs") / digest)
        written.parent.rmdir()
        return snapshot / written.name

    def in_lm_studio(self, repo: str, file: str, model: Written) -> Path:
        return model.write(self.lm_studio / repo / file)

    def in_ollama(self, name: str, model: Written | Path, lora: Path | None = None) -> Path:
        """A manifest and blobs without a suffix; `model` may be a blob that is there."""
        blob = self.blob(model.write(self.home / "new")) if isinstance(model, Written) else model
        layers = [self.layer("model", blob)]
        if lora:
            layers.append(self.layer("adapter", self.blob(lora)))
        self.manifest(name, {"schemaVersion": 2, "layers": layers})
        return blob

    def blob(self, file: Path) -> Path:
        digest = hashlib.sha256(str(file.stat()).encode()).hexdigest()
        blob = self.ollama / "blobs" / f"sha256-{digest}"
        blob.parent.mkdir(parents=True, exist_ok=True)
        return file.rename(blob)

    def layer(self, kind: str, blob: Path) -> dict[str, object]:
        return {
            "mediaType": f"application/vnd.ollama.image.{kind}",
            "digest": blob.name.replace("-", ":"),
            "size": blob.stat().st_size,
        }

    def manifest(self, name: str, content: object) -> Path:
        model, _, tag = name.partition(":")
        path = self.ollama / "manifests" / "registry.ollama.ai" / "library" / model / tag
        path.parent.mkdir(parents=True, exist_ok=True)
        (self.ollama / "blobs").mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path
