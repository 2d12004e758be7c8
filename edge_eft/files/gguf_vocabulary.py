"""A model's vocabulary from its file's header alone, for `text.vocabulary.reconcile`.

So whether models can be combined is known before any is loaded, or even fetched. The loaded model
has the last word: llama.cpp knows more texts that end a reply than stand here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..text import vocabulary
from .gguf_check import Opener, read_layout
from .gguf_header import Layout
from .gguf_tokenizer import check_tokenizer

# GGUF's token type → llama_token_attr; another type, or none, is LLAMA_TOKEN_ATTR_UNDEFINED.
_ATTRIBUTES = {
    1: vocabulary.NORMAL,
    2: vocabulary.UNKNOWN,
    3: vocabulary.CONTROL,
    4: vocabulary.USER_DEFINED,
    5: vocabulary.UNUSED,
    6: vocabulary.BYTE,
}
_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
# Texts that llama.cpp takes for the end of a reply wherever they stand (llama-vocab.cpp), for the
# families that people have. It makes control tokens of them, too.
_END_TEXTS = {
    *(b"<|im_end|>", b"<|endoftext|>", b"<|end_of_text|>", b"<|end|>", b"<end_of_turn>"),
    *(b"<|eot_id|>", b"<|eom_id|>", b"<|return|>", b"<|call|>", b"<EOT>", b"_<EOT>"),
    *("<｜end▁of▁sentence｜>".encode(), b"<end_of_utterance>", b"[EOS]", b"[EOT]"),
}


@dataclass(frozen=True, eq=False)
class HeaderVocabulary:
    """What a header says of a model's tokens: a `text.vocabulary.VocabularySource`.

    Attributes:
        name: the file's.
        n_vocab: number of tokens.
        end_tokens: the ids that end a reply, those that the file names and those known by text.
        bos_token, eos_token: their ids, None if the file names none.
        add_bos: whether the file says that a prompt begins with BOS; None if it does not say.
    """

    name: str
    n_vocab: int
    end_tokens: frozenset[int]
    bos_token: int | None
    eos_token: int | None
    add_bos: bool | None
    _texts: list[bytes]
    _attributes: NDArray[np.int32]

    def token_texts(self) -> list[bytes]:
        """Return the vocabulary's own text of every id, as the file has it."""
        return self._texts

    def token_attributes(self) -> NDArray[np.int32]:
        """Return (n_vocab,) int32 of LLAMA_TOKEN_ATTR_* bits."""
        return self._attributes

    def tokenize(self, text: str, *, parse_special: bool) -> list[int]:
        """Return the one token that `text` is as BPE or SentencePiece write it, else nothing."""
        spelled = {text.replace(" ", space).encode() for space in ("Ġ", "▁")}
        return [i for i, token in enumerate(self._texts) if token in spelled][:1]


def read_vocabulary(
    path: str | os.PathLike[str], *, opener: Opener | None = None
) -> HeaderVocabulary:
    """Read the vocabulary of the GGUF model at `path`; of a split model, its first part.

    Raises ModelFileError if it is no GGUF file, or its vocabulary is none that is safe to load;
    arguments as of `gguf_check.read_header`, which checks the rest.
    """
    layout = read_layout(Path(path), opener)
    check_tokenizer(layout)
    return vocabulary_of(layout, Path(path).name)


def vocabulary_of(layout: Layout, name: str) -> HeaderVocabulary:
    """Return the vocabulary in a header that passed `check_tokenizer`, of the file `name`."""
    texts = layout.tokens
    named = {token for key in _END_KEYS if (token := _token(layout, key)) is not None}
    known = {texts.index(text) for text in _END_TEXTS.intersection(texts)}
    attributes = np.zeros(len(texts), np.int32)
    if layout.token_types:
        types = np.frombuffer(layout.token_types, "<i4")
        for kind, attribute in _ATTRIBUTES.items():
            attributes[types == kind] = attribute
    else:
        attributes[:] = vocabulary.NORMAL  # as llama.cpp has it where the file does not say
    attributes[list(known)] = vocabulary.CONTROL
    add_bos = layout.metadata.get("tokenizer.ggml.add_bos_token")
    return HeaderVocabulary(
        name=name,
        n_vocab=len(texts),
        end_tokens=frozenset(named | known),
        bos_token=_token(layout, "bos_token_id"),
        eos_token=_token(layout, "eos_token_id"),
        add_bos=add_bos if isinstance(add_bos, bool) else None,
        _texts=texts,
        _attributes=attributes,
    )


def _token(layout: Layout, key: str) -> int | None:
    value = layout.metadata.get(f"tokenizer.ggml.{key}")
    return value if isinstance(value, int) and 0 <= value < len(layout.tokens) else None
