"""adapter_check: which adapters are refused, by themselves and beside the model they are put on."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from helpers.gguf_builder import (
    ARR,
    MATRIX,
    STR,
    U16,
    U32,
    File,
    adapter,
    layout,
    refusal,
    with_matrix,
)

from edge_eft.errors import ModelFileError
from edge_eft.files.adapter_check import check_adapter_fits
from edge_eft.files.gguf_check import GGUFHeader, read_header

A, B = MATRIX + b".lora_a", MATRIX + b".lora_b"
PAIR = ((A, (32, 4), 0), (B, (4, 64), 0))
F64, Q8_1 = 28, 9


def with_key(key: bytes, *value: object) -> File:
    file = adapter()
    file.keys[key] = value
    return file


FAULTS = {
    "another type": (with_key(b"adapter.type", STR, b"ia3"), "an adapter of another type"),
    "alpha a whole number": (with_key(b"adapter.lora.alpha", U32, 8), "is of the wrong type"),
    "alpha an array": (
        with_key(b"adapter.lora.alpha", ARR, U32, [8]),
        "is of the wrong type (not float32)",
    ),
    "alpha not a number": (adapter(alpha=math.nan), "adapter.lora.alpha is nan"),
    "alpha infinite": (adapter(alpha=math.inf), "adapter.lora.alpha is inf"),
    "acts behind some tokens alone": (
        with_key(b"adapter.alora.invocation_tokens", ARR, U32, [1]),
        "is an activated LoRA",
    ),
    "in parts": (with_key(b"split.count", U16, 2), "lacks split.no"),
    "b alone": (adapter(PAIR[1]), "lacks the other of its pair"),
    "a alone": (adapter(PAIR[0]), "lacks the other of its pair"),
    "ranks differ": (adapter((A, (32, 4), 0), (B, (8, 64), 0)), "disagrees on its rank"),
    "a norm of its own": (
        adapter(*PAIR, (b"blk.0.attn_norm.weight", (32,), 0)),
        "is not of a LoRA pair",
    ),
    "a name that llama.cpp does not know": (
        adapter(*PAIR, (b"blk.0.attn_q.lora_magnitude", (32,), 0)),
        "is not of a LoRA pair",
    ),
    "float64": (adapter((A, (32, 4), F64), PAIR[1]), "has type F64"),
    "Q8_1": (adapter((A, (32, 4), Q8_1), PAIR[1]), "has type Q8_1"),
    "four dimensions": (adapter((A, (32, 4, 1, 2), 0), PAIR[1]), "has four dimensions"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_adapter_that_is_unsound_in_itself_is_refused(tmp_path: Path, fault: str) -> None:
    file, part = FAULTS[fault]
    assert part in refusal(tmp_path, file.build())


def test_an_adapter_needs_no_tokenizer_and_no_shape_of_a_model(tmp_path: Path) -> None:
    header = written(tmp_path / "x.gguf", with_key(b"llama.block_count", STR, b"not looked at"))
    assert header.is_adapter
    assert (header.n_layer, header.n_vocab) == (0, 0)


def written(path: Path, file: File) -> GGUFHeader:
    path.write_bytes(file.build())
    return read_header(path)


def fault_of(tmp_path: Path, lora: File, model: File) -> str:
    """Why the adapter is not put on the model; "" if it is."""
    headers = (written(tmp_path / "lora.gguf", lora), written(tmp_path / "model.gguf", model))
    try:
        check_adapter_fits(*headers)
    except ModelFileError as error:
        message = str(error)
        assert message.startswith(f"{tmp_path / 'lora.gguf'} does not fit model.gguf: ")
        assert "\n" not in message
        return message
    return ""


def pair_for(name: bytes, n_in: int, n_out: int, *more: int) -> File:
    return adapter(
        (name + b".lora_a", (n_in, 4, *more), 0), (name + b".lora_b", (4, n_out, *more), 0)
    )


EXPERTS = b"blk.0.ffn_up_exps.weight"
MORE = (
    *((b"blk.0.attn_norm.weight", (32,), 0), (b"blk.0.attn_q.bias", (64,), 0)),
    *((EXPERTS, (32, 64, 2), 0), (b"blk.0.attn_k_b.weight", (32, 64), 0)),
    *((b"blk.0.ffn_gate_inp_shexp.weight", (32,), 0), (b"position_embd.weight", (32, 64), 0)),
)


@pytest.mark.parametrize(
    ("name", "shape"),
    [(MATRIX, (32, 64)), (EXPERTS, (32, 64, 2)), (b"blk.0.ffn_gate_inp_shexp.weight", (32, 1))],
)
def test_an_adapter_of_matrix_products_fits(tmp_path, name, shape):
    """Of a mixture's experts too, whose products have a third dimension on both sides."""
    assert fault_of(tmp_path, pair_for(name, *shape), with_matrix(*MORE)) == ""


