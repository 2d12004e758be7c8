"""sampling: the order of the options, each by hand, and that the draw is exact."""

import math
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edge_eft.errors import NoTokenError
from edge_eft.logits.sampling import candidates, choose, gumbel, sample
from edge_eft.logits.sampling_params import MAX_SEED, Sampling

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

N_DRAWS = int(os.environ.get("EDGE_EFT_TEST_DRAWS", "30_000"))  # the whole of it: 100_000
OFF = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}


def logits_of(*probabilities):
    with np.errstate(divide="ignore"):
        return np.log(np.array(probabilities, np.float32))


def left(logits, counts=None, **options):
    """Return token id → probability after all options, of which only those named are in force."""
    logits = np.array(logits, np.float32)
    logits.setflags(write=False)
    ids, log_p = candidates(logits, Sampling(**OFF | options), counts or {})
    assert ids.dtype == np.int64
    return dict(zip(ids.tolist(), np.exp(log_p).tolist(), strict=True))


def softmax(logits):
    """Return token id → probability, for token id → logit."""
    top = max(logits.values())
    whole = sum(math.exp(logit - top) for logit in logits.values())
    return {token: math.exp(logit - top) / whole for token, logit in logits.items()}


def exact(logits, options, counts):
    """Return what `left` is to give, written in the documented order, one token at a time."""
    s = Sampling(**OFF | options)
    logits = dict(enumerate(map(float, logits)))
    for token, times in counts.items():
        factor = s.repetition_penalty
        logits[token] *= 1 / factor if logits[token] > 0 else factor
        logits[token] -= s.presence_penalty + s.frequency_penalty * times
    for token, bias in s.logit_bias.items():
        logits[token] += bias
    logits = {token: x / s.temperature for token, x in logits.items() if x > -math.inf}
    order = sorted(logits, key=lambda token: (-logits[token], token))
    p = softmax({token: logits[token] for token in order[: s.top_k or None]})
    if s.top_p < 1:
        mass, kept = 0.0, {}
        for token, share in p.items():
            kept[token] = share
            mass += share
            if mass >= s.top_p:
                break
        p = kept
    p = {token: share for token, share in p.items() if share >= s.min_p * max(p.values())}
    whole = sum(p.values())
    return {token: share / whole for token, share in sorted(p.items())}


def sample_each(rows, sampling, positions, counts):
    """One token per row."""
    return np.array(list(map(sample, rows, sampling, positions, counts)))


# -- Options, by hand ----------------------------------------------------------------------------


def test_without_options_sampling_is_the_softmax():
    assert left(logits_of(2, 4, 0, 2)) == pytest.approx({0: 0.25, 1: 0.5, 3: 0.25})


def test_temperature_divides_the_logits():
    assert left(logits_of(1, 2, 3), temperature=0.5) == pytest.approx(
        {0: 1 / 14, 1: 4 / 14, 2: 9 / 14}
    )
    assert left(logits_of(1, 4, 9), temperature=2) == pytest.approx({0: 1 / 6, 1: 2 / 6, 2: 3 / 6})


def test_greedy_takes_the_lowest_of_equal_ids():
    assert left([1, 3, 3, 2, 3], temperature=0) == {1: 1.0}
    options = Sampling(temperature=0, top_p=0.1, min_p=1.0)
    rows = np.array([[0, 2, 2], [5, 5, -math.inf]], np.float32)
    assert sample_each(rows, [options, options], [0, 9], [{}, {}]).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("k", "expected"),
    [(1, [1]), (2, [1, 4]), (3, [0, 1, 4]), (4, [0, 1, 2, 4]), (0, range(6)), (99, range(6))],
)
def test_top_k_keeps_lower_ids_among_equals(k, expected):
    assert list(left([2, 5, 2, 2, 4, 2], top_k=k)) == list(expected)


@pytest.mark.parametrize(
    ("p", "expected"), [(0.01, [1]), (0.49, [1]), (0.51, [1, 3]), (0.79, [1, 3]), (0.81, [0, 1, 3])]
)
def test_top_p_keeps_the_smallest_set(p, expected):
    assert list(left(logits_of(0.1, 0.5, 0.1, 0.3), top_p=p)) == expected


