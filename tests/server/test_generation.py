"""What the one generator says of how a reply ended."""

import asyncio

import pytest
from helpers.scripted_replies import generating, steps


def ended(given):
    async def last():
        return [chunk async for chunk in given.chunks()][-1].done

    return asyncio.run(last())


@pytest.mark.parametrize(
    ("stop", "texts", "pieces", "found"),
    [
        (("END", "\n"), ["one ", ""], ["one ", "END"], "END"),
        (("END", "\n"), ["END of it", ""], ["one\tEND of it", "\n."], "\n"),
        (("abcd", "bc"), ["", ""], ["ab", "cd"], "bc"),  # it was complete first
        (("xé",), ["a", "", ""], ["a", "x", "é"], "xé"),
        (("never",), ["a", "b"], ["a", "b"], None),
    ],
)
def test_the_stop_string_that_ended_a_reply_is_named(stop, texts, pieces, found):
    by_stop = found is not None
    given = generating(steps(texts, pieces, ends=not by_stop), stop=stop)
    assert ended(given).stop_string == found


def test_a_control_token_that_ended_a_reply_is_named_if_it_was_a_stop_string():
    assert ended(generating(steps(["a"]), stop=("<|im_end|>",))).stop_string == "<|im_end|>"
    assert ended(generating(steps(["a"]), stop=("b",))).stop_string is None


def test_a_reply_that_was_cut_had_no_stop_string():
    done = ended(generating(steps(["aEN"], finish_reason="length", ends=False), stop=("END",)))
    assert (done.finish_reason, done.stop_string) == ("length", None)
