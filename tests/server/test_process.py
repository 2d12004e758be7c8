"""process: a process that has ended tells it once, and not to those who ended it."""

import asyncio
import os
import threading

import psutil
import pytest

from edge_eft.server import process
from edge_eft.server.process import EngineProcess


@pytest.fixture
def child(monkeypatch):
    """A child that dies when told to, and whose end takes as long as wanted."""

    class Child:
        def __init__(self, *_):
            reading, self.writing = os.pipe()
            self.stdout = os.fdopen(reading)
            self.go, self.pid = threading.Event(), os.getpid()
            made.append(self)

        def end(self):
            assert self.go.wait(10)
            return "killed"

    made = []
    monkeypatch.setattr(process, "Child", Child)
    return made


@pytest.mark.parametrize("is_stopped", [False, True])
def test_a_death_is_not_told_of_a_process_that_is_stopped_meanwhile(child, is_stopped):
    """It was: by then another process had taken its place, and was forgotten while it ran."""
    told = []

    async def die():
        one = EngineProcess(print, told.append)
        os.close(child[0].writing)
        while one._ending is None:
            await asyncio.sleep(0)
        stopping = asyncio.ensure_future(one.stop() if is_stopped else asyncio.sleep(0.1))
        await asyncio.sleep(0)
        child[0].go.set()
        await stopping
        await one._ending

    asyncio.run(die())
    assert told == ([] if is_stopped else ["killed"])


def test_its_memory_is_known_until_it_is_dead(child):
    async def look():
        one = EngineProcess(print, print)
        alive, pages = one.memory(), psutil.Process().memory_info().rss
        child[0].pid = 2**22 + 1  # no system has so many
        dead = one.memory()
        os.close(child[0].writing)
        child[0].go.set()
        await one.stop()
        return alive, dead, pages

    alive, dead, pages = asyncio.run(look())
    assert alive.resident == pytest.approx(pages, rel=0.1)
    assert 0 < alive.of_files <= alive.resident
    assert dead == (0, 0)
