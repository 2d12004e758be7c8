import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, logsumexp

from edge_eft.errors import EngineError, RequestError
from edge_eft.logits.combiner import Combiner, log_partition
from edge_eft.logits.weights import Weights, resolve_role

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

ONE = {"chat": 1.0}
TWO = {"help": 1.0, "safe": 0.5}
UPSCALE = Weights.upscale().coefficients(ONE)
ROLES = ("base", "tuned:chat", "reference:chat")

strengths = st.floats(0, 2)
seeds = st.integers(0, 2**32 - 1)


def combine(rows, coefficients, combiner=None, conservative=None):
    """Combined rows from read-only models' rows and used buffers."""
    rows = {role: np.atleast_2d(np.array(row, np.float32)) for role, row in rows.items()}
    for row in rows.values():
        row.setflags(write=False)
    first = next(iter(rows.values()))
    combiner = combiner or Combiner(first.shape[-1])
    out = np.full((len(first), combiner.n_vocab), np.nan, np.float32)
    scratch = np.full_like(out, np.nan)
    if conservative is None:
        got = combiner.combine(rows, coefficients, out=out, scratch=scratch)
    else:
        tuned = next(role for role in coefficients if role.startswith("tuned"))
        got = combiner.combine_conservative(
            rows, coefficients, tuned, conservative, out=out, scratch=scratch
        )
    assert got is out
    return out


def log_probabilities(rows, coefficients, combiner=None, conservative=None):
    out = combine(rows, coefficients, combiner, conservative)
    return out - log_partition(out, np.empty_like(out))[:, None]


def random_rows(seed, widths, n_rows=3):
    """role → logits of a model's usual size, each with an offset of its own."""
    rng = np.random.default_rng(seed)
    return {
        role: (rng.normal(0, 4, (n_rows, width)) + rng.normal(0, 10)).astype(np.float32)
        for role, width in widths.items()
    }


# -- Weights: coefficients worked out by hand ----------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "deltas", "expected"),
    [
        (Weights(), ONE, (1, 1, -1)),
        (Weights.upscale(), ONE, (1, 1, -1)),
        (Weights.upscale(0.25), ONE, (1, 0.25, -0.25)),
        (Weights.upscale(0), ONE, (1, 0, 0)),
        (Weights.upscale(3), {"chat": 0.5}, (1, 1.5, -1.5)),
        (Weights.amplify(1), ONE, (1, 1, -1)),
        (Weights.amplify(1.5), ONE, (1.5, 1, -1.5)),
        (Weights.amplify(0), ONE, (0, 1, 0)),
        (Weights.amplify(2), {"chat": 0.5}, (2, 0.5, -1)),
        (Weights.only("base"), ONE, (1, 0, 0)),
        (Weights.only("tuned"), ONE, (0, 1, 0)),
        (Weights.only("reference:chat"), ONE, (0, 0, 1)),
        (Weights.only("tuned"), {"chat": 0.0}, (0, 1, 0)),
        (Weights.upscale(), TWO, (1, 1, -1, 0.5, -0.5)),
        (Weights.upscale(2), TWO, (1, 2, -2, 1, -1)),
        (Weights.amplify(2), TWO, (2, 1, -2, 0.5, -1)),
        (Weights.interpolate({"help": 0.75, "safe": 0.25}), TWO, (1, 0.75, -0.75, 0.25, -0.25)),
        (Weights.interpolate({"help": 2, "safe": 3}), TWO, (1, 2, -2, 3, -3)),
        (Weights.interpolate({"safe": 1}), TWO, (1, 0, 0, 1, -1)),
        (Weights.interpolate({"help": 0.5}, alpha=3), TWO, (1, 1.5, -1.5, 0, 0)),
        (Weights.amplify(2, {"help": 0.25, "safe": 3}), TWO, (2, 0.25, -0.5, 3, -6)),
        (Weights.only("reference:safe"), TWO, (0, 0, 0, 0, 1)),
        (Weights.only("tuned"), {"help": 0.0, "safe": 0.5}, (0, 0, 0, 1, 0)),
    ],
)
def test_coefficients(weights, deltas, expected):
    roles = ["base", *(f"{side}:{name}" for name in deltas for side in ("tuned", "reference"))]
    assert weights.coefficients(deltas) == dict(zip(roles, expected, strict=True))


