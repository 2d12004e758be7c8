"""combiner: the weighted sum by hand, against float64, its identities, and what is no number."""

import math

import numpy as np
import pytest
from helpers.logit_rows import (
    CHAT_WIDTHS,
    ENDS,
    ONE,
    ROLES,
    SMALL,
    TWO,
    UPSCALE,
    WIDTHS,
    combine,
    log_probabilities,
    random_rows,
)
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, logsumexp

from edge_eft.errors import EngineError, NoTokenError
from edge_eft.logits.combiner import Combiner, log_partition
from edge_eft.logits.weights import Weights

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

strengths = st.floats(0, 2)
seeds = st.integers(0, 2**32 - 1)


# -- The sum, by hand ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (Weights.upscale(), [0, 5, 2]),
        (Weights.upscale(2), [-1, 8, 1]),
        (Weights.upscale(0), [1, 2, 3]),
        (Weights.amplify(3), [0, 7, 10]),
        (Weights.amplify(0), [0, 4, -2]),
        (Weights.only("reference"), [1, 1, -1]),
    ],
)
def test_small_rows_add_up_to_what_is_worked_out_by_hand(weights, expected):
    assert combine(SMALL, weights.coefficients(ONE)).tolist() == [expected]


def test_log_partition_is_the_logarithm_of_the_sum_and_keeps_its_input():
    logits = np.array([[math.log(1), math.log(3)], [-math.inf, 500]], np.float32)
    assert log_partition(logits, np.empty_like(logits)) == pytest.approx([math.log(4), 500])
    assert logits[1, 1] == 500


def test_rows_of_coefficient_zero_are_not_read():
    nan = np.full((1, 3), np.nan)
    only_base = Weights.upscale(0).coefficients(ONE)
    assert combine({"base": [[1, 2, 3]]}, only_base).tolist() == [[1, 2, 3]]
    assert combine(SMALL | {"tuned:chat": nan}, only_base).tolist() == [[1, 2, 3]]
    only_tuned = Weights.amplify(0).coefficients(ONE)
    ends = {role: np.array([1, 2]) for role in ROLES}
    merged = Combiner(3, 2, ends, np.array([1]))
    assert combine({"tuned:chat": [[1, 2, 3]]}, only_tuned, merged)[0, 0] == 1
    assert combine({"tuned:chat": [[1, 2, 3]]}, only_tuned, conservative=0.9).shape == (1, 3)


# -- Against float64 -----------------------------------------------------------------------------

MASKED = np.array([3, 17, 40], np.int32)
PLAIN = Combiner(300)
MERGING = Combiner(300, 2, ENDS, MASKED)


def prepared64(role, row, combiner):
    """One model's row in float64, as the combination is to see it."""
    row = row.astype(np.float64)
    cut = row[:, : combiner.n_vocab].copy()
    if combiner.end_token is not None:
        cut[:, combiner.end_token] = logsumexp(row[:, combiner.end_tokens[role]], axis=1)
    cut[:, combiner.masked] = -np.inf
    return cut


def combined64(rows, coefficients, combiner):
    total = np.zeros((len(rows["base"]), combiner.n_vocab))
    for role, coefficient in coefficients.items():
        if coefficient:
            cut = prepared64(role, rows[role], combiner)
            total += coefficient * np.where(np.isneginf(cut), 0, cut)
            total[np.isneginf(cut)] = -np.inf
    return log_softmax(total, axis=1)


def nucleus64(log_p, top_p):
    """The set of tokens; asserts that rounding cannot decide it."""
    chosen, mass = set(), 0.0
    for token in sorted(range(len(log_p)), key=lambda token: (-log_p[token], token)):
        assert abs(mass - top_p) > 2e-6
        if mass >= top_p:
            break
        chosen.add(token)
        mass += math.exp(log_p[token])
    return chosen


