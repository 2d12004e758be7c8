"""constrained: replies obey their grammar, with and without drafts, alone and together."""

import json
import os
from dataclasses import replace
from unittest.mock import Mock

import jsonschema
import pytest
from helpers.emulator_tools import GREEDY, alone, open_emulator, run, text_of, tokens_of
from helpers.schemas import random_schema

from edge_eft import Request, Weights
from edge_eft.engine.constraint import Constraint
from edge_eft.errors import EngineError, RequestError

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "kind": {"enum": ["red", 'a "b"', "é"]},
        "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
    },
    "required": ["name", "age", "kind"],
}


def check(schema, text):
    """The text is JSON, and obeys the schema with its formats."""
    validator = jsonschema.Draft202012Validator
    validator(schema, format_checker=validator.FORMAT_CHECKER).validate(json.loads(text))


def person(seed=0, **options):
    options = {
        "max_tokens": 120,
        "seed": seed,
        "constraint": Constraint(json_schema=PERSON),
    } | options
    return Request("the red one", **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param(GREEDY, marks=pytest.mark.slow),
        pytest.param({"temperature": 1.0, "top_k": 0, "top_p": 1.0}, marks=pytest.mark.slow),
    ],
)
def test_drafts_change_nothing_under_a_grammar(family, options):
    requests = [person(seed, **options) for seed in range(2)]
    replies = []
    for draft in (0, 1, 4, 15):
        with open_emulator(family) as emulator:
            steps = [list(emulator.stream(replace(r, draft=draft))) for r in requests]
        replies.append([tokens_of(one) for one in steps])
        for one in steps:
            if one[-1].finish_reason == "stop":
                check(PERSON, text_of(one))
    assert all(reply == replies[0] for reply in replies)


def test_four_slots_with_grammars_give_what_each_gives_alone(family):
    schemas = [PERSON, {"type": "array", "items": {"type": "integer"}, "maxItems": 5}, True]
    constraints = [Constraint(json_schema=schema) for schema in schemas] + [None]
    requests = [
        Request("the red one", max_tokens=40, seed=i, constraint=constraint, temperature=1.0)
        for i, constraint in enumerate(constraints)
    ]
    expected = [tokens_of(steps) for steps in alone(family, requests)]
    with open_emulator(family, n_slots=4) as emulator:
        ids = [emulator.submit(request) for request in requests]
        replies = run(emulator)
    assert [tokens_of(replies[i]) for i in ids] == expected


def test_a_reply_that_is_complete_stops(tiny, draft):
    constraint = Constraint(gbnf='root ::= "yes" | "no"')
    with open_emulator(tiny) as emulator:
        for seed in range(5):
            reply = emulator.generate("the", constraint=constraint, seed=seed, **draft)
            assert reply.text in ("yes", "no")
            assert reply.finish_reason == "stop"


def test_a_reply_that_is_complete_stops_though_the_end_is_forbidden(tiny, draft):
    with open_emulator(tiny) as emulator:
        end = emulator.vocabulary.end_token
        steps = list(
            emulator.stream(
                "the",
                constraint=Constraint(gbnf='root ::= "yes"'),
                logit_bias={end: float("-inf")},
                **draft,
            )
        )
    assert text_of(steps) == "yes"
    assert (steps[-1].finish_reason, steps[-1].is_end_token) == ("stop", True)


def test_the_end_waits_until_the_grammar_allows_it(tiny, draft):
    with open_emulator(tiny) as emulator:
        end = emulator.vocabulary.end_token
        reply = emulator.generate(
            "the", constraint=Constraint(gbnf='root ::= "abc"'), logit_bias={end: 1000.0}, **draft
        )
    assert (reply.text, reply.finish_reason) == ("abc", "stop")


def test_texts_stand_around_the_json(tiny, draft):
    constraint = Constraint(
        json_schema={"anyOf": [{"const": 1}, {"const": {"a": "<"}}]},
        before="<tool_call>\n",
        after="\n</tool_call>",
    )
    with open_emulator(tiny) as emulator:
        text = emulator.generate("the", constraint=constraint, **draft).text
    assert text in ("<tool_call>\n1\n</tool_call>", '<tool_call>\n{"a": "<"}\n</tool_call>')


def test_a_stop_string_ends_a_reply_before_its_grammar_does(tiny):
    with open_emulator(tiny) as emulator:
        reply = emulator.generate("the", constraint=Constraint(gbnf='root ::= "abc"'), stop="b")
    assert (reply.text, reply.finish_reason) == ("a", "stop")


def test_a_request_for_which_nothing_is_left_fails_alone(tiny):
    good = person(1)
    (expected,) = alone(tiny, [good])
    with open_emulator(tiny, n_slots=2) as emulator:
        letters = [t for t in range(352) if b"z" in emulator.contexts[0].model.piece(t)]
        bias = dict.fromkeys(letters, float("-inf"))
        emulator.submit(good)
        emulator.submit(Request("the", constraint=Constraint(gbnf='root ::= "z"'), logit_bias=bias))
        steps, failed = [], 0
        for _ in range(200):
            try:
                new = emulator.step()
            except EngineError:
                failed += 1
                continue
            if not new:
                break
            steps += new
    assert failed == 1
    assert tokens_of(steps) == tokens_of(expected)


