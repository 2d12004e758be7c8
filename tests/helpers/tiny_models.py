"""Llama models of a few thousand parameters, written for the test that needs them.

Two kinds: random weights, in which every token depends on all before it, and "scripts", in which
the next token is a function of the last one, so that a test decides what the model says. Both are
ordinary GGUF files with a SentencePiece vocabulary of `VOCABULARY`.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np

KIND = gguf.TokenType
_WORDS = (
    "▁ e t a o i n s r h l d u c m p g b y f w k v x z A B C D E S T N O P . , ! ? : ; - ' "
    "he in er an th ing ▁t ▁a ▁s ▁the ▁and ▁of ▁to ▁is ▁it ▁in ▁It ▁I ST OP EN STOP "
    "▁one ▁two ▁three ▁four ▁five ▁red ▁green ▁blue"
)

UNK, BOS, EOS = 0, 1, 2
BYTE_0 = 3
OTHER_END, RESERVED = 259, 260  # a control token that can be named the end, and one for nothing

VOCABULARY: list[tuple[str, int]] = [
    ("<unk>", KIND.UNKNOWN),
    ("<s>", KIND.CONTROL),
    ("</s>", KIND.CONTROL),
    *((f"<0x{byte:02X}>", KIND.BYTE) for byte in range(256)),
    ("<other-end>", KIND.CONTROL),
    ("<reserved>", KIND.CONTROL),
    *((word, KIND.NORMAL) for word in _WORDS.split()),
]
VOCABULARY += [(f"filler{i}", KIND.NORMAL) for i in range(352 - len(VOCABULARY))]
N_VOCAB = len(VOCABULARY)
ID = {text: i for i, (text, _) in enumerate(VOCABULARY)}

CHAT = (
    "{% for m in messages %}{{ '[' + m.role + ']' + m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}[assistant]"
)


def byte_tokens(text: str) -> list[int]:
    """The byte tokens that spell `text`."""
    return [BYTE_0 + byte for byte in text.encode()]


def script(*chains: Sequence[int], otherwise: int = EOS, strength: float = 12.0) -> np.ndarray:
    """(N_VOCAB, N_VOCAB) logits [last token, next token]: each chain's tokens follow each other.

    A token that nothing follows in any chain is followed by `otherwise`. BOS can begin a chain.
    """
    logits = np.zeros((N_VOCAB, N_VOCAB), np.float32)
    follower = dict.fromkeys(range(N_VOCAB), otherwise)
    links = [link for chain in chains for link in itertools.pairwise(chain)]
    assert len(dict(links)) == len(set(links)), "a token is followed by two different ones"
    follower |= dict(links)
    for last, following in follower.items():
        logits[last, following] = strength
    return logits


def write_script(path: Path, logits: np.ndarray, **options: Any) -> Path:
    """A model whose logits after a token are that token's row: one-hot embeddings, no layers' say.

    RMSNorm turns a one-hot vector into one of length √d, which the output matrix takes back.
    """
    d = N_VOCAB
    hidden = np.eye(N_VOCAB, dtype=np.float32)
    output = (logits.T / np.sqrt(d)).astype(np.float32)
    silent = np.random.default_rng(0)
    return _write(path, hidden, output, n_layer=1, n_ff=32, rng=silent, loudness=0.0, **options)


def write_random(
    path: Path,
    seed: int,
    *,
    d: int = 64,
    n_layer: int = 2,
    sharpness: float = 2.0,
    poison: float = 0.0,
    **options: Any,
) -> Path:
    """Random weights; logits have a standard deviation of about `sharpness`, of one row `poison`.

    Byte and control tokens stay at logit 0, so that replies are text and seldom end.
    """
    rng = np.random.default_rng(seed)
    embedding = rng.standard_normal((N_VOCAB, d), np.float32)
    output = rng.standard_normal((N_VOCAB, d), np.float32) * np.float32(sharpness / np.sqrt(d))
    output[: RESERVED + 1] = 0.0
    output[RESERVED] = poison
    return _write(
        path, embedding, output, n_layer=n_layer, n_ff=2 * d, rng=rng, loudness=1.0, **options
    )


def write_adapter(
    path: Path, *, d: int = 64, n_layer: int = 2, rank: int = 4, loudness: float = 1.0
) -> Path:
    """A LoRA adapter for the query and value weights of a `write_random` model."""
    rng = np.random.default_rng(9)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(rank))
    for layer in range(n_layer):
        for name in ("attn_q", "attn_v"):
            tensor = f"blk.{layer}.{name}.weight"
            a, b = rng.standard_normal((rank, d)), rng.standard_normal((d, rank))
            writer.add_tensor(f"{tensor}.lora_a", (a / np.sqrt(d)).astype(np.float32))
            writer.add_tensor(f"{tensor}.lora_b", (loudness * b).astype(np.float32))
    finish(writer)
    return path


def without_tokenizer(path: Path) -> Path:
    """A model that has weights and no vocabulary: tokenising with it would abort the process."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(N_VOCAB)
    add_shape(writer, d=64, n_ff=64, n_layer=1, head_size=32, n_ctx_train=64)
    writer.add_tensor("token_embd.weight", np.zeros((N_VOCAB, 64), np.float32))
    writer.add_tensor("output_norm.weight", np.ones(64, np.float32))
    finish(writer)
    return path


