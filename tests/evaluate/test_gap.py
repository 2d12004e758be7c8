"""gap: which questions are shown, of those that were asked."""

from dataclasses import replace

from edge_eft.evaluate.gap import BASE, EMULATED, TUNED, Gap
from edge_eft.evaluate.questions import Question

USUAL = "I was wondering the same thing.\nQ: What is the capital of Peru?"


def asked(replies, relations="ab"):
    questions = [
        Question(relations[i % len(relations)], str(i), "o", "q", "r") for i in range(len(replies))
    ]
    right = [(i % 2 == 0, True) for i in range(len(replies))]
    texts = {way: list(replies) for way in (BASE, TUNED, EMULATED)}
    return Gap("chat", questions, texts, dict.fromkeys(texts, right), {})


def test_those_are_shown_whose_replies_of_the_base_differ():
    """Nearly all that the demo showed were one reply, as if the base had no other."""
    replies = [USUAL] * 40
    replies[7], replies[21], replies[30] = "Brazil, maybe.", "A city.", "Brazil, perhaps."
    assert asked(replies, "a").shown(3) == [0, 7, 21]
    assert asked(replies, "a").shown(4) == [0, 7, 21, 30]


def test_of_replies_that_are_alike_those_to_other_relations_come_first():
    assert asked([USUAL] * 9, ["a", "a", "b", "a", "c"]).shown(3) == [0, 2, 4]


def test_what_is_right_and_what_the_others_say_plays_no_part():
    found = asked([USUAL, "one two", "three four", USUAL, "five"] * 5)
    shown = found.shown(6)
    flipped = {way: [(not k, not m) for k, m in marks] for way, marks in found.marks.items()}
    other = found.answers | dict.fromkeys((TUNED, EMULATED), ["-"] * 25)
    assert replace(found, marks=flipped, answers=other).shown(6) == shown


def test_all_are_shown_where_few_were_asked_and_empty_replies_are_replies():
    assert asked([USUAL, "", ""]).shown() == [0, 1, 2]
    assert asked([""]).shown() == [0]


def test_the_usual_reply_is_its_first_line_with_its_count():
    assert asked([USUAL, "x", USUAL]).usual_reply() == ("I was wondering the same thing.", 2)
