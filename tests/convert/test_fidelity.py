"""fidelity: its figures against an independent float64 path."""

import numpy as np
import pytest
from helpers.convert_tools import TEXT, convert_quietly, exact_logits
from scipy.special import log_softmax

from edge_eft.backend import Model


@pytest.mark.parametrize("with_base", [False, True])
def test_figures_agree_with_an_independent_float64_path(pair, text, tiny, tmp_path, with_base):
    reference, tuned = pair
    base = tiny.base if with_base else None
    alpha = 0.7 if with_base else 1.0
    outcome = convert_quietly(
        reference, tuned, tmp_path, base=base, text=text, alpha=alpha, type="Q4_0"
    )
    model = Model(reference, vocab_only=True)
    tokens = [model.bos_token, *model.tokenize(TEXT)]
    assert 100 < len(tokens) <= 256
    files = {
        "r": reference, "t": tuned,
        "rq": tmp_path / "pair-reference-Q4_0.gguf", "tq": tmp_path / "pair-tuned-Q4_0.gguf",
    }  # fmt: skip
    rows = {name: exact_logits(path, tokens) for name, path in files.items()}
    delta, delta_q = rows["t"] - rows["r"], rows["tq"] - rows["rq"]
    stand_in = rows["r"] if base is None else exact_logits(base, tokens)
    log_p = log_softmax(stand_in + alpha * delta, axis=1)
    log_q = log_softmax(stand_in + alpha * delta_q, axis=1)
    kl = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    errors = (rows["tq"] - rows["t"]).ravel(), (rows["rq"] - rows["r"]).ravel()
    expected = {
        "kl_mean": kl.mean(),
        "kl_p99": np.quantile(kl, 0.99),
        "top1_agreement": np.mean(log_p.argmax(axis=1) == log_q.argmax(axis=1)),
        "delta_mae": np.abs(delta_q - delta).mean(),
        "delta_correlation": np.corrcoef(delta.ravel(), delta_q.ravel())[0, 1],
        "error_correlation": np.corrcoef(*errors)[0, 1],
    }
    measured = outcome.report.types["Q4_0"]
    assert measured["positions"] == len(tokens)
    assert {k: measured[k] for k in expected} == pytest.approx(expected, rel=0.01, abs=1e-3)


def test_an_unquantised_pair_loses_nothing(pair, text, tmp_path):
    outcome = convert_quietly(*pair, tmp_path, text=text, type="F32")
    figures = outcome.report.types["F32"]
    assert figures["kl_mean"] == 0
    assert figures["top1_agreement"] == 1
    assert figures["delta_correlation"] == pytest.approx(1)
