"""choose: which type `--type auto` takes."""

import pytest
from helpers.convert_tools import convert_quietly, left_in

from edge_eft.convert import ConversionError


def test_auto_takes_the_smallest_that_is_good_enough(pair, text, tmp_path):
    outcome = convert_quietly(*pair, tmp_path, text=text, type="AUTO", max_kl=0.05)
    report = outcome.report
    assert report.winner["kl_mean"] <= 0.05
    smaller = [f for f in report.types.values() if f["size_bytes"] < report.winner["size_bytes"]]
    assert smaller
    assert all(figures["kl_mean"] > 0.05 for figures in smaller)
    names = [name for name in left_in(tmp_path) if name.endswith(".gguf")]
    assert names == [f"pair-reference-{report.chosen}.gguf", f"pair-tuned-{report.chosen}.gguf"]


def test_auto_takes_the_best_that_fits(pair, text, tmp_path):
    limit = 2 * 100_000
    outcome = convert_quietly(*pair, tmp_path, text=text, type="AUTO", max_bytes=limit)
    assert outcome.report.winner["size_bytes"] <= limit
    fitting = [f for f in outcome.report.types.values() if f["size_bytes"] <= limit]
    assert outcome.report.winner["kl_mean"] == min(f["kl_mean"] for f in fitting)


def test_auto_says_when_nothing_is_good_enough(pair, text, tmp_path):
    with pytest.raises(ConversionError, match="no type reaches a mean KL of 1e-30"):
        convert_quietly(
            *pair, tmp_path / "out", text=text, type="AUTO", max_kl=1e-30, max_bytes=9**6
        )
    assert not (tmp_path / "out").exists()
