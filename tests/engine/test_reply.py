"""reply: steps and replies as JSON, and the figures that are summed over them."""

import json
import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from edge_eft.engine.reply import (
    Candidate,
    Generation,
    PromptToken,
    ReplyBuilder,
    RoleView,
    Step,
    Timings,
    TokenLogprob,
)
from edge_eft.engine.request import Request


def test_a_step_survives_json():
    timings = Timings(decode={"base": 0.25}, total=0.5)
    view = RoleView(-0.5, ((7, "a", -0.5), (8, "é", -2.0)))
    step = Step(3, 0, 7, "a", -0.25, timings, "stop", {"base": view})
    plain = json.loads(json.dumps(step.to_dict(), allow_nan=False))
    assert plain["timings"]["decode"] == {"base": 0.25}
    assert plain["explain"] == {"base": {"logprob": -0.5, "top": [[7, "a", -0.5], [8, "é", -2.0]]}}
    names = ("request_id", "index", "token", "text", "logprob", "finish_reason")
    assert [plain[name] for name in names] == [3, 0, 7, "a", -0.25, "stop"]
    assert Step.from_dict(plain) == step


def test_a_token_of_probability_zero_survives_json():
    view = RoleView(-math.inf, ((7, "a", 0.0),))
    facts = {"is_end_token": True, "with_prompt": True, "prompt_tokens": 9, "accepted": False}
    step = Step(3, 0, 7, "a", -math.inf, Timings(), None, {"base": view}, **facts)
    plain = json.loads(json.dumps(step.to_dict(), allow_nan=False))
    assert (plain["logprob"], plain["explain"]["base"]["logprob"]) == (None, None)
    assert Step.from_dict(plain) == step


logprobs = st.one_of(st.just(-math.inf), st.floats(-1000, 0))
tokens = st.builds(TokenLogprob, st.integers(0, 300_000), st.binary(), logprobs)
prompt_tokens = st.builds(
    PromptToken,
    st.integers(0, 300_000),
    st.binary(),
    st.one_of(st.none(), logprobs),
    st.lists(tokens, max_size=3).map(tuple),
)

candidates = st.builds(
    Candidate,
    st.integers(0, 300_000),
    st.binary(),
    st.dictionaries(st.sampled_from(["emulated", "base", "tuned:chat"]), logprobs),
)


@given(
    st.binary(),
    st.lists(tokens, max_size=3).map(tuple),
    st.lists(prompt_tokens, max_size=4).map(tuple),
    st.lists(candidates, max_size=3).map(tuple),
)
def test_pieces_and_log_probabilities_survive_json(piece, top, prompt, candidates):
    """Any bytes, what is impossible, and what has no log-probability at all."""
    more = {"top_logprobs": top, "prompt_logprobs": prompt, "candidates": candidates}
    step = Step(3, 0, 7, "", -0.5, Timings(), piece=piece, **more)
    plain = json.loads(json.dumps(step.to_dict(), allow_nan=False))
    assert Step.from_dict(plain) == step


def test_timings_add_up_role_by_role():
    total = Timings({"base": 1.0}, {"base": 2.0}, 1.0, 2.0, 3.0, 10.0)
    total.add(Timings({"tuned": 4.0}, {"base": 0.5, "tuned": 1.0}, 0.5, 0.25, 0.125, 8.0))
    assert total == Timings(
        {"base": 1.0, "tuned": 4.0}, {"base": 2.5, "tuned": 1.0}, 1.5, 2.25, 3.125, 18.0
    )


def test_what_came_with_the_prompt_is_counted():
    reply = ReplyBuilder(Request("x"))
    assert reply.generation().finish_reason == "cancelled"
    for index, (token, facts) in enumerate(
        [
            (7, {"with_prompt": True}),
            (8, {"with_prompt": True}),
            (9, {}),
            (2, {"is_end_token": True}),
        ]
    ):
        reply.take(Step(0, index, token, "a", -0.5, Timings(), prompt_tokens=4, **facts))
    done = reply.generation()
    assert (done.tokens, done.came_with_prompt, done.prompt_tokens) == ([7, 8, 9], 2, 4)


def test_speed_leaves_out_what_came_with_the_prompt():
    timings = Timings(prefill={"base": 1.0, "tuned": 0.5}, total=3.5)
    generation = Generation("abc", [1, 2, 3, 4, 5], "stop", 4, timings, 1)
    assert generation.tokens_per_second == 2.0
    drafted = replace(generation, came_with_prompt=3)
    assert drafted.tokens_per_second == 1.0
    assert replace(generation, came_with_prompt=5).tokens_per_second == 0.0
    plain = json.loads(json.dumps(generation.to_dict()))
    assert Generation.from_dict(plain) == generation
    assert Generation("a", [1], "length", 4, timings, 1).tokens_per_second == 0.0
    assert Generation("ab", [1, 2], "stop", 4, Timings(), 1).tokens_per_second == 0.0
