"""gguf_check: what is read from a header, and which values are refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
from helpers.gguf_builder import (
    ARR,
    BOOL,
    F32,
    F64,
    I32,
    STR,
    TOKENS,
    U8,
    U32,
    File,
    refusal,
    smollm2_path,
    with_key,
    with_tokens,
    without,
)

from edge_eft.files.gguf_check import GGUFArray, read_header


def test_the_tiny_model_as_it_comes_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(File().build())
    header = read_header(path)
    assert header.path == path
    assert header.file_size == path.stat().st_size
    assert (header.version, header.architecture) == (3, "llama")
    assert (header.n_layer, header.n_ctx_train, header.n_vocab) == (2, 64, len(TOKENS))
    assert header.n_parameters == 32 * 4 + 32
    assert header.n_bytes == 136 + 128
    assert header.quantisation == "Q8_0"
    assert header.per_layer("attention.head_count_kv") == (2, 4)
    assert header.per_layer("attention.head_count") == (4, 4)
    assert header.metadata["tokenizer.ggml.tokens"] == GGUFArray("string", len(TOKENS))
    assert [tensor.offset for tensor in header.tensors] == [0, 160]
    assert header.parts == (path,)
    assert not header.is_adapter


def test_the_builder_of_these_tests_writes_what_gguf_reads(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(File().build())
    reader = gguf.GGUFReader(path)
    assert [tensor.name for tensor in reader.tensors] == ["token_embd.weight", "output_norm.weight"]


def test_a_file_written_by_gguf_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(1)
    writer.add_context_length(32)
    writer.add_embedding_length(32)
    writer.add_head_count(2)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b"])
    writer.add_token_merges(["a b"])
    writer.add_tensor("token_embd.weight", np.zeros((2, 32), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_header(path)
    assert header.tensors[0].shape == (32, 2)
    assert header.quantisation == "F16"
    assert header.n_vocab == 2


@pytest.mark.slow
def test_a_published_model_agrees_with_gguf() -> None:
    path = smollm2_path()
    header = read_header(path)
    reader = gguf.GGUFReader(path)
    assert header.architecture == "llama"
    assert (header.n_layer, header.n_vocab, header.n_ctx_train) == (30, 49152, 8192)
    assert header.n_parameters == 134_515_008
    theirs = [
        (tensor.name, tuple(tensor.shape.tolist()), tensor.n_bytes) for tensor in reader.tensors
    ]
    assert [(tensor.name, tensor.shape, tensor.n_bytes) for tensor in header.tensors] == theirs


def moe(**values: int) -> File:
    file = File()
    for key, value in values.items():
        file.keys[f"llama.{key}".encode()] = (U32, value)
    return file


def renamed(architecture: bytes) -> File:
    file = File()
    file.keys = {key.replace(b"llama.", architecture + b"."): v for key, v in file.keys.items()}
    file.keys[b"general.architecture"] = (STR, architecture)
    return file


VALUE_FAULTS = {
    "a diffusion model": (renamed(b"dream"), "is a dream whose tokens look at those to come"),
    "an encoder": (renamed(b"t5"), "is a t5 whose tokens look at those to come"),
    "not causal by its own words": (
        with_key(b"llama.attention.causal", BOOL, False),
        "is a llama whose tokens look at those to come",
    ),
    "no architecture": (without(b"general.architecture"), "lacks general.architecture"),
    "architecture a number": (with_key(b"general.architecture", U32, 1), "lacks general.arch"),
    "architecture not a name": (
        with_key(b"general.architecture", STR, b"lla\x1b[31mma"),
        r"impossible architecture 'lla\x1b[31mma'",
    ),
    "architecture empty": (with_key(b"general.architecture", STR, b""), "impossible architecture"),
    "vision projector": (with_key(b"general.architecture", STR, b"clip"), "vision projector"),
    "no layers stated": (without(b"llama.block_count"), "lacks llama.block_count"),
    "no layers": (with_key(b"llama.block_count", U32, 0), "block_count is 0, outside 1 to 512"),
    "too many layers": (with_key(b"llama.block_count", U32, 513), "block_count is 513, outside"),
    "layers a text": (with_key(b"llama.block_count", STR, b"2"), "block_count is of the wrong"),
    "layers an array": (with_key(b"llama.block_count", ARR, U32, [2]), "(uint32 array, not"),
    "no context": (without(b"llama.context_length"), "lacks llama.context_length"),
    "no embedding": (without(b"llama.embedding_length"), "lacks llama.embedding_length"),
    "absurd embedding": (with_key(b"llama.embedding_length", U32, 1 << 21), "is 2,097,152, outs"),
    "absurd heads": (with_key(b"llama.attention.head_count", U32, 1 << 20), "is 1,048,576, outs"),
    "absurd heads of a layer": (
        with_key(b"llama.attention.head_count_kv", ARR, U32, [2, 1 << 20]),
        "has values outside 0 to 65,536",
    ),
    "heads that are texts": (
        with_key(b"llama.attention.head_count_kv", ARR, STR, [b"2", b"4"]),
        "head_count_kv has values outside 0 to 65,536 or of the wrong type",
    ),
    "experts that are texts": (
        with_key(b"llama.expert_used_count", ARR, STR, [b"2", b"4"]),
        "expert_used_count has values outside 0 to 1,024 or of the wrong type",
    ),
    "heads of a wrong type": (
        with_key(b"llama.attention.head_count_kv", ARR, F32, [2.0, 4.0]),
        "head_count_kv has values outside",
    ),
    "heads for other layers": (
        with_key(b"llama.attention.head_count_kv", ARR, U32, [2, 4, 4]),
        "head_count_kv has 3 values for 2 layers",
    ),
    "heads that do not divide": (
        with_key(b"llama.attention.head_count_kv", U32, 3),
        "4 attention heads are not a multiple of 3",
    ),
    "absurd key length": (
        with_key(b"llama.attention.key_length", U32, 1 << 20),
        "key_length is 1,048,576",
    ),
    "absurd feed-forward": (
        with_key(b"llama.feed_forward_length", U32, 1 << 30),
        "feed_forward_length is 1,073,741,824",
    ),
    "too many experts": (moe(expert_count=1025, expert_used_count=1), "expert_count is 1,025"),
    "more experts used": (moe(expert_count=2, expert_used_count=3), "3 used of 2 experts"),
    "no expert used": (moe(expert_count=2), "0 used of 2 experts"),
    "as many groups as experts": (
        moe(expert_count=2, expert_used_count=1, expert_group_count=2),
        "in 2 groups is impossible",
    ),
    "groups that do not divide": (
        moe(expert_count=8, expert_used_count=1, expert_group_count=3, expert_group_used_count=1),
        "1 of 3 expert groups",
    ),
    "more prediction layers": (moe(nextn_predict_layers=3), "nextn_predict_layers is 3, outside"),
    "rope scaling unknown": (
        with_key(b"llama.rope.scaling.type", STR, b"warp"),
        "unknown rope.scaling.type 'warp'",
    ),
    "no tokenizer": (without(b"tokenizer.ggml.model"), "has no tokenizer"),
    "tokenizer named none": (with_key(b"tokenizer.ggml.model", STR, b"none"), "has no tokenizer"),
    "tokenizer unknown": (
        with_key(b"tokenizer.ggml.model", STR, b"test"),
        "unknown tokenizer 'test'",
    ),
    "no tokens": (without(b"tokenizer.ggml.tokens"), "lacks tokenizer.ggml.tokens"),
    "empty vocabulary": (with_tokens([]), "lacks tokenizer.ggml.tokens"),
    "tokens are numbers": (
        with_key(b"tokenizer.ggml.tokens", ARR, U32, [1]),
        "tokens is of the wrong type (array of uint32",
    ),
    "tokens a text": (
        with_key(b"tokenizer.ggml.tokens", STR, b"a"),
        "tokens is of the wrong type (string",
    ),
    "scores of a wrong type": (
        with_key(b"tokenizer.ggml.scores", ARR, F64, [0.0] * len(TOKENS)),
        "scores is of the wrong type (array of float64",
    ),
    "scores too few": (
        with_key(b"tokenizer.ggml.scores", ARR, F32, [0.0]),
        "scores has 1 values for 261",
    ),
    "token types of a wrong type": (
        with_key(b"tokenizer.ggml.token_type", ARR, U8, [1] * len(TOKENS)),
        "token_type is of the wrong type (array of uint8",
    ),
    "token types too few": (
        with_key(b"tokenizer.ggml.token_type", ARR, I32, [1]),
        "token_type has 1 values for 261",
    ),
    "merges of a wrong type": (
        with_key(b"tokenizer.ggml.merges", ARR, U32, [1]),
        "merges is of the wrong type",
    ),
    "token twice": (with_tokens([*TOKENS, b"a"]), "has the token 'a' more than once"),
    "token twice before a NUL": (
        with_tokens([*TOKENS, b"a\0b"]),
        "has the token 'a' more than once",
    ),
    "empty token named as another": (
        with_tokens([*TOKENS, b"[EMPTY_262]", b""]),
        "has the token '[EMPTY_262]' more than once",
    ),
    "negative byte token": (
        with_tokens([*TOKENS, b"<0x-1>"], [1] * len(TOKENS) + [6]),
        "token 261 is a byte token but reads '<0x-1>'",
    ),
    "short byte token": (
        with_tokens([*TOKENS, b"x"], [1] * len(TOKENS) + [6]),
        "token 261 is a byte token but reads 'x'",
    ),
    "missing byte token": (
        with_tokens([token for token in TOKENS if token != b"<0xE2>"]),
        "has no byte token '<0xE2>'",
    ),
}


@pytest.mark.parametrize("fault", VALUE_FAULTS)
def test_dangerous_values_are_refused(tmp_path: Path, fault: str) -> None:
    file, part = VALUE_FAULTS[fault]
    assert part in refusal(tmp_path, file.build())


def test_one_empty_token_and_no_byte_token_where_none_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(with_tokens([*TOKENS, b""]).build())
    assert read_header(path).n_vocab == len(TOKENS) + 1
    file = with_tokens([b"a", b"b"])
    file.keys[b"tokenizer.ggml.model"] = (STR, b"gpt2")
    path.write_bytes(file.build())
    assert read_header(path).n_vocab == 2


_LOAD = """
import sys
from edge_eft.backend import Model
from edge_eft.errors import ModelFileError
for vocab_only in (True, False):
    try:
        Model(sys.argv[1], vocab_only=vocab_only)
    except ModelFileError as error:
        print(error)
