"""nucleus: top-k and top-p sets, compared with what sorting a whole row gives."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_eft.logits.nucleus import largest, largest_of_rows, nucleus

DTYPES = st.sampled_from([np.float32, np.float64])


def naive_largest(values, k):
    order = sorted(range(len(values)), key=lambda token: (-values[token], token))
    return sorted(token for token in order[:k] if values[token] > -math.inf)


@st.composite
def rows(draw, max_size=3000):
    """Draw rows of few levels, so many ties, and some −inf; few widths are multiples of 256."""
    size = draw(st.one_of(st.integers(1, 40), st.integers(1, max_size), st.just(2560)))
    levels = draw(st.sampled_from([1, 2, 5, 100, 10**6]))
    excluded = draw(st.sampled_from([0.0, 0.0, 0.3, 0.99, 1.0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.integers(-levels, levels, size).astype(draw(DTYPES)) / 4
    values[rng.random(size) < excluded] = -np.inf
    return values


@given(rows(), st.one_of(st.integers(1, 60), st.integers(1, 4000)))
def test_largest_is_what_sorting_gives(values, k):
    before = values.copy()
    got = largest(values, k)
    assert got.tolist() == naive_largest(values.tolist(), k)
    assert got.dtype == np.int64
    assert np.array_equal(values, before)


@given(st.lists(st.sampled_from([-math.inf, -1.0, 0.0, 2.0]), min_size=1), st.integers(1, 20))
def test_largest_of_few_values_is_what_sorting_gives(values, k):
    assert largest(np.array(values), k).tolist() == naive_largest(values, k)


@given(rows(), st.integers(1, 4), st.one_of(st.integers(1, 60), st.integers(1, 4000)))
def test_the_largest_of_rows_are_those_of_each_best_first(values, n, k):
    block = np.array([np.roll(values, i) for i in range(n)])
    for row, got in zip(block.tolist(), largest_of_rows(block, k), strict=True):
        expected = naive_largest(row, k)
        assert got.tolist() == sorted(expected, key=lambda token: (-row[token], token))


@pytest.mark.parametrize("place", [0, 255, 256, 151_999, 152_000, 152_063])
@pytest.mark.parametrize("vocab", [152_000, 152_064, 152_063])
def test_the_top_is_found_anywhere_in_a_large_vocabulary(vocab, place):
    place = min(place, vocab - 1)
    values = np.linspace(0, 1, vocab, dtype=np.float32)[::-1].copy()
    values[place] = 2
    assert largest(values, 1).tolist() == [place]
    assert largest(values, 3).tolist() == naive_largest(values.tolist(), 3)


def test_equal_values_go_to_the_lower_ids():
    values = np.zeros(5000, np.float32)
    values[[7, 4999]] = 1
    assert largest(values, 4).tolist() == [0, 1, 7, 4999]
    assert largest(values, 1).tolist() == [7]


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [
        (0.01, [2]),
        (0.49, [2]),
        (0.51, [1, 2]),
        (0.74, [1, 2]),
        (0.76, [1, 2, 3]),
        (0.9, [0, 1, 2, 3]),
    ],
)
def test_nucleus_is_the_smallest_set_that_reaches_top_p(top_p, expected):
    log_p = np.log([0.125, 0.25, 0.5, 0.125])
    log_p[3] += 1e-9  # the likelier of the two
    assert nucleus(log_p, top_p).tolist() == expected


def test_nucleus_reaches_top_p_exactly():
    """½ + ¼ is ¾ without rounding, and needs no third token."""
    log_p = np.log(np.array([0.5, 0.25, 0.25]))
    assert np.exp(log_p).tolist() == [0.5, 0.25, 0.25]
    assert nucleus(log_p, 0.5).tolist() == [0]
    assert nucleus(log_p, 0.75).tolist() == [0, 1]


@given(rows(max_size=1500), st.floats(0.001, 0.999))
def test_nucleus_is_the_shortest_start_of_the_sorted_row_with_that_mass(values, top_p):
    if np.isneginf(values).all():
        values[-1] = 0
    p = np.exp(values.astype(np.float64) - values.max())
    p /= p.sum()
    log_p = values - np.float64(values.max()) - math.log(np.exp(values - values.max()).sum())
    got = nucleus(log_p, top_p)
    order = np.argsort(-values, kind="stable")
    assert got.tolist() == sorted(order[: len(got)].tolist())
    mass = p[order].cumsum()
    assert mass[len(got) - 1] > top_p - 1e-6
    assert len(got) == 1 or mass[len(got) - 2] < top_p + 1e-6


def test_a_flat_row_needs_more_tokens_than_are_tried_first():
    log_p = np.full(5000, -math.log(5000))
    log_p[[1, 3000]] = -np.inf
    got = nucleus(log_p, 0.5001)
    assert len(got) == 2501
    assert got.tolist() == [token for token in range(2502) if token != 1]


def test_nucleus_is_every_possible_token_if_their_sum_stays_below_top_p():
    log_p = np.log([0.4, 0.3, 0.2])  # 0.9 in all
    assert nucleus(np.append(log_p, -np.inf), 0.95).tolist() == [0, 1, 2]