@pytest.mark.parametrize("value", [-1e-9, -1, math.nan, math.inf, -math.inf, True, "1", [1]])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (Weights.upscale, "alpha"),
        (lambda value: Weights.interpolate({"chat": 1}, alpha=value), "alpha"),
        (Weights.amplify, "beta"),
        (lambda value: Weights.interpolate({"chat": value}), "'chat'"),
        (lambda value: Weights.amplify(1.0, {"chat": value}), "'chat'"),
    ],
)
def test_strengths_that_are_no_finite_number_from_zero_up_are_refused(make, name, value):
    with pytest.raises(RequestError, match=name):
        make(value)


def test_an_integer_beyond_every_float_is_refused():
    with pytest.raises(RequestError, match="alpha"):
        Weights.upscale(10**400)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Weights(alpha=0.5, beta=1.5),
        lambda: Weights.from_dict({"alpha": 2, "beta": 1}),
        lambda: Weights(role="base", alpha=0.5),
        lambda: Weights(role="base", beta=1.5),
        lambda: Weights(role="base", mix={"chat": 1}),
        lambda: Weights.interpolate({}),
        lambda: Weights.interpolate([("chat", 1)]),
        lambda: Weights.only(3),
        lambda: Weights.upscale(None),
        lambda: Weights.interpolate({"chat": None}),
    ],
)
def test_contradictory_or_malformed_weights_are_refused(make):
    with pytest.raises(RequestError):
        make()


@pytest.mark.parametrize(
    "weights",
    [
        Weights.interpolate({"help": 1, "nobody": 0}),
        Weights.amplify(1, {"nobody": 1}),
        Weights.only("nobody"),
        Weights.only("tuned:nobody"),
    ],
)
def test_a_name_that_the_recipe_lacks_is_named_with_those_it_has(weights):
    with pytest.raises(RequestError, match=r"nobody.*help.*safe"):
        weights.coefficients(TWO)


def test_weights_that_leave_no_model_are_refused():
    with pytest.raises(RequestError):
        Weights.amplify(0, {"chat": 0}).coefficients(ONE)


def test_short_role_names_stand_for_the_only_delta_or_none():
    assert resolve_role("tuned", ONE) == "tuned:chat"
    assert resolve_role("reference", {"a": 0.0, "b": 2.0}) == "reference:b"
    assert resolve_role("tuned:safe", TWO) == "tuned:safe"
    for role, deltas in (("tuned", TWO), ("reference", {"a": 0.0, "b": 0.0}), ("tuned", {})):
        with pytest.raises(RequestError, match=role):
            resolve_role(role, deltas)


@pytest.mark.parametrize(
    ("weights", "plain"),
    [
        (Weights.upscale(), {}),
        (Weights.upscale(0), {"alpha": 0.0}),
        (Weights.amplify(1.5), {"beta": 1.5}),
        (Weights.amplify(0, {"a": 2}), {"beta": 0.0, "mix": {"a": 2.0}}),
        (
            Weights.interpolate({"a": 0.7, "b": 0.3}, 0.5),
            {"alpha": 0.5, "mix": {"a": 0.7, "b": 0.3}},
        ),
        (Weights.only("base"), {"only": "base"}),
    ],
)
def test_weights_survive_json(weights, plain):
    assert weights.to_dict() == plain
    assert Weights.from_dict(json.loads(json.dumps(plain))) == weights


def test_from_dict_names_an_unknown_key():
    with pytest.raises(RequestError, match="gamma"):
        Weights.from_dict({"alpha": 1, "gamma": 2})


def test_a_mix_cannot_change_after_it_was_checked():
    mix = {"chat": 1.0}
    weights = Weights.interpolate(mix)
    mix["chat"] = -1.0
    assert weights.coefficients(ONE) == UPSCALE