"""


def test_an_unknown_architecture_is_refused_by_the_engine_without_a_crash(tmp_path: Path) -> None:
    """Which architectures there are, the engine knows; here a name is checked for its form only."""
    file = File()
    file.keys = {key.replace(b"llama.", b"mystery."): value for key, value in file.keys.items()}
    file.keys[b"general.architecture"] = (STR, b"mystery")
    path = tmp_path / "x.gguf"
    path.write_bytes(file.build())
    assert read_header(path).architecture == "mystery"
    child = subprocess.run(
        [sys.executable, "-c", _LOAD, str(path)], capture_output=True, text=True, timeout=60
    )
    assert child.returncode == 0, child.stderr
    refusals = child.stdout.splitlines()
    assert len(refusals) == 2
    for line in refusals:
        assert line.startswith(f"llama.cpp cannot load {path}: ")
        assert "unknown model architecture: 'mystery'" in line


@pytest.mark.parametrize("used", [None, 1])
def test_one_expert_of_a_dense_hunyuan_is_none(tmp_path: Path, used: int | None) -> None:
    """llama.cpp forgets about it; it used to be refused where no used experts were stated."""
    file = with_key(b"llama.expert_count", U32, 1)
    if used:
        file.keys[b"llama.expert_used_count"] = (U32, used)
    file.keys = {k.replace(b"llama.", b"hunyuan-dense."): v for k, v in file.keys.items()}
    file.keys[b"general.architecture"] = (STR, b"hunyuan-dense")
    path = tmp_path / "x.gguf"
    path.write_bytes(file.build())
    assert read_header(path).architecture == "hunyuan-dense"
