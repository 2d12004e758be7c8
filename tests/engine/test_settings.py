"""settings: what a user may set, by name."""

import pytest

from edge_eft.engine.settings import SETTINGS, request_for
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
