"""verifier: what a step says of its token."""

import json

import numpy as np

from edge_eft import Request
from edge_eft.engine.explain import Explainer
from edge_eft.engine.request_state import RequestState
from edge_eft.engine.verifier import Verifier
from edge_eft.logits.combiner import Combiner
from edge_eft.text.detokenizer import TextStream


def piece(token, special=False):
    return b"x"


def test_a_certain_tokens_log_probability_is_zero_and_not_minus_zero():
    """Where its logit is −0.0, so was the difference to the normaliser, which is 0."""
    rows = {"base": np.array([[-0.0, -200.0, -200.0]], np.float32)}
    combiner = Combiner(3)
    request = Request("x", temperature=0, explain=3)
    state = RequestState(0, request, TextStream(piece), {"base": 1.0})
    (step,) = Verifier(combiner, {}, piece, n_ctx=8).verify(state, rows)
    assert step.logprob == 0
    assert "-0.0" not in json.dumps(step.to_dict())
    combined = rows["base"][0], np.float32(0.0)
    assert "-0.0" not in repr(Explainer(combiner, piece).explain(rows, 0, 0, 3, combined, ()))
