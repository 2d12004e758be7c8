"""facts: what a front end without native code is told of an emulator."""

import json

from helpers.emulator_tools import open_emulator

from edge_eft.engine.facts import facts

TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}{% if thinks %}{{ tools }}{% endif %}"


def test_what_the_templates_of_any_role_read(tiny):
    with open_emulator(tiny, prompt=TEMPLATE) as emulator:
        told = json.loads(json.dumps(facts(emulator)))
    assert {"messages", "thinks", "tools"} <= {*told["reads"]}
    with open_emulator(tiny) as emulator:
        assert not {"thinks", "tools"} & {*facts(emulator)["reads"]}


def test_what_was_warned_of_when_it_was_loaded(tiny):
    with open_emulator(tiny, n_ctx=4096) as emulator:
        told = facts(emulator)["warnings"]
        record = emulator.record
    assert any(line.startswith("n_ctx is 4096; the models were trained on") for line in told)
    assert told == [*record.warnings, *record.vocabulary.warnings]
