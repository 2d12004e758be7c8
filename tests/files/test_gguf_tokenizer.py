"""gguf_tokenizer: vocabularies that a tokenizer of their kind could not work with are refused."""

from __future__ import annotations

import pytest
from helpers.gguf_builder import STR, TOKENS, refusal, with_key, with_tokens

from edge_eft.files.gguf_check import read_header


def rwkv(*tokens):
    """RWKV's vocabulary is written as Python writes bytes."""
    file = with_tokens([repr(token)[2:-1].encode() for token in tokens])
    file.keys[b"tokenizer.ggml.model"] = (STR, b"rwkv")
    return file.build()


def test_an_rwkv_vocabulary_has_every_byte_that_a_token_begins_with(tmp_path):
    """Where none is, the longest token of a text is empty: llama.cpp looks for it for ever."""
    bytes_ = [bytes([byte]) for byte in range(256)]
    path = tmp_path / "x.gguf"
    path.write_bytes(rwkv(b"<s>", *bytes_, b"\n\n", b"'\"", b"\\a", "é".encode(), b"\x00\x00"))
    assert read_header(path).n_vocab == 262
    for missing, token in ((b"e", b"end"), (b"\n", b"\n\n"), (b"\xc3", "é".encode())):
        tokens = [byte for byte in bytes_ if byte != missing]
        assert "begins with a byte that is not a token" in refusal(tmp_path, rwkv(*tokens, token))


def test_a_bert_vocabulary_has_no_byte_tokens(tmp_path):
    """llama.cpp has no way to write them, and aborts while it loads them."""
    file = with_key(b"tokenizer.ggml.model", STR, b"bert")
    assert "token 3 is a byte token, which a bert" in refusal(tmp_path, file.build())
    file = with_tokens(TOKENS)
    file.keys[b"tokenizer.ggml.model"] = (STR, b"bert")
    path = tmp_path / "x.gguf"
    path.write_bytes(file.build())
    assert read_header(path).n_vocab == len(TOKENS)


@pytest.mark.parametrize("model", ["gpt2", "t5", "plamo2", "gemma4", "whitespace", "hybriddna"])
def test_what_llama_cpp_refuses_by_itself_is_left_to_it(tmp_path, model):
    """No merges, no map of characters: its own reason is as good."""
    file = with_key(b"tokenizer.ggml.model", STR, model.encode())
    path = tmp_path / "x.gguf"
    path.write_bytes(file.build())
    assert read_header(path).n_vocab == len(TOKENS)
