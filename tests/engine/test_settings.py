"""settings: what a user may set, by name."""

import pytest

from edge_eft.engine.request import MAX_DRAFT
from edge_eft.engine.settings import SETTINGS, VIEWS, request_for
from edge_eft.errors import RequestError


def test_an_unknown_setting_is_named():
    with pytest.raises(RequestError, match="there is no setting 'x'"):
        request_for("hi", {"x": 1})


def test_variables_of_templates_are_read_as_json():
    read = SETTINGS["chat_template_kwargs"].read
    settings = {"chat_template_kwargs": read('{"enable_thinking": false}')}
    assert request_for("hi", settings).chat_template_kwargs == {"enable_thinking": False}
    for text in ("{", "", "enable_thinking=false", "[" * 100_000):
        with pytest.raises(RequestError, match=r"chat_template_kwargs is .* write a JSON object"):
            read(text)
    with pytest.raises(RequestError, match="use an object"):
        request_for("hi", {"chat_template_kwargs": read("3")})


BOUNDED = {name: each for name, each in {**SETTINGS, **VIEWS}.items() if each.low is not None}


@pytest.mark.parametrize("name", BOUNDED)
def test_a_range_is_the_one_that_a_request_checks(name):
    setting = BOUNDED[name]

    def value(number):
        return setting.read(str(number))

    for bound, beyond in ((setting.low, -1), (setting.high, 1)):
        if bound is None:
            continue
        outside = value(bound + beyond)
        if not (setting.above_low and bound == setting.low):
            request_for("hi", {name: value(bound)})
        else:
            outside = value(bound)
        if name == "explain" and beyond > 0:
            continue  # the engine sets no limit; a terminal does
        with pytest.raises(RequestError):
            request_for("hi", {name: outside})


def test_a_default_in_words_is_the_one_of_a_request():
    request = request_for("hi", {})
    for name, setting in SETTINGS.items():
        value = {"alpha": request.weights.alpha}.get(name, getattr(request, name, None))
        if name != "seed" and setting.default:
            words = "off" if value is None else f"{value:g}" if value != "auto" else value
            assert setting.default == words, name


def test_drafts_are_a_number_or_auto():
    read = SETTINGS["draft"].read
    assert (read("auto"), read("0"), read("15")) == ("auto", 0, MAX_DRAFT)
    for text in ("16", "-1", "x", "1.5"):
        with pytest.raises(ValueError, match=r"literal|0 to 15"):
            read(text)


def test_a_reply_is_held_to_one_form():
    schema = {"type": "object"}
    assert request_for("hi", {"schema": schema}).constraint.json_schema == schema
    assert request_for("hi", {"grammar": 'root ::= "a"'}).constraint.gbnf == 'root ::= "a"'
    with pytest.raises(RequestError, match="schema and grammar exclude each other"):
        request_for("hi", {"schema": schema, "grammar": 'root ::= "a"'})
    with pytest.raises(RequestError, match="grammar is 3; it must be a grammar in GBNF"):
        request_for("hi", {"grammar": 3})


def test_the_likeliest_are_asked_for_as_logprobs():
    assert request_for("hi", {"logprobs": 3, "explain": 2}).top_logprobs == 3
    with pytest.raises(RequestError, match="logprobs is 101"):
        request_for("hi", {"logprobs": 101})
