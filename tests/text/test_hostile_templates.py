"""Templates from strangers: none gets out, none costs more than its bounds."""

import pytest
from helpers import hostile_templates as hostile


def test_no_template_gets_out_of_the_sandbox(tmp_path):
    costs = hostile.measure(hostile.ESCAPES, tmp_path)
    got_out = [s for s, c in zip(hostile.ESCAPES, costs, strict=True) if c.outcome != "refused"]
    assert got_out == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_no_template_costs_more_than_a_second_or_200_mb(tmp_path):
    assert len(hostile.LIMITED) >= 150
    costs = hostile.measure(hostile.LIMITED, tmp_path)
    dear = [
        (source[:80], cost)
        for source, cost in zip(hostile.LIMITED, costs, strict=True)
        if cost.outcome not in ("refused", "rendered") or cost.seconds > 1 or cost.megabytes > 200
    ]
    assert dear == []


def test_the_dearest_kinds_are_stopped(tmp_path):
    """A part of the test above that takes seconds, of each kind one."""
    sources = [*hostile.GROWTH[::25], *hostile.WORK[::16], *hostile.PARSING[::15]]
    for cost in hostile.measure(sources, tmp_path):
        assert cost.outcome in ("refused", "rendered")
        assert cost.seconds <= 1
        assert cost.megabytes <= 200
