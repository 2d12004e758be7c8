"""report: medians, quartiles and ratios."""

import numpy as np
import pytest

from edge_eft.bench.report import quartiles, ratio


def test_quartiles_and_ratios_are_robust_to_noise():
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (3.0, 2.0, 4.0)
    rng = np.random.default_rng(1)
    noise = (1 + 0.01 * rng.standard_normal((2, 50))).tolist()
    about = ratio([2 * value for value in noise[0]], noise[1])
    assert about["low"] < about["median"] < about["high"]
    assert about == {name: pytest.approx(2.0, rel=0.02) for name in ("median", "low", "high")}
