"""What the one generator says of how a reply ended."""

import asyncio

from helpers.scripted_replies import generating, steps


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
