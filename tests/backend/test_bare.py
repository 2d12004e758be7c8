"""bare: decodes outside the bookkeeping leave no trace in what comes later."""

import numpy as np
from helpers.families import Family

from edge_eft.backend import CACHE_LADDER, Context, Model
from edge_eft.backend.bare import Bare


def test_bare_decodes_leave_no_trace(tiny: Family):
    """The owner's bookkeeping knows nothing of them, so it must not be trusted afterwards."""
    model = Model(tiny.base)
    bare = Bare(model, n_ctx=64, n_threads=1, n_outputs=8, cache=CACHE_LADDER[0])
    prompt, longer = [1, 280, 300], [1, 280, 300, 301]
    expected = {}
    for ids in (prompt, longer):
        context = Context(model, n_ctx=64, n_outputs=8)
        expected[len(ids)] = context.advance({0: (np.array(ids, np.int32), 1)})[0][0].copy()
    for ids in (prompt, prompt, longer, prompt, longer):
        assert np.array_equal(bare.start(ids), expected[len(ids)])
        assert bare.decode_each([310, 311, 312]) > 0
        bare.take_back(1)
        assert bare.decode_block([320, 321, 322, 323]) > 0
    bare.close()