def conservative64(rows, coefficients, combiner, tuned, top_p):
    log_p = {
        role: log_softmax(prepared64(role, rows[role], combiner), axis=1)
        for role, coefficient in coefficients.items()
        if coefficient
    }
    scores = log_p[tuned].copy()
    for i, row in enumerate(log_p[tuned]):
        for token in nucleus64(row, top_p):
            scores[i, token] = sum(coefficients[role] * log_p[role][i, token] for role in log_p)
    return log_softmax(scores, axis=1)


def assert_close(got, expected):
    assert np.array_equal(np.isneginf(got), np.isneginf(expected))
    kept = np.isfinite(expected)
    np.testing.assert_allclose(got[kept], expected[kept], rtol=0, atol=1e-4)


MODES = [
    Weights.upscale(),
    Weights.upscale(0),
    Weights.upscale(0.3),
    Weights.upscale(1.8),
    Weights.amplify(1.0),
    Weights.amplify(1.5),
    Weights.amplify(0),
    Weights.interpolate({"help": 0.7, "safe": 0.3}),
    Weights.interpolate({"help": 1.5, "safe": 2}, alpha=0.4),
    Weights.amplify(1.3, {"help": 0.5, "safe": 0.25}),
    *(Weights.only(role) for role in WIDTHS),
]


@pytest.mark.parametrize("combiner", [PLAIN, MERGING], ids=["plain", "merging"])
@pytest.mark.parametrize("weights", MODES, ids=str)
def test_all_modes_agree_with_float64(weights, combiner):
    coefficients = weights.coefficients(TWO)
    for seed in range(5):
        rows = random_rows(seed, WIDTHS)
        got = log_probabilities(rows, coefficients, combiner)
        assert_close(got, combined64(rows, coefficients, combiner))


