"""weights: coefficients worked out by hand, and what is refused."""

import json
import math

import pytest
from helpers.logit_rows import ONE, TWO, UPSCALE

from edge_eft.errors import RequestError
from edge_eft.logits.weights import Weights, resolve_role

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


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
def test_weights_give_the_coefficients_of_the_papers(weights, deltas, expected):
    roles = ["base", *(f"{side}:{name}" for name in deltas for side in ("tuned", "reference"))]
    assert weights.coefficients(deltas) == dict(zip(roles, expected, strict=True))


@pytest.mark.parametrize(
    "weights",
    [
        Weights.upscale(0),
        Weights.upscale(-0.0),
        Weights.amplify(0),
        Weights.interpolate({"help": -0.0}),
        Weights.interpolate({"help": 1, "safe": 0.0}, alpha=0),
    ],
)
def test_no_coefficient_is_minus_zero(weights):
    """A reference at α = 0 had −0.0, which programs read as a negative number."""
    deltas = {"help": 0.5, "safe": -0.0}
    shown = json.dumps([weights.coefficients(deltas), weights.to_dict()])
    assert "-0.0" not in shown.replace("-0.5", "")


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
def test_strengths_other_than_finite_numbers_from_zero_up_are_refused(make, name, value):
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