@pytest.mark.parametrize(
    ("p", "expected"), [(0, 4), (0.19, 4), (0.21, 3), (0.49, 3), (0.51, 2), (1, 2)]
)
def test_min_p_is_relative_to_the_likeliest(p, expected):
    assert list(left(logits_of(10, 10, 5, 2), min_p=p)) == list(range(expected))


def test_penalties_lower_the_logits_of_seen_tokens():
    """Seen: id 0 twice, id 1 once. Of the logits (2, −1, 3): rep 2 makes (1, −2, 3), presence ½
    (½, −2½, 3), frequency ¼ (0, −2¾, 3)."""
    counts = {0: 2, 1: 1}
    options = {"repetition_penalty": 2, "presence_penalty": 0.5, "frequency_penalty": 0.25}
    assert left([2, -1, 3], counts, **options) == pytest.approx(softmax({0: 0, 1: -2.75, 2: 3}))
    for name, expected in (
        ("repetition_penalty", (1, -2, 3)),
        ("presence_penalty", (0, -3, 3)),
        ("frequency_penalty", (-2, -3, 3)),
    ):
        got = left([2, -1, 3], counts, **{name: 2})
        assert got == pytest.approx(softmax(dict(enumerate(expected))))
        assert left([2, -1, 3], {}, **{name: 2}) == left([2, -1, 3])
    assert left([2, -1, 3], counts) == left([2, -1, 3])


def test_penalties_leave_excluded_tokens_excluded():
    options = {"repetition_penalty": 0.5, "presence_penalty": -1, "frequency_penalty": -1}
    assert list(left([0, -math.inf, 1], {0: 1, 1: 3}, **options)) == [0, 2]


def test_logit_bias_moves_excludes_and_never_readmits():
    got = left([0, 1, 2, 3], logit_bias={0: 2.5, 2: -1, 3: -math.inf})
    assert got == pytest.approx(softmax({0: 2.5, 1: 1, 2: 1}))
    assert left([0, -math.inf], logit_bias={1: 100}) == {0: 1.0}
    assert left([0, 5], temperature=0, logit_bias={0: 6}) == {0: 1.0}


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize(
    ("row", "bias"), [([0, 1], {0: -math.inf, 1: -math.inf}), ([-math.inf, -math.inf], {})]
)
def test_a_row_without_a_token_left_is_an_error(row, bias, temperature):
    with pytest.raises(NoTokenError, match="no token is left"):
        left(row, logit_bias=bias, temperature=temperature)


# -- The order: each case comes out otherwise if the two neighbours change places ------------------


def test_repetition_penalty_comes_before_presence_and_frequency():
    assert left([2, 0], {0: 1}, repetition_penalty=2, presence_penalty=1)[0] == pytest.approx(0.5)
    assert left([2, 0], {0: 1}, repetition_penalty=2, frequency_penalty=1)[0] == pytest.approx(0.5)


def test_penalties_come_before_bias():
    """1/2 + 2, not (1 + 2)/2."""
    got = left([1, 2.5], {0: 1}, repetition_penalty=2, logit_bias={0: 2})
    assert got[0] == pytest.approx(0.5)


def test_penalties_and_bias_come_before_temperature():
    """(3 − 1)/2 and (1 + 1)/2, not 3/2 − 1 and 1/2 + 1."""
    got = left([3, 1, 2], {0: 1}, presence_penalty=1, logit_bias={1: 1}, temperature=2)
    assert got == pytest.approx({0: 1 / 3, 1: 1 / 3, 2: 1 / 3})


def test_bias_comes_before_top_k():
    assert list(left([3, 2, 1], logit_bias={2: 5}, top_k=1)) == [2]


def test_temperature_comes_before_top_p():
    """.64 : .16 : .16 become .5 : .25 : .25, of which .6 takes two."""
    assert list(left(logits_of(0.64, 0.16, 0.16), temperature=2, top_p=0.6)) == [0, 1]


