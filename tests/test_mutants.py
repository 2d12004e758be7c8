"""Mutants of model files: whatever is wrong with one, `edge-eft` runs or says why in one line.

A part of what `helpers/mutant_trials.py` does; its command for 1,200 is in its docstring.
"""

import pytest
from helpers.mutant_trials import in_processes, through_cli
from helpers.mutants import Nursery

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]


def test_no_mutant_ends_the_command_line_without_a_word(tmp_path):
    nursery = Nursery(tmp_path, seed=1)
    outcomes = [through_cli(nursery, number) for number in range(30)]
    assert not [outcome for outcome in outcomes if outcome.fault]
    assert {outcome.kind for outcome in outcomes} >= {"ran", "refused"}


def test_what_a_header_shows_is_refused_before_native_code_dies_of_it(tmp_path):
    """In processes of many mutants; before these checks 3 of 100 of them died."""
    outcomes = list(in_processes(tmp_path, seed=2, numbers=list(range(100))))
    assert len(outcomes) == 100
    assert not [outcome for outcome in outcomes if outcome.fault]
