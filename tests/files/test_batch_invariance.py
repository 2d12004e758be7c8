"""batch_invariance: of which models drafts leave the text exactly as it is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny_models
from helpers.context_tools import one_at_a_time, some_tokens
from helpers.families import Family

from edge_eft.backend import Context, Model
from edge_eft.backend.quantize import quantize
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
        ("m.q8_0-00001-of-00002.gguf", True),
        ("Qwen3-8B-Base.Q4_0.gguf", False),
        ("m-Q8_0_L.gguf", False),
        ("Q8_0.gguf", True),
        ("Qwen3-8B-Base.Q4_K_M.gguf", False),
        ("m.IQ4_NL.gguf", False),
        ("m-TQ2_0.gguf", False),
        ("m-f16.gguf", False),
        ("Qwen3.5-2B-Base.Q8_0.gguf", False),
        ("LFM2-1.2B-Q8_0.gguf", False),
        ("m.gguf", False),
    ],
)
def test_a_name_says_it_where_there_is_no_header(name: str, invariant: bool) -> None:
    assert is_named_batch_invariant(str(Path(name))) is invariant


def test_recurrent_layers_are_not_taken_for_exact(tiny: Family) -> None:
    header = read_header(tiny.base)
    more = {**header.metadata, "llama.ssm.conv_kernel": 4}
    assert not is_batch_invariant(replace(header, metadata=more))


@pytest.mark.parametrize(
    ("kind", "options", "invariant"),
    [
        ("Q8_0", {}, True),
        ("Q4_0", {"output_type": "Q8_0"}, True),
        ("Q5_1", {"output_type": "Q8_0"}, True),
        ("Q4_0", {}, False),
        ("Q4_K_M", {}, False),
    ],
)
def test_where_the_header_says_so_a_block_gives_the_same_bits(
    tmp_path: Path, kind: str, options: dict[str, str], invariant: bool
) -> None:
    source = tiny_models.write_random(tmp_path / "f.gguf", 1, d=256, head_size=64, quantised=False)
    quantize(source, tmp_path / "q.gguf", kind, **options)
    assert is_batch_invariant(read_header(tmp_path / "q.gguf")) is invariant
    if invariant:
        model = Model(tmp_path / "q.gguf")
        tokens = some_tokens(model, 40)
        for n in (4, 8, 15):
            context = Context(model, n_ctx=64, n_outputs=16)
            context.advance({0: (tokens[:-n], 1)})
            block = context.advance({0: (tokens, n)})[0]
            assert np.array_equal(block, one_at_a_time(model, tokens, n))
            context.close()