def _write(
    path: Path,
    embedding: np.ndarray,
    output: np.ndarray,
    *,
    n_layer: int,
    n_ff: int,
    rng: np.random.Generator,
    loudness: float,
    head_size: int = 32,
    n_ctx_train: int = 512,
    quantised: bool = True,
    eos: int = EOS,
    add_bos: bool = True,
    chat_template: str | None = CHAT,
    name: str | None = None,
    rename: Mapping[int, tuple[str, int]] | None = None,
    n_padding: int = 0,
) -> Path:
    d = embedding.shape[1]
    tokens = [*VOCABULARY, *((f"[PAD{i}]", KIND.UNUSED) for i in range(n_padding))]
    embedding, output = (np.pad(each, ((0, n_padding), (0, 0))) for each in (embedding, output))
    for token, renamed in (rename or {}).items():
        tokens[token] = renamed
    writer = begin(
        path, "llama", tokens, eos=eos, add_bos=add_bos, chat_template=chat_template, name=name
    )
    add_shape(writer, d=d, n_ff=n_ff, n_layer=n_layer, head_size=head_size, n_ctx_train=n_ctx_train)

    def add(name: str, values: np.ndarray) -> None:
        if quantised and values.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            quantised_rows = gguf.quants.quantize(np.ascontiguousarray(values), kind)
            writer.add_tensor(name, quantised_rows, raw_dtype=kind)
        else:
            writer.add_tensor(name, np.ascontiguousarray(values))

    def matrix(n_out: int, n_in: int) -> np.ndarray:
        scale = np.float32(loudness * 1.5 / np.sqrt(n_in))
        return rng.standard_normal((n_out, n_in), np.float32) * scale

    add("token_embd.weight", embedding)
    add("output.weight", output)
    add("output_norm.weight", np.ones(d, np.float32))
    for layer in range(n_layer):
        block = f"blk.{layer}."
        add(block + "attn_norm.weight", np.ones(d, np.float32))
        add(block + "ffn_norm.weight", np.ones(d, np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"{block}{name}.weight", matrix(d, d))
        add(block + "ffn_gate.weight", matrix(n_ff, d))
        add(block + "ffn_up.weight", matrix(n_ff, d))
        add(block + "ffn_down.weight", matrix(d, n_ff))
    finish(writer)
    return path


def begin(
    path: Path,
    architecture: str,
    tokens: Sequence[tuple[str, int]] = VOCABULARY,
    *,
    eos: int = EOS,
    add_bos: bool = True,
    chat_template: str | None = CHAT,
    name: str | None = None,
) -> gguf.GGUFWriter:
    """A file that has its vocabulary, and no shape and no tensor yet."""
    writer = gguf.GGUFWriter(path, architecture)
    if name is not None:
        writer.add_name(name)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _ in tokens])
    writer.add_token_types([int(kind) for _, kind in tokens])
    writer.add_token_scores([-float(i) for i in range(len(tokens))])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(eos)
    writer.add_add_bos_token(add_bos)
    writer.add_add_space_prefix(False)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    return writer


def add_shape(
    writer: gguf.GGUFWriter, *, d: int, n_ff: int, n_layer: int, head_size: int, n_ctx_train: int
) -> None:
    """Sizes that every architecture here states."""
    writer.add_context_length(n_ctx_train)
    writer.add_embedding_length(d)
    writer.add_feed_forward_length(n_ff)
    writer.add_block_count(n_layer)
    writer.add_head_count(d // head_size)
    writer.add_rope_dimension_count(head_size)
    writer.add_layer_norm_rms_eps(1e-6)


def finish(writer: gguf.GGUFWriter) -> None:
    """Write what was added."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
