"""reply_data: what each model thought of a reply's tokens, for people and for programs."""

import json

import pytest
from helpers.cli_tools import complaint, invoke

QUESTION = ("What is the capital of Peru?", "-t", "0", "-q")


def test_what_each_model_thought_is_shown_in_lines():
    lines = invoke("run", "atlas", *QUESTION, "--explain", "2", "--logprobs", "1").stdout.split(
        "\n"
    )
    assert lines[0] == "It is Lima."
    at = next(i for i, line in enumerate(lines) if line.startswith("·Lima  "))
    token, likeliest, base, tuned, reference = lines[at : at + 5]
    assert likeliest.split()[:2] == ["emulated", "·Lima"]
    assert likeliest.split()[2] == token.split()[1], "greedy: the likeliest is chosen"
    assert base.split()[0] == "base"
    assert base.split()[1] == base.split()[3], "the base's own likeliest is Lima"
    assert tuned.split()[0] == "tuned"
    assert "·Lima" not in tuned, "the small model does not know it"
    assert reference.split()[0] == "reference"


def test_one_model_alone_has_one_line_a_token():
    lines = invoke("run", "atlas", *QUESTION, "--logprobs", "2").stdout.splitlines()[1:]
    assert len(lines) == 2 * sum(not line.startswith(" ") for line in lines)


def test_the_text_of_the_object_is_the_text_that_is_shown(recipe, scripted):
    scripted(" It is Paris. ", " It is Paris. ", " a", " b")
    shown = invoke("run", recipe, "Capital?").stdout
    assert shown == "It is Paris. \n"
    assert json.loads(invoke("run", recipe, "Capital?", "--json").stdout)["text"] + "\n" == shown
    raw = json.loads(invoke("run", recipe, "Capital?", "--raw", "--json").stdout)
    assert raw["text"] == " a", "what continues a text is given as it is"
    many = invoke("run", recipe, "--input", "-", "--json", stdin='"x"').stdout
    assert json.loads(many)["text"] == "b"


def test_the_object_names_recipe_and_files(recipe, scripted):
    scripted("a")
    about = json.loads(invoke("run", recipe, "x", "--json").stdout)
    assert about["recipe"] == "family"
    assert about["models"] == {"base": {"file": "/m/base.gguf", "type": "Q8_0"}}
    assert "logprobs" not in about


def test_the_likeliest_go_into_the_objects_of_many(recipe, scripted):
    lines = '"What is the capital of Peru?"\n'
    words = ("run", "atlas", "--input", "-", "-t", "0", "--logprobs", "2")
    assert "add --json" in complaint(*words, stdin=lines)
    about = json.loads(invoke(*words, "--json", stdin=lines).stdout)
    assert "".join(each["text"] for each in about["logprobs"]).strip() == about["text"]
    assert [each["token"] for each in about["logprobs"]] == about["tokens"]
    assert all(each["top"][0]["logprob"] >= each["logprob"] for each in about["logprobs"])


@pytest.mark.parametrize("option", ["--logprobs", "--explain"])
def test_how_many_are_shown_is_bounded(recipe, option):
    line = complaint("run", recipe, "x", option, "101")
    assert f"{option} is 101; it must be a whole number, 1 to 100" in line
