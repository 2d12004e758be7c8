"""batch_invariance: of which models drafts leave the text exactly as it is."""

from dataclasses import replace
from pathlib import Path

import pytest
from helpers.families import Family

from edge_eft.files.batch_invariance import is_batch_invariant, is_named_batch_invariant
from edge_eft.files.gguf_check import read_header


def test_one_matrix_of_another_type_is_enough(tiny: Family) -> None:
    header = read_header(tiny.base)
    assert is_batch_invariant(header)
    names = [tensor.name for tensor in header.tensors]
    for name, invariant in (
        ("output.weight", False),
        ("blk.0.attn_q.weight", False),
        ("token_embd.weight", "output.weight" in names),  # looked up, unless it is the output, too
        ("output_norm.weight", True),
    ):
        changed = tuple(
            replace(tensor, type="Q6_K") if tensor.name == name else tensor
            for tensor in header.tensors
        )
        if name in names:
            assert is_batch_invariant(replace(header, tensors=changed)) is invariant, name


@pytest.mark.parametrize(
    ("name", "invariant"),
    [
        ("Qwen3-0.6B-Q8_0.gguf", True),
        ("Qwen3-8B-Base.q4_0.gguf", True),
        ("m.Q5_1-00001-of-00002.gguf", True),
        ("Q8_0.gguf", True),
        ("Qwen3-8B-Base.Q4_K_M.gguf", False),
        ("m.IQ4_NL.gguf", False),
        ("m-TQ2_0.gguf", False),
        ("m-f16.gguf", False),
        ("m.Q4_0_4_4.gguf", False),
        ("m.gguf", False),
    ],
)
def test_a_name_says_it_where_there_is_no_header(name: str, invariant: bool) -> None:
    assert is_named_batch_invariant(str(Path(name))) is invariant
