"""cost_model: expected seconds by hand and by enumeration."""

import itertools

import numpy as np
import pytest

from edge_eft.bench.cost_model import CostModel


def test_the_cost_model_gives_what_is_worked_out_by_hand():
    costs = CostModel(1.0, [{1: 10.0, 2: 12.0, 4: 20.0}, {1: 1.0, 2: 1.0, 4: 2.0}])
    assert costs.step() == 12
    assert costs.block(1) == 2 + 12 + 1
    assert costs.block(3) == 4 + 20 + 2
    assert costs.block(2) == 3 + 16 + 1.5, "interpolated"
    assert costs.endless_rate(0.5, 1) == 1.5 / 15
    assert costs.endless_rate(1.0, 3) == 4 / 26
    assert costs.seconds_of_reply(0.7, 0, 5) == 60
    assert costs.seconds_of_reply(0.0, 1, 5) == 5 * 15, "no draft is ever right"
    assert costs.seconds_of_reply(1.0, 3, 8) == 2 * 26, "two whole blocks"
    assert costs.seconds_of_reply(1.0, 3, 2) == costs.last_block(2) == 2 + 12 + 1
    # One token left: its draft is right, and is the end; or it is wrong, after a whole block.
    assert costs.seconds_of_reply(0.5, 1, 1) == 0.5 * (1 + 10 + 1) + 0.5 * 15


@pytest.mark.parametrize(("acceptance", "k", "n"), [(0.8, 3, 6), (0.5, 2, 7), (0.9, 7, 5)])
def test_expected_seconds_are_the_mean_over_all_outcomes(acceptance: float, k: int, n: int):
    costs = CostModel(1.0, [{1: 10.0, 16: 30.0}])
    total = 0.0
    for right in itertools.product((True, False), repeat=n):
        probability = np.prod([acceptance if each else 1 - acceptance for each in right])
        seconds, at = 0.0, 0
        while at < n:
            block = right[at : at + k]
            n_right = next((j for j, each in enumerate(block) if not each), len(block))
            ends = at + n_right == n
            seconds += costs.last_block(n_right) if ends else costs.block(k)
            at += n_right if ends else n_right + 1
        total += probability * seconds
    assert costs.seconds_of_reply(acceptance, k, n) == pytest.approx(total)


def test_a_long_reply_is_as_fast_as_one_without_end():
    costs = CostModel(1.0, [{1: 20.0, 16: 50.0}])
    assert costs.best_rate(0.8, [2000]) == pytest.approx(costs.best_endless_rate(0.8), rel=0.01)
    assert costs.best_rate(0.8, [3]) < costs.best_endless_rate(0.8)
