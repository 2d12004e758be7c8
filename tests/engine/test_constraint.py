"""constraint, and the grammars that schemas become: plain data, what is refused and why."""

import json
import os
import time

import pytest
from helpers.bad_inputs import GRAMMARS, SCHEMAS
from helpers.schemas import random_schema

from edge_eft.engine.constraint import Constraint
from edge_eft.engine.request import Request
from edge_eft.errors import RequestError


def test_a_constraint_survives_json():
    for constraint in (
        Constraint(gbnf='root ::= "a"'),
        Constraint(json_schema={"type": "object"}, before="<x>\n", after="\n</x>"),
        Constraint(json_schema=True),
    ):
        request = Request("x", constraint=constraint)
        assert Request.from_dict(json.loads(json.dumps(request.to_dict()))) == request


def test_a_schema_that_changes_later_does_not_change_the_constraint():
    schema = {"type": "object", "properties": {"a": {"type": "null"}}}
    constraint = Constraint(json_schema=schema)
    schema["properties"]["a"]["type"] = "string"
    assert constraint.json_schema == {"type": "object", "properties": {"a": {"type": "null"}}}


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({}, "either gbnf or json_schema"),
        ({"gbnf": 'root ::= "a"', "json_schema": True}, "either gbnf or json_schema"),
        ({"gbnf": 5}, "gbnf"),
        ({"json_schema": [1]}, "json_schema"),
        ({"json_schema": True, "before": 5}, "before"),
        ({"json_schema": True, "after": "\ud800"}, "surrogate"),
        ({"json_schema": True, "after": "\0"}, "NUL"),
        ({"gbnf": 'root ::= "a"', "before": "x"}, "before"),
        ({"gbnff": "x"}, "gbnff"),
    ],
)
def test_a_wrong_field_is_named(values, named):
    with pytest.raises(RequestError, match=named):
        Constraint.from_dict(values)


def test_a_request_takes_nothing_else_for_a_constraint():
    with pytest.raises(RequestError, match="constraint"):
        Request("x", constraint={"json_schema": True})


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_hostile_schema_is_refused_on_one_line_and_at_once(name):
    begun = time.perf_counter()
    with pytest.raises(RequestError) as error:
        Constraint(json_schema=SCHEMAS[name]())
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400
    assert time.perf_counter() - begun < 2


@pytest.mark.parametrize("name", GRAMMARS)
def test_a_hostile_grammar_is_refused_on_one_line_and_at_once(name):
    begun = time.perf_counter()
    with pytest.raises(RequestError) as error:
        Constraint(gbnf=GRAMMARS[name]())
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400
    assert time.perf_counter() - begun < 2


N_SCHEMAS = int(os.environ.get("EDGE_EFT_TEST_SCHEMAS", "20"))


def test_small_schemas_become_grammars():
    for seed in range(4 * N_SCHEMAS):
        Constraint(json_schema=random_schema(seed))


def test_grammars_as_people_write_them_are_taken():
    for gbnf in (
        'root ::= ws "a" ws # that is it\nws ::= | " " | "\\n" [ \\t]{0,20}\n',
        'root ::= (\n  "a" |\n  "b"\n)+\n',
        'root ::= [^"\\\\\\x7F\\x00-\\x1F]{2,} .?',
        'root ::= expr\nexpr ::= term (("+" | "-") term)*\nterm ::= [0-9]+ | "(" expr ")"',
    ):
        Constraint(gbnf=gbnf)
