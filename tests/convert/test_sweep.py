"""sweep: what a pair is measured against."""

from dataclasses import replace

import pytest
from helpers import tiny_models
from helpers.convert_tools import convert_quietly, left_in

from edge_eft.convert import ConversionError
from edge_eft.convert.masters import MasterMaker


def test_a_kept_adapter_is_measured_against_what_peft_merges(pair, text, tmp_path, monkeypatch):
    """An adapter measured against itself would be perfect whatever it does."""
    make, (reference, merged) = MasterMaker.make_kept_adapter, pair
    monkeypatch.setattr(
        MasterMaker, "make_kept_adapter", lambda *given: replace(make(*given), merged=merged)
    )
    adapter = tiny_models.write_adapter(tmp_path / "adapter.gguf")
    outcome = convert_quietly(reference, adapter, tmp_path / "out", text=text, type="F32")
    assert outcome.report.winner["kl_mean"] > 0.1


def test_two_files_of_the_same_weights_are_no_pair(pair, text, tmp_path):
    twin = tmp_path / "twin.gguf"
    tiny_models.write_random(twin, seed=1, quantised=False, chat_template=None)
    assert twin.read_bytes() != pair[0].read_bytes()
    with pytest.raises(ConversionError, match="have the same weights"):
        convert_quietly(pair[0], twin, tmp_path / "out", text=text)
    assert left_in(tmp_path / "out") == []


def test_an_adapter_that_changes_nothing_is_no_delta(pair, text, tmp_path):
    silent = tiny_models.write_adapter(tmp_path / "silent.gguf", loudness=0.0)
    with pytest.raises(ConversionError, match="difference is nothing"):
        convert_quietly(pair[0], silent, tmp_path / "out", text=text, type="AUTO", max_kl=0.1)