def test_an_interrupt_keeps_the_grammar_in_step(tiny, draft, monkeypatch):
    """Wherever it comes, the reply is the one that would have come without it."""
    request = person(3, **draft)
    (expected,) = alone(tiny, [request])
    with open_emulator(tiny) as emulator:
        for method in ("take", "push", "accept"):
            request_id = emulator.submit(request)
            steps = emulator.step()
            state = emulator._scheduler.find(request_id)
            target = {"take": state, "push": state.text, "accept": state.grammar}[method]
            with monkeypatch.context() as patch:
                patch.setattr(target, method, Mock(side_effect=KeyboardInterrupt))
                with pytest.raises(KeyboardInterrupt):
                    emulator.step()
            steps += run(emulator)[request_id]
            assert tokens_of(steps) == tokens_of(expected)


def test_new_weights_in_mid_reply_keep_the_grammar_in_step(tiny, draft):
    with open_emulator(tiny) as emulator:
        request_id = emulator.submit(person(5, **draft))
        steps = emulator.step()
        for alpha in (0.5, 2.0, 0.0):
            emulator.set_weights(request_id, Weights.upscale(alpha))
            steps += emulator.step()
        steps += run(emulator).get(request_id, [])
    if steps[-1].finish_reason == "stop":
        check(PERSON, text_of(steps))


def test_pending_steps_that_are_retracted_are_taken_back_by_the_grammar(tiny):
    """The block's drafts were accepted, one was given out, and then the weights change."""
    with open_emulator(tiny._replace(tuned=tiny.base)) as emulator:
        request = person(6, draft=4, weights=Weights.upscale(0.01))
        (expected,) = alone(tiny._replace(tuned=tiny.base), [request])
        state = emulator._prepare(request)
        steps = []
        for step in emulator._steps_of(state):
            steps.append(step)
            if step.finish_reason is None:
                emulator.set_weights(state.id, Weights.upscale(0.01))
        assert tokens_of(steps) == tokens_of(expected)


def test_the_grammar_of_a_request_that_has_ended_is_freed(tiny):
    with open_emulator(tiny) as emulator:
        state = emulator._prepare(person(7, max_tokens=3, draft=4))
        free = state.grammar.free
        list(emulator._steps_of(state))
        del state
        request_id = emulator.submit(person(7))
        other = emulator._scheduler.find(request_id).grammar.free
        emulator.step()
        emulator.cancel(request_id)
        emulator.step()
    assert not free.alive
    assert not other.alive


def test_an_ambiguous_grammar_fails_and_does_not_hang(tiny):
    """Every character doubles what llama.cpp keeps."""
    constraint = Constraint(gbnf='root ::= "a" root "b" | "a" root "c" | "x"')
    with open_emulator(tiny) as emulator:
        bias = {t: 1000.0 for t in range(352) if emulator.contexts[0].model.piece(t) == b"a"}
        request = Request("the", constraint=constraint, logit_bias=bias, max_tokens=100)
        with pytest.raises(EngineError, match="ambiguous"):
            emulator.generate(request)


def test_a_model_without_an_end_takes_no_grammar(tiny):
    with open_emulator(tiny) as emulator:
        emulator._grammar.__self__._end_token = None
        with pytest.raises(RequestError, match="no token that ends"):
            emulator.generate("the", constraint=Constraint(json_schema=True))


def replies_to(trio, seeds, settings, max_tokens):
    """(schema, text, finish reason) of the reply to every schema under every setting."""
    with open_emulator(trio, n_ctx=512, n_slots=4) as emulator:
        for seed in seeds:
            schema = random_schema(seed)
            constraint = Constraint(json_schema=schema)
            ids = [
                emulator.submit(
                    Request("JSON:", constraint=constraint, max_tokens=max_tokens, **options)
                )
                for options in settings
            ]
            for _, reply in emulator.collect(ids):
                yield schema, reply.text, reply.finish_reason


FREE = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
# The whole of it is EDGE_EFT_TEST_SCHEMAS=200: some minutes on two cores. Models that take longer
# get a share of them.
N_SCHEMAS = int(os.environ.get("EDGE_EFT_TEST_SCHEMAS", "20"))


def test_replies_obey_random_schemas(tiny):
    settings = [GREEDY | {"draft": 3}, FREE | {"seed": 1, "draft": 0}]
    finished = 0
    for schema, text, reason in replies_to(tiny, range(N_SCHEMAS), settings, 150):
        if reason == "stop":
            check(schema, text)
            finished += 1
    assert finished > N_SCHEMAS


@pytest.mark.slow
@pytest.mark.timeout(6000)
@pytest.mark.parametrize(("models", "share"), [("atlas", 0.5), ("smollm2_trio", 0.05)])
def test_replies_obey_random_schemas_drafted_or_not(models, share, request):
    """Whatever ends by itself; most replies do."""
    drafts = [{"draft": "auto"}, {"draft": 0}]
    settings = [one | draft for draft in drafts for one in (GREEDY, *map(free, range(3)))]
    ended = cut = 0
    for schema, text, reason in replies_to(
        request.getfixturevalue(models), range(int(share * N_SCHEMAS)), settings, 300
    ):
        if reason == "stop":
            check(schema, text)
            ended += 1
        else:
            assert reason == "length"
            cut += 1
    print(f"{models}: {ended} replies ended and obeyed, {cut} were cut")
    assert ended > 3 * cut


def free(seed):
    return FREE | {"seed": seed}