def test_temperature_comes_before_min_p():
    """1 : ¼ becomes 1 : ½."""
    assert list(left(logits_of(0.8, 0.2), temperature=2, min_p=0.4)) == [0, 1]


def test_top_k_comes_before_top_p():
    """Of .4 .3 .2 .1, two are left as .57 .43, of which ½ takes one; of all it takes two."""
    assert list(left(logits_of(0.4, 0.3, 0.2, 0.1), top_k=2, top_p=0.5)) == [0]


def test_top_p_comes_before_min_p():
    """Of .5 .3 .2, .6 takes two; of what min-p leaves, .625 .375, it would take one."""
    assert list(left(logits_of(0.5, 0.3, 0.2), top_p=0.6, min_p=0.5)) == [0, 1]


# -- Any options ---------------------------------------------------------------------------------

options = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0.1, 3),
        "top_k": st.integers(0, 50),
        "top_p": st.floats(0.01, 0.999),
        "min_p": st.floats(0.001, 0.999),
        "repetition_penalty": st.floats(0.5, 2),
        "presence_penalty": st.floats(-2, 2),
        "frequency_penalty": st.floats(-2, 2),
        "logit_bias": st.dictionaries(
            st.integers(0, 29), st.one_of(st.just(-math.inf), st.floats(-10, 10)), max_size=5
        ),
    },
)
counted = st.dictionaries(st.integers(0, 29), st.integers(1, 4), max_size=6)
seeds = st.integers(0, 2**32 - 1)


def random_logits(seed, vocab):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, vocab).astype(np.float32)
    logits[rng.random(vocab) < 0.1] = -np.inf
    logits[-1] = 1
    return logits


@given(seeds, st.integers(30, 700), options, counted)
def test_any_options_agree_with_the_documented_order(seed, vocab, options, counts):
    logits = random_logits(seed, vocab)
    options = options | {"temperature": options.get("temperature", 1.0)}
    expected = exact(logits, options, counts)
    assert left(logits, counts, **options) == pytest.approx(expected, rel=1e-4, abs=1e-9)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30), st.integers(0, 9), st.floats(0.01, 1))
def test_equal_logits_are_dropped_from_the_highest_id(logits, k, p):
    kept = list(left(logits, top_k=k, top_p=p))
    order = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    assert kept == sorted(order[: len(kept)])
    assert len(kept) <= (k or len(logits))


@given(seeds, options, counted, st.floats(-20, 20))
def test_a_constant_on_all_logits_changes_nothing_without_repetition_penalty(
    seed, options, counts, constant
):
    options = options | {"repetition_penalty": 1, "top_p": 1, "min_p": 0}
    logits = random_logits(seed, 60)
    expected = left(logits, counts, **options)
    got = left(logits + np.float32(constant), counts, **options)
    assert got == pytest.approx(expected, rel=1e-3)


@given(seeds, options, counted, st.integers(0, MAX_SEED), st.integers(0, 10**6))
def test_rows_are_independent_and_repeatable(seed, options, counts, noise_seed, position):
    s = [Sampling(**options, seed=noise_seed), Sampling(temperature=0), Sampling(seed=noise_seed)]
    rows = np.stack([random_logits(seed + i, 60) for i in range(3)])
    before = rows.copy()
    positions, seen = [position, 0, position + 1], [counts, {}, {}]
    together = sample_each(rows, s, positions, seen)
    assert np.array_equal(rows, before)
    for i in range(3):
        assert sample(rows[i].copy(), s[i], positions[i], seen[i]) == together[i]
    assert together[0] in left(
        rows[0], counts, **{"temperature": 0.8, "top_k": 40, "top_p": 0.95} | options
    )


@pytest.mark.parametrize("temperature", [1e-308, 5e-324])
def test_a_temperature_next_to_nothing_is_greedy(temperature):
    assert left([1, 3, 2], temperature=temperature)[1] == 1.0


# -- The noise -----------------------------------------------------------------------------------

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def splitmix64(state):
    """Yield the outputs of SplitMix64, in Python's own integers."""
    while True:
        state = (state + GOLDEN) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        yield z ^ (z >> 31)


