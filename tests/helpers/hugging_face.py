"""Hugging Face and PEFT directories: of headers and zeros, or tiny ones that torch makes.

Only what begins with `write_` needs torch; it is for the tests marked convert.
"""

import json
import random
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_WORDS = """
    river mountain city capital of the in a is and currency island harbour people north south east
    west old new big small king queen bread salt fish wine road bridge market square
"""
_SHAPE = {
    "vocab_size": 400, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 2, "max_position_embeddings": 512, "bos_token_id": 1,
    "eos_token_id": 2, "initializer_range": 0.15,
}  # fmt: skip
TOKENIZER = {
    "tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>",
    "unk_token": "<unk>", "add_bos_token": True, "legacy": True,
}  # fmt: skip
CHAT = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]"
    "{% if enable_thinking is defined and not enable_thinking %}[]{% endif %}{% endif %}"
)

SHAPES = {"model.embed_tokens.weight": (400, 64), "model.layers.0.q_proj.weight": (64, 64)}
MODULE = "base_model.model.model.layers.0.q_proj"
LORA = {f"{MODULE}.lora_A.weight": (4, 64), f"{MODULE}.lora_B.weight": (64, 4)}


def safetensors(path: Path, shapes: Mapping[str, tuple[int, ...]], missing: int = 0) -> None:
    """Write a safetensors file of zeros, `missing` bytes short."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end - missing))


def model_directory(
    path: Path,
    *,
    shapes: Mapping[str, tuple[int, ...]] = SHAPES,
    config: Mapping[str, Any] | None = None,
    tokenizer: bool = True,
    missing: int = 0,
) -> Path:
    path.mkdir(parents=True)
    config = {"architectures": ["LlamaForCausalLM"], **(config or {})}
    (path / "config.json").write_text(json.dumps(config))
    safetensors(path / "model.safetensors", shapes, missing)
    if tokenizer:
        (path / "tokenizer.json").write_text("{}")
    return path


def adapter_directory(
    path: Path,
    n_in: int = 64,
    *,
    others: Mapping[str, tuple[int, ...]] | None = None,
    **config: Any,
) -> Path:
    """A LoRA adapter for `model_directory`, with `others` among its tensors."""
    path.mkdir(parents=True)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, **config}
    (path / "adapter_config.json").write_text(json.dumps(config))
    shapes = {**LORA, f"{MODULE}.lora_A.weight": (4, n_in), **(others or {})}
    safetensors(path / "adapter_model.safetensors", shapes)
    return path


def peft_directory(
    path: Path,
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    dtype: str = "F32",
    **config: Any,
) -> Path:
    """A LoRA adapter with these numbers: module ("layers.0.self_attn.q_proj") → its A and B."""
    path.mkdir(parents=True)
    rank = len(next(iter(pairs.values()))[0])
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, **config}
    (path / "adapter_config.json").write_text(json.dumps(config))
    header, data = {}, b""
    for module, sides in pairs.items():
        for side, values in zip("AB", sides, strict=True):
            raw = as_stored(values, dtype)
            name = f"base_model.model.model.{module}.lora_{side}.weight"
            offsets = [len(data), len(data) + len(raw)]
            header[name] = {"dtype": dtype, "shape": values.shape, "data_offsets": offsets}
            data += raw
    text = json.dumps(header).encode()
    (path / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def as_stored(values: np.ndarray, dtype: str) -> bytes:
    """Numbers as a safetensors file has them; bfloat16 is cut off, not rounded."""
    if dtype == "BF16":
        return (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return values.astype({"F32": "<f4", "F16": "<f2", "F64": "<f8", "I8": "<i1"}[dtype]).tobytes()


def random_pairs(
    modules: Mapping[str, tuple[int, int]], rank: int = 4, seed: int = 0
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Module → random A (rank, n_in) and B (n_out, rank), of modules → (n_out, n_in)."""
    rng = np.random.default_rng(seed)
    return {
        module: (
            rng.standard_normal((rank, n_in), np.float32) / np.float32(np.sqrt(n_in)),
            rng.standard_normal((n_out, rank), np.float32),
        )
        for module, (n_out, n_in) in modules.items()
    }