@pytest.mark.parametrize(
    ("lora", "reason"),
    [
        (pair_for(b"blk.1.attn_q.weight", 32, 64), "which that model lacks; give the model"),
        (pair_for(b"blk.0.attn_norm.weight", 32, 1), "applies no adapter there"),
        (pair_for(b"blk.0.attn_q.bias", 64, 1), "applies no adapter there"),
        (pair_for(b"blk.0.attn_k_b.weight", 32, 64), "applies no adapter there"),
        (pair_for(b"position_embd.weight", 32, 64), "applies no adapter there"),
        (
            pair_for(EXPERTS, 32, 64),
            "lora_a is 32 × 4, but blk.0.ffn_up_exps.weight is 32 × 64 × 2",
        ),
    ],
)
def test_an_adapter_that_would_be_skipped_or_end_the_process_is_refused(tmp_path, lora, reason):
    assert reason in fault_of(tmp_path, lora, with_matrix(*MORE))


@pytest.mark.parametrize("shape", [(64, 64), (32, 32), (32, 64, 2)])
def test_an_adapter_of_other_widths_is_refused(tmp_path, shape):
    lora = written(tmp_path / "lora.gguf", pair_for(MATRIX, *shape))
    model = written(tmp_path / "model.gguf", with_matrix())
    with pytest.raises(
        ModelFileError, match=r"lora_[ab] is .* but blk\.0\.attn_q\.weight is 32 × 64"
    ):
        check_adapter_fits(lora, model)


def test_an_adapter_for_another_architecture_is_refused(tmp_path):
    lora = written(tmp_path / "lora.gguf", with_key(b"general.architecture", STR, b"qwen2"))
    model = written(tmp_path / "model.gguf", with_matrix())
    with pytest.raises(ModelFileError, match="it is for a qwen2, not a llama"):
        check_adapter_fits(lora, model)


def test_a_tied_head_takes_no_adapter_and_the_reason_is_said(tmp_path):
    """On the embeddings it would act on the head as well, in the shape of a look-up: an abort."""
    head = pair_for(b"output.weight", 32, 4)
    embeddings = adapter(
        (b"token_embd.weight.lora_a", (2, 4), 0), (b"token_embd.weight.lora_b", (2, 32), 0)
    )
    assert "head is its embeddings (tied)" in fault_of(tmp_path, head, with_matrix())
    assert "head as well (tied)" in fault_of(tmp_path, embeddings, with_matrix())
    untied = with_matrix((b"output.weight", (32, 4), 0))
    assert fault_of(tmp_path, head, untied) == ""
    assert fault_of(tmp_path, embeddings, untied) == ""
    product = pair_for(b"token_embd.weight", 32, 4)
    with pytest.raises(ModelFileError, match="disagrees on its rank"):
        written(tmp_path / "lora.gguf", product)


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        (b"deepseek2", b"blk.0.attn_q.weight"),
        (b"deepseek2", b"output.weight"),
        (b"minicpm3", b"blk.0.attn_q_a.weight"),
        (b"gemma3n", b"per_layer_model_proj.weight"),
        (b"deepseek2-ocr", b"output.weight"),
        (b"deepseek4", b"blk.0.attn_output_a.weight"),
        (b"graniteswitch", b"blk.0.attn_qkv.weight"),
    ],
)
def test_architectures_whose_products_pass_over_adapters_are_known(tmp_path, architecture, name):
    files = [pair_for(name, 32, 64), File(tensors=layout((name, (32, 64), 0)))]
    for file in files:
        file.keys = {k.replace(b"llama.", architecture + b"."): v for k, v in file.keys.items()}
        file.keys[b"general.architecture"] = (STR, architecture)
    assert f"no adapter there in a {architecture.decode()}" in fault_of(tmp_path, *files)