def noise(seed, position, token):
    hashed = next(splitmix64(seed))
    start = next(splitmix64(hashed + position - GOLDEN))
    bits = next(splitmix64(start + token * GOLDEN))
    return -math.log(-math.log(((bits >> 11) + 0.5) / 2**53))


def seed_of(bits, position, token):
    """Return the seed whose noise at that place has just these bits: `noise`, backwards."""

    def unmixed(z):
        for shift, factor in ((31, 0x94D049BB133111EB), (27, 0xBF58476D1CE4E5B9), (30, 1)):
            z ^= (z >> shift) ^ (z >> 2 * shift)
            z = z * pow(factor, -1, 2**64) & MASK
        return z

    start = (unmixed(bits) - (token + 1) * GOLDEN) & MASK
    return (unmixed((unmixed(start) - position) & MASK) - GOLDEN) & MASK


def gumbel_grid(seed, positions, ids):
    return np.stack([gumbel(seed, position, np.arange(ids)) for position in range(positions)])


def test_the_tests_own_noise_is_splitmix64():
    """Vigna's splitmix64.c, begun at 1234567."""
    stream = splitmix64(1234567)
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [next(stream) for _ in expected] == expected


@pytest.mark.parametrize(
    ("seed", "position", "token", "value"),
    [
        (0, 0, 0, -0.08116903215863956),
        (1, 0, 0, 0.1772064934697004),
        (0, 1, 0, -1.5968485898451263),
        (0, 0, 1, -0.2719792283174783),
        (42, 7, 151_643, 0.06631007349149813),
        (2**63, 255, 32_000, 0.9045064865648901),
        (2**64 - 1, 8191, 262_143, -0.8031048177831929),
    ],
)
def test_noise_has_the_same_values_on_every_machine(seed, position, token, value):
    assert noise(seed, position, token) == pytest.approx(value, rel=1e-12)
    for ids in (np.array([token]), np.array([5, token, 9], np.int32)):
        at = ids.tolist().index(token)
        assert gumbel(seed, position, ids)[at] == pytest.approx(value, rel=1e-12)


@given(
    st.integers(0, MAX_SEED), st.integers(0, 2**32), st.lists(st.integers(0, 300_000), min_size=1)
)
def test_noise_agrees_with_integer_arithmetic(seed, position, ids):
    expected = [noise(seed, position, token) for token in ids]
    assert gumbel(seed, position, np.array(ids)).tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "bits",
    [
        0,
        2**63,
        pytest.param(MASK),
    ],
)
def test_noise_is_finite_at_its_extremes(bits):
    seed = seed_of(bits, 0, 7)
    got = gumbel(seed, 0, np.array([7]))[0]
    assert abs(got) < 38


def test_noise_has_the_gumbel_distribution():
    values = gumbel_grid(7, 200, 500).ravel()
    assert stats.kstest(values, stats.gumbel_r.cdf).pvalue > 1e-4
    n = len(values)
    assert values.mean() == pytest.approx(np.euler_gamma, abs=4 * math.pi / math.sqrt(6 * n))
    assert values.var() == pytest.approx(math.pi**2 / 6, rel=0.03)


@pytest.mark.parametrize("first", [0, 2**32 - 50, 2**63 - 50, 2**64 - 100])
def test_noise_over_seeds_has_the_gumbel_distribution(first):
    values = np.stack([gumbel(seed, 0, np.arange(100)) for seed in range(first, first + 100)])
    assert stats.kstest(values.ravel(), stats.gumbel_r.cdf).pvalue > 1e-4
    assert len(np.unique(values)) == values.size
    assert abs(np.corrcoef(values[:-1].ravel(), values[1:].ravel())[0, 1]) < 0.04


def test_neighbouring_positions_and_ids_are_uncorrelated():
    values = stats.gumbel_r.cdf(gumbel_grid(3, 300, 300))
    for lag in (1, 2):
        for before, after in (
            (values[:-lag], values[lag:]),
            (values[:, :-lag], values[:, lag:]),
            (values[:-lag, lag:], values[lag:, :-lag]),
            (values[:-lag, :-lag], values[lag:, lag:]),
        ):
            assert abs(np.corrcoef(before.ravel(), after.ravel())[0, 1]) < 4 / 300