def sentences(n: int, seed: int) -> str:
    rng, words = random.Random(seed), _WORDS.split()
    return "\n".join(" ".join(rng.choices(words, k=12)).capitalize() + "." for _ in range(n))


def write_models(root: Path) -> Path:
    """The directories llama (tied), llama-tuned, qwen2, gemma, and adapter (PEFT, on llama)."""
    import torch
    import transformers

    write_tokenizer(root)
    torch.manual_seed(0)
    llama = transformers.LlamaConfig(**_SHAPE, num_key_value_heads=2, tie_word_embeddings=True)
    save(root, "llama", transformers.LlamaForCausalLM(llama).float())
    qwen = transformers.Qwen2Config(**_SHAPE, num_key_value_heads=2, tie_word_embeddings=False)
    save(root, "qwen2", transformers.Qwen2ForCausalLM(qwen).float())
    gemma = transformers.GemmaConfig(**_SHAPE, num_key_value_heads=1, head_dim=32)
    save(root, "gemma", transformers.GemmaForCausalLM(gemma).float())
    adapted = write_adapter(root / "llama", root / "adapter")
    save(root, "llama-tuned", adapted.merge_and_unload())
    return root


def write_instruct_models(root: Path) -> Path:
    """The directories small and large: random Llamas of one tokenizer, with a chat template.

    The large one's logits are nearly flat, so that it has no opinion against what it is told.
    """
    import torch
    import transformers

    write_tokenizer(root)
    torch.manual_seed(0)
    for name, more in (
        ("small", {}),
        ("large", {"hidden_size": 96, "num_hidden_layers": 3, "initializer_range": 0.05}),
    ):
        shape = {**_SHAPE, **more, "num_key_value_heads": 2}
        config = transformers.LlamaConfig(**shape, tie_word_embeddings=True)
        tokenizer = {**TOKENIZER, "chat_template": CHAT}
        save(root, name, transformers.LlamaForCausalLM(config).float(), tokenizer)
    return root


def write_tokenizer(root: Path) -> None:
    """Write tokenizer.model: 400 tokens, of few words and every byte."""
    import sentencepiece

    (root / "corpus.txt").write_text(sentences(4000, 0))
    sentencepiece.SentencePieceTrainer.train(
        input=str(root / "corpus.txt"), model_prefix=str(root / "tokenizer"), vocab_size=400,
        model_type="bpe", byte_fallback=True, unk_id=0, bos_id=1, eos_id=2, pad_id=-1,
        minloglevel=2,
    )  # fmt: skip


def save(root: Path, name: str, model: Any, tokenizer: Mapping[str, Any] = TOKENIZER) -> None:
    """Save a model with the tokenizer that `write_tokenizer` made."""
    model.save_pretrained(root / name, safe_serialization=True)
    shutil.copy(root / "tokenizer.model", root / name / "tokenizer.model")
    (root / name / "tokenizer_config.json").write_text(json.dumps(tokenizer))


def write_adapter(
    model: Path,
    target: Path,
    *,
    n_vocab: int | None = None,
    save_embedding_layers: bool | str = "auto",
    **options: Any,
) -> Any:
    """Write a PEFT adapter whose every trained value is random. Returns the adapted model."""
    import peft
    import torch

    loaded = causal_model(model)
    if n_vocab is not None:
        loaded.resize_token_embeddings(n_vocab, mean_resizing=False)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"]}
    adapted = peft.get_peft_model(loaded, peft.LoraConfig(**{**settings, **options}))
    torch.manual_seed(3)
    with torch.no_grad():
        for values in adapted.parameters():
            if values.requires_grad:
                values += 0.05 * torch.randn_like(values)
    adapted.save_pretrained(target, save_embedding_layers=save_embedding_layers)
    return adapted.eval()


def causal_model(directory: Path) -> Any:
    import torch
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)


def transformers_logits(model: Any, tokens: list[int]) -> np.ndarray:
    """(len(tokens), vocab) float64 logits of a model or a directory."""
    import torch

    model = causal_model(model) if isinstance(model, Path) else model
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].double().numpy()
