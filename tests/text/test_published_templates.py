"""The most used chat templates render as transformers renders them; origins: tests/data."""

import importlib.util
import json

import pytest
from helpers import reference_templates as reference
from helpers.chat_templates import WithTemplate
from helpers.small_vocabularies import smollm2

from edge_eft.text import template_globals
from edge_eft.text.prompt_format import PromptFormat

TEMPLATES = reference.templates()
RENDERINGS = json.loads(reference.RENDERINGS.read_text("utf-8"))


class Frozen(reference.datetime):
    @classmethod
    def now(cls, tz=None):
        return reference.TODAY


def test_there_are_more_than_fifteen_templates():
    assert len(TEMPLATES) == len(RENDERINGS) >= 15


@pytest.mark.parametrize("name", TEMPLATES)
def test_published_templates_render_as_transformers_does(name, monkeypatch):
    monkeypatch.setattr(template_globals, "datetime", Frozen)
    for what, messages in reference.CONVERSATIONS.items():
        if (expected := RENDERINGS[name][what]).partition(":")[0].endswith("Error"):
            continue  # transformers cannot; we may
        form = PromptFormat("template", WithTemplate(smollm2(), TEMPLATES[name]))
        assert form.render(messages) == expected, what


@pytest.mark.convert
@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="needs transformers")
@pytest.mark.parametrize("name", TEMPLATES)
def test_the_stored_renderings_are_those_of_transformers(name):
    for what, messages in reference.CONVERSATIONS.items():
        assert RENDERINGS[name][what] == reference.by_transformers(TEMPLATES[name], messages), what