def test_seed_position_and_id_are_told_apart():
    ids = np.arange(50)
    noises = [gumbel(seed, position, ids) for seed in range(4) for position in range(4)]
    assert len(np.unique(noises)) == 16 * 50


# -- The draw ------------------------------------------------------------------------------------


def chi_square_p_value(tokens, expected):
    """Return p of the draws under token id → probability; cells expecting below 5 are merged."""
    ids = np.array(sorted(expected))
    assert np.isin(tokens, ids).all()
    observed = np.bincount(tokens, minlength=ids[-1] + 1)[ids].astype(float)
    wanted = np.array([expected[token] for token in ids]) * len(tokens)
    order = np.argsort(wanted)
    rare = max(int((wanted < 5).sum()), int(np.searchsorted(wanted[order].cumsum(), 5)) + 1)
    groups = [order[:rare], *order[rare:, None]]
    observed = [observed[group].sum() for group in groups]
    return stats.chisquare(observed, [wanted[group].sum() for group in groups]).pvalue


@pytest.mark.slow
def test_draws_over_seeds_follow_the_exact_distribution():
    logits = random_logits(11, 60)
    counts = {3: 2, 8: 1, 20: 1}
    options = {
        "temperature": 1.3,
        "top_k": 45,
        "top_p": 0.98,
        "min_p": 0.004,
        "repetition_penalty": 1.2,
        "frequency_penalty": 0.3,
        "logit_bias": {5: 2.0, 6: -math.inf},
    }
    rows = np.broadcast_to(logits, (N_DRAWS, 60))
    s = [Sampling(**options, seed=2**64 - 1 - i) for i in range(N_DRAWS)]
    tokens = sample_each(rows, s, [4] * N_DRAWS, [counts] * N_DRAWS)
    expected = exact(logits, options, counts)
    assert 20 < len(expected) < 45
    assert chi_square_p_value(tokens, expected) > 1e-4


def test_draws_over_positions_follow_the_exact_distribution_independently():
    logits = np.linspace(0, 9, 40)
    ids = np.arange(100, 140)
    p = softmax(dict(zip(ids.tolist(), logits.tolist(), strict=True)))
    log_p = np.log([p[token] for token in ids.tolist()])
    tokens = np.array([choose(ids, log_p, 1, position) for position in range(N_DRAWS)])
    assert chi_square_p_value(tokens, p) > 1e-4
    likely = np.maximum(tokens - 132, 0)
    for lag in (1, 2):
        table = np.zeros((8, 8))
        np.add.at(table, (likely[:-lag], likely[lag:]), 1)
        assert stats.chi2_contingency(table).pvalue > 1e-4


@given(seeds, st.integers(0, MAX_SEED), st.integers(0, 1000), st.integers(1, 30))
def test_a_choice_stands_if_only_others_are_dropped(seed, noise_seed, position, n_kept):
    """So a draft that gives its token the same noise agrees whenever it can."""
    rng = np.random.default_rng(seed)
    ids = np.sort(rng.choice(1000, 30, replace=False))
    log_p = np.log(rng.dirichlet(np.ones(30)))
    token = choose(ids, log_p, noise_seed, position)
    at = rng.permutation(30)[:n_kept]
    at = np.union1d(at, np.flatnonzero(ids == token))
    assert choose(ids[at], log_p[at], noise_seed, position) == token
    assert choose(ids, log_p - 5, noise_seed, position) == token


def test_a_choice_is_the_largest_sum_of_log_probability_and_noise():
    ids = np.array([4, 10, 11])
    log_p = np.log([0.5, 0.3, 0.2])
    for position in range(50):
        scores = [
            p + noise(9, position, token) for p, token in zip(log_p, (4, 10, 11), strict=True)
        ]
        assert choose(ids, log_p, 9, position) == ids[np.argmax(scores)]
