"""bare: decodes outside the bookkeeping leave no trace in what comes later."""

import numpy as np
import pytest
from helpers.families import Family
from helpers.tiny_hybrids import GOING_BACK, write_hybrid

from edge_eft.backend import CACHE_LADDER, Context, Model
from edge_eft.backend.bare import Bare


@pytest.mark.parametrize("architecture", ["llama", *GOING_BACK])
def test_bare_decodes_leave_no_trace(architecture, tiny: Family, folder):
    """The owner's bookkeeping knows nothing of them, so it must not be trusted afterwards."""
    path, goes_back = tiny.base, architecture == "llama"
    if not goes_back:
        path = write_hybrid(folder / f"{architecture}.gguf", 0, architecture)
    model = Model(path)
    bare = Bare(model, n_ctx=64, n_threads=1, n_outputs=8, cache=CACHE_LADDER[0], n_rs_seq=7)
    prompt, longer = [1, 280, 300], [1, 280, 300, 301]
    expected = {}
    for ids in (prompt, longer):
        context = Context(model, n_ctx=64, n_outputs=8)
        expected[len(ids)] = context.advance({0: (np.array(ids, np.int32), 1)})[0][0].copy()
    for ids in (prompt, prompt, longer, prompt, longer):
        assert np.array_equal(bare.start(ids), expected[len(ids)])
        assert bare.decode_each([310, 311, 312]) > 0
        if goes_back:
            bare.take_back(1)
        for _ in range(2):
            assert bare.decode_block([320, 321, 322, 323]) > 0
    bare.close()
