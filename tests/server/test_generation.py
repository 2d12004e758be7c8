"""What the one generator says of how a reply ended."""

import asyncio
from dataclasses import replace

import pytest
from helpers.scripted_replies import ATLAS, CALL, HERMES, Engine, Reply, generating, steps, whole

from edge_eft.engine.reply import Candidate
from edge_eft.engine.request import Request
from edge_eft.server.api_error import ApiError
from edge_eft.server.generation import Ask, begin
from edge_eft.server.openai_chat import ChatWriter, Message


def ended(given):
    async def last():
        return [chunk async for chunk in given.chunks()][-1].done

    return asyncio.run(last())


def test_the_stop_string_that_ended_a_reply_is_named():
    done = ended(generating(steps(["a", ""], ["a", "END"], ends=False, stop_string="END")))
    assert (done.finish_reason, done.generation.stop_string) == ("stop", "END")
    assert ended(generating(steps(["a"]))).generation.stop_string is None


def test_a_reply_that_was_cut_had_no_stop_string():
    done = ended(generating(steps(["aEN"], finish_reason="length", ends=False), stop=("END",)))
    assert (done.finish_reason, done.generation.stop_string) == ("length", None)


@pytest.mark.parametrize(("most", "status"), [(6, None), (5, 400)])
def test_a_whole_answer_explains_only_so_much(monkeypatch, most, status):
    """It is held in memory, and nobody is served while all of it becomes JSON."""
    monkeypatch.setattr("edge_eft.server.generation.MAX_EXPLAINED", most)
    candidates = tuple(Candidate(i, b"a", {"emulated": -1.0, "base": -1.0}) for i in range(2))
    explained = [replace(step, candidates=candidates) for step in steps(["a", "b"])]
    assert len(explained) == 3
    if status is None:
        assert len(whole(ChatWriter("id", "atlas", {}), generating(explained))["choices"]) == 1
        return
    with pytest.raises(ApiError, match="ask for a stream") as refusal:
        whole(ChatWriter("id", "atlas", {}), generating(explained))
    assert (refusal.value.status, refusal.value.param) == (status, "explain")


# -- a reply that goes on after `prefix_ids` ---------------------------------------------------

THOUGHT = ["<think>", "\nIs ", "it? ", "</think>", "\n\n"]
SAID = {
    "thinks": [*THOUGHT, "It ", "is."],
    "says a mark in part": ["a <tool", "_call", " b"],
    "calls": ["Well ", *(CALL[i : i + 5] for i in range(0, len(CALL), 5))],
    "calls twice": [*THOUGHT, CALL, "\n", *(CALL[i : i + 9] for i in range(0, len(CALL), 9))],
}


def going_on(texts, k, form=HERMES, silent=()):
    """What a choice is that has the first `k` of these tokens as its prefix."""
    prefix = [""]
    for text in texts[:k]:
        if text in silent:
            prefix += [text, ""]
        else:
            prefix[-1] += text
    rest = steps(["" if text in silent else text for text in texts], texts)[k:]
    ask = Ask(ATLAS, (Request("Hi"),), parses_tools=True, parses_reasoning=True)
    engine = Engine(replies=[Reply([[step] for step in rest], prefix=prefix)], form=form)
    return asyncio.run(begin(engine, ask, "id"))


def heard(pieces):
    """Content, thoughts, and names and arguments of calls, whatever their parts."""
    message = Message(pieces)
    return message.content, message.reasoning, [c["function"] for c in message.tool_calls]


async def pieces_of(given):
    return [piece async for chunk in given.chunks() for piece in chunk.pieces]


@pytest.mark.parametrize("silent", [(), ("<think>", "</think>")], ids=["text", "control"])
@pytest.mark.parametrize("texts", SAID.values(), ids=SAID)
def test_marks_before_the_seam_are_known_behind_it(texts, silent):
    """What comes is what the whole reply's stream has from there on."""
    form = replace(HERMES, controls=silent)
    complete = asyncio.run(pieces_of(going_on(texts, 0, form, silent)))
    for k in range(len(texts) + 1):
        given = going_on(texts, k, form, silent)
        (before,), after = given.before, asyncio.run(pieces_of(given))
        assert heard([*before, *after]) == heard(complete)
        assert ended(going_on(texts, k, form, silent)).finish_reason == (
            "tool_calls" if heard(complete)[2] else "stop"
        )
        content, thought, _ = heard(before)
        answer = whole(ChatWriter("id", "atlas", {}), going_on(texts, k, form, silent))
        message = answer["choices"][0]["message"]
        assert content + (message["content"] or "") == heard(complete)[0]
        assert thought + message.get("reasoning_content", "") == heard(complete)[1]
        # Of calls all is told: a program can do nothing with a part of one.
        calls = [call["function"] for call in message.get("tool_calls", ())]
        assert calls == heard(complete)[2]
