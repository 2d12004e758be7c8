"""buffers: against what llama.cpp itself says it would allocate, for published shapes."""

from pathlib import Path

import pytest
from helpers.sparse_models import HYBRIDS, N_VOCAB, SHAPES, Sizes, write_sparse

from edge_eft.files import buffers
from edge_eft.files.gguf_check import read_header

KV_TYPES = {buffers.Q8_0_BYTES: 8, buffers.F16_BYTES: 1}  # as ggml numbers them
CONTEXTS = [
    (n_ctx, n_slots, kv_bytes, flash_attn)
    for n_ctx, n_slots in ((512, 1), (4096, 1), (8192, 1), (512, 4), (4096, 4))
    for kv_bytes, flash_attn in ((34 / 32, True), (2.0, True), (2.0, False))
]


@pytest.mark.parametrize("name", [*SHAPES, *HYBRIDS])
def test_buffers_are_what_llama_cpp_reserves_or_a_little_more(tmp_path: Path, name: str) -> None:
    """Of the graph's buffer 1.00 to 1.15; keys, values and recurrent states exactly."""
    path = write_sparse(tmp_path / "m.gguf", name)
    header, sizes = read_header(path), Sizes(path)
    wrong = []
    for n_ctx, n_slots, kv_bytes, flash_attn in CONTEXTS:
        size = buffers.ContextSize(n_ctx, n_slots, 16 * n_slots, kv_bytes, flash_attn)
        cache, graph = sizes.of(
            n_ctx=n_ctx,
            n_slots=n_slots,
            n_outputs=16 * n_slots,
            kv_type=KV_TYPES[kv_bytes],
            flash_attn=flash_attn,
            n_rs_seq=buffers.n_rs_seq(header),
        )
        ratio = buffers.graph(header, size) / graph
        exact = abs(sum(buffers.layers_kv(header, size)) - cache) < 2**14  # logged to 0.01 MiB
        if not (0.999 <= ratio <= 1.15 and exact):
            wrong.append((size, round(ratio, 3), exact))
    sizes.close()
    assert not wrong


def test_many_rows_of_a_large_vocabulary_are_what_a_graph_holds_most_of(tmp_path: Path) -> None:
    path = write_sparse(tmp_path / "m.gguf", "SmolLM2-135M")
    header, sizes = read_header(path), Sizes(path)
    for n_outputs in (64, 256, 512):
        _, graph = sizes.of(n_ctx=512, n_slots=4, n_outputs=n_outputs, kv_type=8, flash_attn=True)
        size = buffers.ContextSize(512, 4, n_outputs)
        assert 0.999 <= buffers.graph(header, size) / graph <= 1.25
        assert buffers.logits(header, size) == (n_outputs + 1) * N_VOCAB * 4
    sizes.close()
