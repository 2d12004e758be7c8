"""sampling_params: which values an option may have."""

import math

import numpy as np
import pytest

from edge_eft.errors import RequestError
from edge_eft.logits.sampling import sample
from edge_eft.logits.sampling_params import Sampling

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def test_a_bias_beyond_the_vocabulary_is_named():
    with pytest.raises(RequestError, match=r"token 3.* 2"):
        Sampling(logit_bias={0: 1, 3: 1}).check_vocabulary(3)
    Sampling(logit_bias={2: 1}).check_vocabulary(3)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("temperature", [-0.1, 101, math.nan, math.inf, "1", None, True]),
        ("top_k", [-1, 2**31, 1.0, True, None]),
        ("top_p", [0, -0.5, 1.001, math.nan, None]),
        ("min_p", [-0.01, 1.01, math.nan]),
        ("repetition_penalty", [0, -1, 101, math.inf, math.nan]),
        ("presence_penalty", [-101, 101, math.nan, "0"]),
        ("frequency_penalty", [-101, 101, math.inf, None]),
        ("seed", [-1, 2**64, 1.0, True, None]),
        (
            "logit_bias",
            [{-1: 0}, {"1": 0}, {True: 0}, {1: math.inf}, {1: math.nan}, {1: 2e4}, {1: None}],
        ),
    ],
)
def test_a_parameter_out_of_range_is_named(name, bad):
    for value in bad:
        with pytest.raises(RequestError, match=name):
            Sampling(**{name: value})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("temperature", [0, 100]),
        ("top_k", [0, 2**31 - 1]),
        ("top_p", [1e-9, 1]),
        ("min_p", [0, 1]),
        ("repetition_penalty", [0.01, 100]),
        ("presence_penalty", [-100, 100]),
        ("frequency_penalty", [-100, 100]),
        ("seed", [0, 2**64 - 1]),
        ("logit_bias", [{}, {0: -math.inf}, {2: 1e4, 3: -1e4}]),
    ],
)
def test_values_at_the_bounds_are_accepted(name, values):
    rows = np.array([[0, 1, 2, 3]], np.float32)
    for value in values:
        assert 0 <= sample(rows[0], Sampling(**{name: value}), 0, {1: 2}) < 4


def test_an_integer_beyond_every_float_is_named():
    with pytest.raises(RequestError, match="temperature"):
        Sampling(temperature=10**400)


def test_no_bias_may_be_written_as_none():
    assert Sampling(logit_bias=None) == Sampling()


def test_no_option_is_minus_zero():
    names = ("temperature", "min_p", "presence_penalty", "frequency_penalty")
    sampling = Sampling(**dict.fromkeys(names, -0.0), logit_bias={5: -0.0})
    assert "-0.0" not in repr(sampling)
