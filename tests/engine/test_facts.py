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
