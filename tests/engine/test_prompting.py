"""prompting: a role is told its prompts in another format without loading anything again."""

import pytest
from helpers.emulator_tools import open_emulator

from edge_eft.engine.prompting import prompt_format, use_formats
from edge_eft.engine.request import Request
from edge_eft.errors import PromptError, RequestError

ASKED = [{"role": "user", "content": "the red one"}]


@pytest.fixture
def emulator(tiny):
    with open_emulator(tiny, prompt="plain") as emulator:
        yield emulator


def test_a_role_is_told_what_one_that_was_loaded_so_is(emulator, tiny):
    use_formats(emulator, {"base": "template", "reference:tuned": "transcript"})
    told = emulator.encode(Request(ASKED))
    with open_emulator(tiny, prompt="template") as other:
        assert told[0] == other.encode(Request(ASKED))[0]
    form = prompt_format(emulator, "reference:tuned", "transcript")
    assert told[2] == form.encode(ASKED)
    prompts = {role: spec.prompt for role, spec in emulator.recipe.roles().items()}
    assert prompts == {
        "base": "template",
        "tuned:tuned": "template",
        "reference:tuned": "transcript",
    }
    assert {role: file.prompt for role, file in emulator.record.files.items()} == prompts
    assert emulator.record.files["base"].template_sha256 is not None


def test_between_requests_only(emulator):
    emulator.submit(Request(ASKED, max_tokens=2))
    with pytest.raises(RequestError, match="in work"):
        use_formats(emulator, {"base": "template"})


def test_what_is_no_format_changes_nothing(emulator):
    with pytest.raises(PromptError, match="not a prompt format"):
        use_formats(emulator, {"base": "template", "reference:tuned": "nonsense"})
    assert emulator.recipe.roles()["base"].prompt == "plain"
    assert emulator.contexts[0].prompt.spec == "plain"