@pytest.mark.parametrize("combiner", [PLAIN, MERGING], ids=["plain", "merging"])
@pytest.mark.parametrize("top_p", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize(
    "weights", [Weights.upscale(), Weights.amplify(1.5), Weights.amplify(0)], ids=str
)
def test_conservative_decoding_agrees_with_float64(weights, top_p, combiner):
    coefficients = weights.coefficients({"help": 1.0})
    for seed in range(10, 15):
        rows = random_rows(seed, WIDTHS)
        got = log_probabilities(rows, coefficients, combiner, top_p)
        assert_close(got, conservative64(rows, coefficients, combiner, "tuned:help", top_p))


@given(seeds, strengths, st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_any_weights_agree_with_float64(seed, alpha, help_weight, safe_weight, merging):
    mix = {"help": help_weight, "safe": safe_weight}
    coefficients = Weights.interpolate(mix, alpha).coefficients(TWO)
    rows = random_rows(seed, WIDTHS, n_rows=2)
    combiner = MERGING if merging else PLAIN
    expected = combined64(rows, coefficients, combiner)
    assert_close(log_probabilities(rows, coefficients, combiner), expected)


@given(seeds, strengths)
def test_a_constant_added_to_a_row_changes_nothing(seed, beta):
    rows = random_rows(seed, WIDTHS)
    shifted = {role: row + np.float32(i - 2) for i, (role, row) in enumerate(rows.items())}
    coefficients = Weights.amplify(beta).coefficients(TWO)
    got = log_probabilities(shifted, coefficients, MERGING)
    assert_close(got, log_probabilities(rows, coefficients, MERGING).astype(np.float64))


@given(seeds, st.sampled_from([None, 0.9]))
def test_several_rows_give_what_each_gives_alone(seed, conservative):
    rows = random_rows(seed, WIDTHS)
    coefficients = Weights.amplify(1.5).coefficients({"help": 1.0})
    together = combine(rows, coefficients, MERGING, conservative)
    for i in range(3):
        alone = {role: row[i : i + 1] for role, row in rows.items()}
        assert np.array_equal(combine(alone, coefficients, MERGING, conservative)[0], together[i])


# -- Identities ----------------------------------------------------------------------------------


@given(seeds, strengths)
def test_one_delta_keeps_the_papers_identities(seed, alpha):
    rows = random_rows(seed, CHAT_WIDTHS)
    base, tuned = rows["base"], rows["tuned:chat"]

    nothing = Weights.upscale(0).coefficients(ONE)
    assert np.array_equal(combine(rows, nothing), base)

    untuned = rows | {"reference:chat": tuned}
    got = log_probabilities(untuned, Weights.upscale(alpha).coefficients(ONE))
    np.testing.assert_allclose(got, log_softmax(base, axis=1), rtol=0, atol=1e-4)

    same_size = rows | {"reference:chat": base}
    got = log_probabilities(same_size, UPSCALE)
    np.testing.assert_allclose(got, log_softmax(tuned, axis=1), rtol=0, atol=1e-4)

    assert np.array_equal(
        combine(rows, Weights.amplify(1).coefficients(ONE)), combine(rows, UPSCALE)
    )


@given(seeds)
def test_interpolation_wholly_to_one_side_is_that_delta_alone(seed):
    rows = random_rows(seed, WIDTHS)
    del rows["tuned:safe"], rows["reference:safe"]
    mixed = Weights.interpolate({"help": 1, "safe": 0}).coefficients(TWO)
    alone = Weights.upscale().coefficients({"help": 1.0})
    assert np.array_equal(combine(rows, mixed, MERGING), combine(rows, alone, MERGING))


# -- −inf, NaN and overflow ----------------------------------------------------------------------


@given(
    seeds,
    st.sets(st.tuples(st.sampled_from(list(WIDTHS)), st.integers(0, 2), st.integers(1, 11))),
)
def test_a_token_is_excluded_iff_a_role_in_use_excludes_it(seed, excluded):
    rows = random_rows(seed, dict.fromkeys(WIDTHS, 12))
    coefficients = Weights.upscale().coefficients(TWO)
    allowed = combine(rows, coefficients)
    for role, i, token in excluded:
        rows[role][i, token] = -np.inf
    out = combine(rows, coefficients)
    expected = np.zeros((3, 12), bool)
    for _, i, token in excluded:
        expected[i, token] = True
    assert np.array_equal(np.isneginf(out), expected)
    assert np.array_equal(out[~expected], allowed[~expected])


@pytest.mark.parametrize("role", ROLES)
def test_conservative_decoding_never_gives_nan_for_excluded_tokens(role):
    rows = random_rows(1, CHAT_WIDTHS)
    top = rows["tuned:chat"].argmax(axis=1)
    for i, token in enumerate(top):
        rows[role][i, token] = -np.inf
    out = combine(rows, Weights.amplify(1.5).coefficients(ONE), conservative=0.9)
    assert np.isneginf(out[np.arange(3), top]).all()
    assert np.isneginf(out).sum() == 3
    assert not np.isnan(out).any()


@pytest.mark.parametrize(
    "combiner", [Combiner(12), Combiner(12, 5, {role: [5, 6] for role in ROLES})]
)
@pytest.mark.parametrize("conservative", [None, 0.9])
@pytest.mark.parametrize("role", ROLES)
def test_nan_names_the_model_and_the_token(role, conservative, combiner):
    rows = random_rows(2, dict.fromkeys(ROLES, 12))
    rows[role][1, 7] = np.nan
    with pytest.raises(EngineError, match=rf"{role}.*NaN.* 7\b"):
        combine(rows, UPSCALE, combiner, conservative)


def test_nan_is_found_below_another_roles_exclusion():
    rows = random_rows(2, dict.fromkeys(ROLES, 12))
    rows["base"][0, 7] = -np.inf
    rows["reference:chat"][0, 7] = np.nan
    with pytest.raises(EngineError, match="reference:chat"):
        combine(rows, UPSCALE)


@pytest.mark.parametrize(
    "role",
    [
        "base",
        "tuned:chat",
        pytest.param("reference:chat"),
    ],
)
def test_plus_infinity_names_the_model(role):
    rows = random_rows(2, dict.fromkeys(ROLES, 12))
    rows[role][2, 3] = np.inf
    with pytest.raises(EngineError, match=rf"{role}.*\+inf.* 3\b"):
        combine(rows, UPSCALE)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_in_an_end_token_beyond_the_common_width_names_the_model(bad):
    rows = random_rows(2, dict.fromkeys(ROLES, 14))
    rows["tuned:chat"][0, 13] = bad
    ends = {role: np.array([2, 13]) for role in ROLES}
    with pytest.raises(EngineError, match="tuned:chat"):
        combine(rows, UPSCALE, Combiner(12, 2, ends))


@pytest.mark.parametrize("conservative", [None, 0.9])
def test_a_model_that_excludes_everything_is_an_error(conservative):
    rows = random_rows(2, dict.fromkeys(ROLES, 12))
    rows["base"][1] = -np.inf
    with pytest.raises(NoTokenError, match="excluded"):
        combine(rows, UPSCALE, conservative=conservative)


def test_a_row_of_which_only_masked_ids_are_left_is_an_error():
    with pytest.raises(NoTokenError, match="excluded"):
        combine({"base": [[-np.inf, 1]]}, {"base": 1.0}, Combiner(2, masked=np.array([1])))


def test_a_nucleus_that_the_base_excludes_wholly_is_an_error():
    inf = math.inf
    rows = {
        "base": [[-inf, -inf, 0]],
        "tuned:chat": [[0, 0, -inf]],
        "reference:chat": [[0, 0, 0]],
    }
    with pytest.raises(NoTokenError, match="excluded"):
        combine(rows, UPSCALE, conservative=0.99)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("base", "conservative"),
    [
        ([0, 0, 9], None),
        ([-9, -9, -9], None),
    ],
)
def test_a_sum_beyond_float32_is_an_error(base, conservative):
    rows = {"base": [base], "tuned:chat": [[1, 2, 3]], "reference:chat": [[0, 0, 0]]}
    coefficients = Weights.amplify(1e38).coefficients(ONE)
    with pytest.raises(NoTokenError, match="float32"):
        combine(rows, coefficients, conservative=conservative)


# -- Conservative decoding -----------------------------------------------------------------------


def test_conservative_decoding_reweights_inside_the_nucleus_only():
    """S = {0, 1}: .2·.6/.5 = .24 and .3·.3/.25 = .36 inside, .1 outside."""
    rows = {
        "base": np.log([[0.2, 0.3, 0.5]]) + 3,
        "tuned:chat": np.log([[0.6, 0.3, 0.1]]) - 2,
        "reference:chat": np.log([[0.5, 0.25, 0.25]]) + 1,
    }
    got = np.exp(log_probabilities(rows, UPSCALE, conservative=0.8))
    assert got == pytest.approx(np.array([[0.24, 0.36, 0.1]]) / 0.7, abs=1e-5)


def test_ties_at_the_edge_of_the_nucleus_go_to_the_lower_id():
    rows = {
        "base": [[0, 1, 2, 3]],
        "tuned:chat": [[5, 5, 5, 5]],
        "reference:chat": [[1, 0, 0, 1]],
    }
    log_p = {role: log_softmax(np.array(row, float), axis=1) for role, row in rows.items()}
    outside = log_p["tuned:chat"]
    inside = log_p["base"] + outside - log_p["reference:chat"]
    expected = np.concatenate([inside[:, :2], outside[:, 2:]], axis=1)
    got = combine(rows, UPSCALE, conservative=0.4)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_nucleus_of_all_mass_is_plain_emulation():
    rows = random_rows(3, CHAT_WIDTHS)
    got = log_probabilities(rows, UPSCALE, conservative=1.0)
    np.testing.assert_allclose(got, log_probabilities(rows, UPSCALE), rtol=0, atol=1e-4)
