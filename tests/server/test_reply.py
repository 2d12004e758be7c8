"""reply: what waits for a slow reader is bounded, in tokens and in what is told of them."""

import asyncio

import pytest

from edge_eft.engine.request import Request
from edge_eft.server.reply import PAUSE_AT, PromptProgress, Reply

STEP = {"request_id": "r1", "index": 0, "token": 1, "text": "a", "logprob": -0.5, "timings": {}}


class Engine:
    """Notes what it is told."""

    def __init__(self):
        self.told = []

    def tell(self, reply, do):
        self.told.append(do)

    def forget(self, reply):
        pass


def reply(**options):
    engine = Engine()
    return Reply("r1", "atlas", engine, Request("a", **options).to_dict()), engine


@pytest.mark.parametrize(
    ("options", "low", "high"),
    [({}, 100, 200), ({"top_logprobs": 20}, 20, 50), ({"explain": 50, "top_logprobs": 50}, 1, 8)],
)
def test_a_reply_pauses_the_sooner_the_more_each_step_tells(options, low, high):
    waiting, engine = reply(**options)
    n = 0
    while not engine.told:
        waiting.take(STEP)
        n += 1
    assert low <= n <= high
    for _ in range(PAUSE_AT):
        waiting.take(STEP)
    assert engine.told == ["pause"]


def test_it_goes_on_when_the_reader_has_taken_what_there_was():
    waiting, engine = reply()

    async def read():
        stream = waiting.steps()
        for _ in range(PAUSE_AT):
            waiting.take(STEP)
        assert len(await anext(stream)) == PAUSE_AT
        assert engine.told == ["pause"]  # the reader may be at it still
        waiting.take(STEP)
        assert len(await anext(stream)) == 1
        assert engine.told == ["pause", "unpause"]

    asyncio.run(read())


def test_a_reader_who_is_late_is_told_the_newest_progress_and_that_before_the_steps():
    waiting, engine = reply()

    async def read():
        stream = waiting.steps()
        for processed in (0, 64, 128):
            waiting.read(PromptProgress(200, 0, processed, 1.0))
        assert await anext(stream) == PromptProgress(200, 0, 128, 1.0)
        waiting.read(PromptProgress(200, 0, 200, 2.0))
        waiting.take({**STEP, "finish_reason": "stop"})
        assert (await anext(stream)).processed == 200
        assert len(await anext(stream)) == 1
        assert [more async for more in stream] == []

    asyncio.run(read())
    assert engine.told == []
