"""The vocabulary in a GGUF header: what llama.cpp's tokenizers take for granted, checked.

After llama-vocab.cpp (as of llama-cpp-python 0.3.36). What it refuses by itself, with a reason and
no harm done (a missing list of merges, a special token out of range), is left to it.
"""

from __future__ import annotations

import re
import struct
from collections import Counter

from .gguf_header import TOKEN_TYPES_KEY, TOKENS_KEY, GGUFArray, Layout, quoted

_TOKENIZERS = {"llama", "bert", "gpt2", "hybriddna", "whitespace", "t5", "rwkv", "plamo2", "gemma4"}
_BYTE_TYPE = 6  # LLAMA_TOKEN_TYPE_BYTE
_BYTE_TEXT = re.compile(rb"<0x[0-9A-Fa-f]{2}>")
# One byte of a text, as RWKV's vocabulary writes it (llama_unescape_rwkv_token).
_RWKV_BYTE = re.compile(rb"\\x[0-9A-Fa-f]{2}|\\?.", re.DOTALL)


def check_tokenizer(layout: Layout) -> None:
    """Raise ModelFileError if loading, tokenising or writing bytes could harm the process."""
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
    if layout.walked is None:
        _check_texts(layout, model)
    elif (seen := layout.vocabulary_id()) not in layout.walked.sound:
        _check_texts(layout, model)
        layout.walked.sound.add(seen)


def _check_texts(layout: Layout, model: str) -> None:
    # llama.cpp ends a text at a NUL, names empty ones so, and asserts that none is there twice.
    texts, n_tokens = layout.tokens, len(layout.tokens)
    if not all(texts) or b"\0" in b"".join(texts):
        ended = (text.partition(b"\0")[0] for text in texts)
        texts = [text or b"[EMPTY_%d]" % index for index, text in enumerate(ended)]
    distinct = set(texts)
    if len(distinct) != n_tokens:
        twice = Counter(texts).most_common(1)[0][0]
        raise layout.error(f"has the token {quoted(twice)} more than once (duplicate)")
    if _BYTE_TYPE.to_bytes(4, "little") in layout.token_types:
        kinds = struct.unpack(f"<{n_tokens}i", layout.token_types)
        bytes_ = [i for i, kind in enumerate(kinds) if kind == _BYTE_TYPE]
        if bytes_ and model == "bert":
            raise layout.error(
                f"token {bytes_[0]} is a byte token, which a bert tokenizer cannot have"
            )
        for index in bytes_:
            if not _BYTE_TEXT.fullmatch(texts[index]):
                seen = f"token {index} is a byte token but reads {quoted(texts[index])}"
                raise layout.error(f"{seen}, not like '<0x0A>'")
    if model == "rwkv":
        _check_rwkv(layout, texts)
    if model == "llama":
        # A character without a token is tokenised as bytes; a missing one ends the process by an
        # exception that nothing catches (byte_to_token).
        for byte in range(256):
            if b"<0x%02X>" % byte not in distinct and bytes([byte]) not in distinct:
                fix = "convert the model again with byte fallback in its tokenizer"
                raise layout.error(f"has no byte token '<0x{byte:02X}>' in its vocabulary", fix)


def _check_rwkv(layout: Layout, texts: list[bytes]) -> None:
    """Refuse a vocabulary that lacks a byte: where no token fits, the tokenizer never ends."""
    tokens = [_RWKV_BYTE.findall(text) for text in texts]
    single = {_unescaped(token[0]) for token in tokens if len(token) == 1}
    for text, token in zip(texts, tokens, strict=True):
        if _unescaped(token[0]) not in single:
            seen = f"the token {quoted(text)} begins with a byte that is not a token"
            raise layout.error(seen, "convert the model again with its whole vocabulary")


def _unescaped(byte: bytes) -> bytes:
    """Return one byte as it is: `\\x41`, `\\A` and `A` are the same."""
    if byte.startswith(b"\\x"):
        return bytes.fromhex(byte[2:].decode())
    return {b"t": b"\t", b"n": b"\n", b"r": b"\r"}.get(byte[1:], byte[-1:])


def _array_of(layout: Layout, key: str, types: tuple[str, ...]) -> int | None:
    """Return the length of the array at `key`, which must be of `types`; None if absent."""
    value = layout.metadata.get(key)
    if value is None:
        return None
    if not isinstance(value, GGUFArray) or value.type not in types:
        kind = f"array of {value.type}" if isinstance(value, GGUFArray) else layout.types[key]
        raise layout.error(f"{key} is of the wrong type ({kind}, not array of {types[0]})")
    return value.count