@pytest.mark.parametrize(
    ("weights", "deltas", "tuned"),
    [
        (Weights.upscale(), ONE, "tuned:chat"),
        (Weights.amplify(1.5), ONE, "tuned:chat"),
        (Weights.amplify(0), ONE, "tuned:chat"),
        (Weights.upscale(), {"help": 0.0, "safe": 1.0}, "tuned:safe"),
        (Weights.interpolate({"help": 1}), TWO, "tuned:help"),
    ],
)
def test_conservative_decoding_takes_its_nucleus_from_the_one_tuned_role(weights, deltas, tuned):
    assert weights.conservative_role(deltas) == tuned


@pytest.mark.parametrize(
    ("weights", "deltas"),
    [
        (Weights.upscale(0.9), ONE),
        (Weights.upscale(0), ONE),
        (Weights.upscale(2), {"chat": 0.5}),
        (Weights.amplify(1.5), {"chat": 0.5}),
        (Weights.upscale(), {"help": 1.0, "safe": 1.0}),
        (Weights.interpolate({"help": 0.5, "safe": 0.5}), TWO),
        (Weights.only("tuned"), ONE),
        (Weights.only("base"), ONE),
    ],
)
def test_conservative_decoding_is_refused_where_it_is_not_defined(weights, deltas):
    with pytest.raises(RequestError, match="conservative"):
        weights.conservative_role(deltas)


# -- The sum, by hand ----------------------------------------------------------------------------

SMALL = {"base": [[1, 2, 3]], "tuned:chat": [[0, 4, -2]], "reference:chat": [[1, 1, -1]]}


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
def test_sum_of_small_rows(weights, expected):
    assert combine(SMALL, weights.coefficients(ONE)).tolist() == [expected]


def test_log_partition():
    logits = np.array([[math.log(1), math.log(3)], [-math.inf, 500]], np.float32)
    assert log_partition(logits, np.empty_like(logits)) == pytest.approx([math.log(4), 500])
    assert logits[1, 1] == 500


def test_rows_are_cut_to_the_common_width():
    rows = {"base": [[1, 2, np.nan]], "tuned:chat": [[1, 1]], "reference:chat": [[0, 1, 9, 9]]}
    assert combine(rows, UPSCALE, Combiner(2)).tolist() == [[2, 2]]


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

WIDTHS = {
    "base": 300,
    "tuned:help": 308,
    "reference:help": 300,
    "tuned:safe": 304,
    "reference:safe": 320,
}
ENDS = {
    "base": np.array([2], np.int32),
    "tuned:help": np.array([3, 40, 305], np.int32),
    "reference:help": np.array([2], np.int32),
    "tuned:safe": np.array([302], np.int32),
    "reference:safe": np.array([2, 3], np.int32),
}
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
def test_constants_of_a_row_cancel(seed, beta):
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

CHAT_WIDTHS = dict.fromkeys(ROLES, 500)


@given(seeds, strengths)
def test_identities_of_one_delta(seed, alpha):
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


# -- End tokens and masks ------------------------------------------------------------------------


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
    with pytest.raises(EngineError, match="excluded"):
        combine(rows, UPSCALE, conservative=conservative)


def test_a_row_of_which_only_masked_ids_are_left_is_an_error():
    with pytest.raises(EngineError, match="excluded"):
        combine({"base": [[-np.inf, 1]]}, {"base": 1.0}, Combiner(2, masked=np.array([1])))


def test_a_nucleus_that_the_base_excludes_wholly_is_an_error():
    inf = math.inf
    rows = {
        "base": [[-inf, -inf, 0]],
        "tuned:chat": [[0, 0, -inf]],
        "reference:chat": [[0, 0, 0]],
    }
    with pytest.raises(EngineError, match="excluded"):
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
    with pytest.raises(EngineError, match="float32"):
        combine(rows, coefficients, conservative=conservative)


# -- Conservative decoding -----------------------------------------------------------------------


def test_conservative_by_hand():
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
