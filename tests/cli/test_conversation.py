"""conversation: settings are checked when they are made, and can be taken back."""

import pytest
from helpers.fakes import ScriptedEmulator

from edge_eft.cli.conversation import Conversation
from edge_eft.errors import RequestError


@pytest.fixture
def conversation():
    return Conversation(ScriptedEmulator.deltas)


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("alpha -1", "alpha is -1.0"),
        ("alpha nan", "alpha is nan"),
        ("alpha much", "alpha is 'much'; it must be a number"),
        ("top_k 1.5", "top_k is '1.5'; it must be a whole number"),
        ("top_p 0", "top_p is 0.0"),
        ("seed -1", "seed is -1"),
        ("mix chat", "mix is 'chat'"),
        ("mix polite=1", "no delta is named 'polite'"),
        ("only base", "takes no alpha, beta or mix"),
        ("alhpa 1", "did you mean alpha?"),
        ("beta 1.2", "exclude each other"),
        ("conservative 0.9", "conservative decoding is defined for alpha 1"),
    ],
)
def test_a_wrong_setting_changes_nothing(conversation, argument, complaint):
    conversation.set("alpha 0.5")
    with pytest.raises(RequestError, match=complaint.replace("?", r"\?")):
        conversation.set(argument)
    assert conversation.settings == {"alpha": 0.5}


def test_only_names_a_role_of_the_recipe(conversation):
    assert conversation.set("only tuned:brief") == "only is tuned:brief"
    with pytest.raises(RequestError, match="no role is named 'nobody'"):
        conversation.set("only nobody")


def test_a_setting_can_be_shown_and_taken_back(conversation):
    assert conversation.set("mix chat=.7,brief=.3") == "mix is chat=0.7,brief=0.3"
    assert conversation.set("mix") == "mix is chat=0.7,brief=0.3"
    assert conversation.set("mix off") == "mix is off"
    assert conversation.set("temperature") == "temperature is 0.8"
    assert "min_p" in conversation.set("")
