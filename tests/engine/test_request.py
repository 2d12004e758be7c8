"""request: JSON and back, defaults, and what is refused by name."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_eft.engine.request import Request
from edge_eft.errors import RequestError
from edge_eft.logits.weights import Weights

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hé 🙂"}]
weights = st.one_of(
    st.builds(Weights.upscale, st.floats(0, 5)),
    st.builds(Weights.amplify, st.floats(0, 5)),
    st.builds(
        Weights.interpolate,
        st.dictionaries(st.text(), st.floats(0, 5), min_size=1),
        st.floats(0, 5),
    ),
    st.builds(Weights.only, st.sampled_from(["base", "tuned", "reference:chat"])),
)
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
requests = st.builds(
    Request,
    st.one_of(st.text(), st.just(MESSAGES), st.lists(st.integers(0, 300_000), min_size=1)),
    weights=weights,
    temperature=st.floats(0, 100),
    top_k=st.integers(0, 1000),
    top_p=st.floats(0, 1, exclude_min=True),
    min_p=st.floats(0, 1),
    repetition_penalty=st.floats(0.5, 2),
    presence_penalty=st.floats(-2, 2),
    frequency_penalty=st.floats(-2, 2),
    logit_bias=st.dictionaries(
        st.integers(0, 300_000), st.one_of(st.just(-math.inf), st.floats(-100, 100))
    ),
    max_tokens=st.integers(1, 10**6),
    seed=st.one_of(st.none(), st.integers(0, 2**64 - 1)),
    stop=st.lists(st.text(min_size=1)),
    conservative=st.one_of(st.none(), st.floats(0, 1, exclude_min=True)),
    explain=st.integers(0, 20),
    top_logprobs=st.integers(0, 100),
    ignore_eos=st.booleans(),
    draft=st.one_of(st.just("auto"), st.integers(0, 15)),
    chat_template_kwargs=st.sampled_from([{}, {"enable_thinking": False, "a": [1, {"b": None}]}]),
    tools=st.sampled_from([(), [TOOL]]),
    prefix_ids=st.lists(st.integers(0, 300_000)),
)


@given(requests)
def test_a_request_survives_json(request):
    assert Request.from_dict(json.loads(json.dumps(request.to_dict()))) == request


@given(st.one_of(st.text(), st.lists(st.integers(0, 300_000), min_size=1)), st.integers(0, 100))
def test_a_request_for_the_prompts_log_probabilities_survives_json(prompt, n):
    request = Request(prompt, prompt_logprobs=n)
    assert Request.from_dict(json.loads(json.dumps(request.to_dict()))) == request


def test_messages_have_no_log_probabilities():
    for messages in (MESSAGES, []):
        with pytest.raises(RequestError, match="needs a prompt of raw text or token ids"):
            Request(messages, prompt_logprobs=0)


def test_a_prefix_has_no_place_beside_a_prompts_log_probabilities():
    with pytest.raises(RequestError, match="prefix_ids are not for a request with"):
        Request("x", prompt_logprobs=0, prefix_ids=[1])


def test_token_ids_are_copied():
    ids = [1, 300]
    request = Request(ids)
    ids.append(301)
    assert request.prompt == [1, 300]
    assert Request((1, 300)).prompt == [1, 300]


def test_a_forbidden_token_survives_strict_json():
    request = Request("x", logit_bias={7: -math.inf})
    text = json.dumps(request.to_dict(), allow_nan=False)
    assert Request.from_dict(json.loads(text)) == request


def test_a_request_has_the_documented_defaults():
    request = Request("Hello")
    assert request.weights == Weights.upscale(1.0)
    assert (request.max_tokens, request.temperature) == (256, 0.8)
    assert (request.top_k, request.top_p, request.min_p) == (40, 0.95, 0.0)
    assert request.repetition_penalty == 1.0
    assert request.presence_penalty == request.frequency_penalty == 0.0
    assert (request.logit_bias, request.stop) == ({}, ())
    assert (request.conservative, request.explain, request.draft) == (None, 0, "auto")
    assert (request.top_logprobs, request.prompt_logprobs, request.ignore_eos) == (0, None, False)
    assert request.prefix_ids == ()
    assert Request.from_dict({"prompt": "Hello", "seed": request.seed}) == request


def test_a_seed_is_drawn_where_none_is_given_and_can_be_read():
    drawn = {Request("x").seed for _ in range(20)}
    assert len(drawn) > 10
    assert Request("x", seed=0).seed == 0
    assert Request("x", seed=2**64 - 1).seed == 2**64 - 1


def test_with_weights_changes_nothing_else():
    request = Request(MESSAGES, temperature=0.3, stop="\n")
    other = request.with_weights(Weights.upscale(0.5))
    assert other.weights == Weights.upscale(0.5)
    assert other.to_dict() | {"weights": {}} == request.to_dict()


def test_one_stop_string_is_one_and_not_its_letters():
    assert Request("x", stop="END").stop == ("END",)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", 1.5),
        ("max_tokens", True),
        ("max_tokens", None),
        ("prefix_ids", 5),
        ("prefix_ids", "12"),
        ("prefix_ids", b"12"),
        ("prefix_ids", [True]),
        ("prefix_ids", [1, "2"]),
        ("prefix_ids", None),
        ("explain", -1),
        ("explain", "2"),
        ("draft", -1),
        ("draft", 16),
        ("draft", True),
        ("draft", None),
        ("draft", "never"),
        ("conservative", 0),
        ("conservative", 1.01),
        ("conservative", -0.5),
        ("conservative", math.nan),
        ("conservative", "0.9"),
        ("conservative", True),
        ("stop", [""]),
        ("stop", ["a", 3]),
        ("stop", b"end"),
        ("stop", 5),
        ("stop", ["a"] * 1001),
        ("stop", np.array([1, 2])),
        ("draft", np.array([1, 2])),
        ("logit_bias", {5: np.array([1.0, 2.0])}),
        ("prompt", None),
        ("prompt", 5),
        ("prompt", b"text"),
        ("prompt", [1, "two"]),
        ("prompt", [1, True]),
        ("prompt", [1, 2.0]),
        ("prompt", [1, None]),
        ("prompt", np.array([1, 2])),
        ("top_logprobs", -1),
        ("top_logprobs", 101),
        ("top_logprobs", None),
        ("top_logprobs", True),
        ("prompt_logprobs", -1),
        ("prompt_logprobs", 101),
        ("prompt_logprobs", 1.0),
        ("prompt_logprobs", True),
        ("ignore_eos", 1),
        ("ignore_eos", None),
        ("weights", 1.0),
        ("weights", {"alpha": 1}),
        ("seed", -1),
        ("seed", 2**64),
        ("temperature", -0.1),
        ("top_p", 0),
    ],
)
def test_a_value_out_of_range_is_named(name, value):
    with pytest.raises(RequestError, match=name):
        Request(**{"prompt": "x", name: value})


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"prompt": "x", "temprature": 1}, "temprature"),
        ({"prompt": "x", "_": 1}, "_"),
        ({"prompt": "x", "weights": {"alhpa": 1}}, "alhpa"),
        ({"prompt": "x", "weights": {"alpha": -1}}, "alpha"),
        ({"prompt": "x", "logit_bias": {"-1": 1}}, "logit_bias"),
        ({}, "prompt"),
        ({"prompt": "x", "logit_bias": {"the": 1}}, "logit_bias"),
        ({"prompt": "x", "logit_bias": np.array([1, 2])}, "logit_bias"),
    ],
)
def test_a_dictionary_that_is_not_a_request_is_refused_by_name(values, named):
    with pytest.raises(RequestError, match=named):
        Request.from_dict(values)


def test_null_stands_for_the_default():
    values = {"prompt": "x", "seed": 1, "weights": None, "logit_bias": None, "stop": None}
    assert Request.from_dict(values) == Request("x", seed=1)
    assert Request("x", seed=1, stop=None) == Request("x", seed=1)


def test_variables_of_templates_are_copied_and_checked():
    kwargs = {"enable_thinking": False, "more": [1]}
    request = Request(MESSAGES, chat_template_kwargs=kwargs)
    kwargs["more"].append(2)
    assert request.chat_template_kwargs == {"enable_thinking": False, "more": [1]}
    for wrong in ({"tools": []}, [1], {"a": object()}):
        with pytest.raises(RequestError, match="chat_template_kwargs"):
            Request(MESSAGES, chat_template_kwargs=wrong)


def test_tools_are_copied_and_checked():
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    request = Request("x", tools=[tool])
    tool["function"]["name"] = "g"
    assert request.tools == ({"type": "function", "function": {"name": "f", "parameters": {}}},)
    for wrong in (tool, [3], [{"type": "function"}], None):
        with pytest.raises(RequestError, match="tool"):
            Request("x", tools=wrong)
