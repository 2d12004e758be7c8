"""common: rows in the shared vocabulary: cut to its width, ends merged, ids masked."""

import math

import numpy as np
import pytest
from helpers.logit_rows import (
    CHAT_WIDTHS,
    ENDS,
    ONE,
    ROLES,
    SMALL,
    UPSCALE,
    WIDTHS,
    combine,
    log_probabilities,
    random_rows,
)
from hypothesis import given
from hypothesis import strategies as st

from edge_eft.logits.combiner import Combiner
from edge_eft.logits.weights import Weights

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

seeds = st.integers(0, 2**32 - 1)


def test_rows_are_cut_to_the_common_width():
    rows = {"base": [[1, 2, np.nan]], "tuned:chat": [[1, 1]], "reference:chat": [[0, 1, 9, 9]]}
    assert combine(rows, UPSCALE, Combiner(2)).tolist() == [[2, 2]]


def test_ends_of_a_role_are_added_up_and_the_others_masked():
    combiner = Combiner(4, 1, {"base": np.array([1, 3, 5])}, np.array([3]))
    row = np.log([[0.1, 0.2, 0.3, 0.15, 0.0625, 0.05]])
    got = np.exp(combine({"base": row}, {"base": 1.0}, combiner))
    assert got == pytest.approx(np.array([[0.1, 0.4, 0.3, 0]]), abs=1e-6)


@given(seeds, st.sampled_from(list(WIDTHS)))
def test_merging_keeps_the_mass_of_a_single_role(seed, role):
    """Tokens keep their probabilities relative to one another and to the end as a whole."""
    rows = random_rows(seed, {role: 320})
    ends = ENDS[role]
    combiner = Combiner(300, 2, ENDS, np.setdiff1d(ends[ends < 300], [2]))
    got = np.exp(log_probabilities(rows, {role: 1.0}, combiner))
    known = np.union1d(np.arange(300), ends)
    known = known if 2 in ends else np.setdiff1d(known, [2])
    whole = np.exp(rows[role].astype(np.float64))
    mass = whole / whole[:, known].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(got[:, 2], mass[:, ends].sum(axis=1), atol=1e-5)
    others = np.setdiff1d(np.arange(300), [2, *ends])
    np.testing.assert_allclose(got[:, others], mass[:, others], atol=1e-5)
    assert got.sum(axis=1) == pytest.approx(np.ones(3), abs=1e-5)


@pytest.mark.parametrize("tuned_end", [2, 3, 4, 9], ids="the tuned model ends with {}".format)
def test_a_reply_ends_when_the_tuned_side_ends_with_another_id(tuned_end):
    """The base gives the tuned model's end token next to nothing; the delta is worth +6."""
    n_vocab = 5
    tuned_row = np.zeros(10)
    tuned_row[tuned_end] = 6
    rows = {
        "base": [[1, 0, 0, -30, -30, 0, 0, 0, 0, -30]],
        "tuned:chat": [tuned_row],
        "reference:chat": [[0.0] * 10],
    }
    ends = {"base": [2], "tuned:chat": [tuned_end], "reference:chat": [2]}
    ends = {role: np.array(ids, np.int32) for role, ids in ends.items()}
    masked = np.array([tuned_end] if tuned_end in (3, 4) else [], np.int32)
    out = combine(rows, UPSCALE, Combiner(n_vocab, 2, ends, masked))
    assert out[0].argmax() == 2
    assert out[0, 2] == 6
    assert np.isneginf(out[0, masked]).all()


def test_a_role_without_end_tokens_gives_the_slot_its_own_value():
    ends = {"base": np.array([1, 2]), "tuned:chat": np.array([], np.int32)}
    rows = SMALL | {"base": [[1, 2, 2]]}
    out = combine(rows, UPSCALE, Combiner(3, 2, ends, np.array([1])))
    assert out[0].tolist() == pytest.approx([0, -math.inf, 2 + math.log(2) - 2 + 1])


def test_end_tokens_that_every_role_shares_change_nothing():
    combiner = Combiner(3, 2, {role: np.array([2]) for role in ROLES})
    assert np.array_equal(combine(SMALL, UPSCALE, combiner), combine(SMALL, UPSCALE))


def test_masked_ids_are_minus_infinity_in_every_row_and_mode():
    rows = random_rows(0, CHAT_WIDTHS)
    combiner = Combiner(500, masked=np.array([0, 499]))
    for coefficients, conservative in (
        (UPSCALE, None),
        (UPSCALE, 0.9),
        (Weights.only("reference").coefficients(ONE), None),
    ):
        out = combine(rows, coefficients, combiner, conservative)
        assert np.isneginf(out[:, [0, 499]]).all()
        assert np.isfinite(out[:, 1:499]).all()


def test_an_end_slot_is_excluded_only_if_all_ends_of_a_role_are():
    combiner = Combiner(3, 2, {role: np.array([1, 2]) for role in ROLES}, np.array([1]))
    for role in ROLES:
        rows = {r: np.zeros((1, 3)) for r in ROLES}
        rows[role][0, 2] = -np.inf
        by_hand = sum(UPSCALE[r] * math.log(2) for r in ROLES if r != role)
        assert combine(rows, UPSCALE, combiner)[0, 2] == pytest.approx(by_hand)
        rows[role][0, 1] = -np.inf
        assert np.isneginf(combine(rows, UPSCALE, combiner)[0, 2])


def test_the_end_may_be_the_only_token_that_is_left():
    inf = math.inf
    rows = {
        "base": [[-inf, -inf, 3]],
        "tuned:chat": [[-inf, 3, -inf]],
        "reference:chat": [[0, 0, 0]],
    }
    ends = {"base": np.array([2]), "tuned:chat": np.array([1]), "reference:chat": np.array([2])}
    out = combine(rows, UPSCALE, Combiner(3, 2, ends, np.array([1])))
    assert out.tolist() == [[-inf, -inf, 6]]
