"""engine: when the process is started and ended."""

import asyncio
import logging
import re

import pytest

from edge_eft.server import engine
from edge_eft.server.engine import Engine
from edge_eft.server.failure import UnservedError
from edge_eft.server.process import Memory
from edge_eft.server.reply import PromptProgress
from edge_eft.server.served import ServedRecipe


class Process:
    """Does at once what it is told; notes it."""

    def __init__(self, on_event, on_death):
        self.tell, self.die = on_event, on_death
        made.append(self)
        self.done, self.sent, self.held = [], [], None  # what is not done until it is let go
        self.is_full = False
        self.of_files = 0

    def memory(self):
        return Memory(1000 + self.of_files, self.of_files)

    def send(self, do, **values):
        self.done.append(do)
        self.sent.append((do, values))
        told = {
            "load": {"event": "loaded", "facts": {"warnings": ["n_ctx is odd"]}},
            "unload": {"event": "unloaded"},
            "submit": {"event": "accepted", "tail": "", "prefix": []},
            "ask": {"event": "answer", "answer": 7},
        }[do]
        if do == "load" and self.is_full:
            self.is_full = False
            told = {"event": "failed", "kind": "NotEnoughMemoryError", "message": "too large"}
        told |= {name: values[name] for name in ("id", "name") if name in values}
        if do == self.held:
            self.go = lambda: self.tell(told)
        else:
            asyncio.get_running_loop().call_soon(self.tell, told)

    async def stop(self):
        self.done.append("stop")


made = []


@pytest.fixture
def served(monkeypatch):
    """Makes an engine of these recipes, which rests soon."""
    made.clear()
    monkeypatch.setattr(engine, "EngineProcess", Process)
    monkeypatch.setattr(engine, "_AT_ONCE", 0.2)
    return lambda names: Engine(
        {name: ServedRecipe(name, "", "") for name in names},
        {"n_slots": 1},
        queue=0,
        keep_alive=0,
        max_deaths=3,
    )


def test_a_model_that_is_unloaded_at_once_is_loaded_once_for_a_request(served):
    """It was unloaded between the reading of a body and the submission, and loaded again."""

    async def ask():
        one = served("a")
        await asyncio.ensure_future(one.ready("a"))
        await asyncio.sleep(0.05)
        (reply,) = await asyncio.ensure_future(one.submit("a", [{}]))
        await reply.accepted()
        await asyncio.sleep(0.3)
        assert made[0].done == ["load", "submit"]
        one.forget(reply)
        await asyncio.sleep(0.3)

    asyncio.run(ask())
    assert made[0].done == ["load", "submit", "stop"]
    assert len(made) == 1


def test_nothing_rests_while_one_recipe_makes_room_for_another(served):
    """The timer of a third one's question ended the process, and the load with it."""

    async def ask():
        one = served("abc")
        await one.ready("a")
        await one.ready("c")
        process = made[0]
        process.is_full, process.held = True, "unload"
        loading = asyncio.ensure_future(one.ready("b"))
        await asyncio.sleep(0.01)
        assert await one.ask("c", "detokenize", tokens=[]) == 7
        await asyncio.sleep(0.4)
        process.go()
        await loading
        assert process.done == ["load", "load", "load", "unload", "ask", "load"]
        await asyncio.sleep(0.4)
        assert process.done[-1] == "stop"

    asyncio.run(ask())


@pytest.fixture
def said(monkeypatch):
    """Level and text of what is logged, numbers of seconds left out."""
    lines, handler = [], logging.Handler()

    def emit(record):
        text = re.sub(r"[0-9]+\.[0-9] s", "N s", record.getMessage())
        lines.append((record.levelname, text))

    handler.emit = emit
    monkeypatch.setattr(engine.log, "handlers", [handler])
    engine.log.setLevel(logging.INFO)
    yield lines
    engine.log.setLevel(logging.NOTSET)


def test_it_is_said_what_is_loaded_and_unloaded_and_its_warnings_once(served, said):
    """A recipe's warnings were said in the engine's process alone, where nobody hears them."""

    async def ask():
        one = served("ab")
        for _ in range(2):
            await asyncio.gather(one.ready("a"), one.ready("a"))
            await one.ready("b")
            await one.unload("a")
            await asyncio.sleep(0.4)  # it rests

    asyncio.run(ask())
    a, b = (("INFO", f"{name} is loaded, in N s") for name in "ab")
    end_a, end_b = (("INFO", f"{name} is unloaded") for name in "ab")
    warned_a, warned_b = (("WARNING", f"{name}: n_ctx is odd") for name in "ab")
    first = [a, warned_a, b, warned_b, end_a, end_b]
    assert said == [*first, a, b, end_a, end_b]


def test_after_the_last_death_it_is_said_that_it_stays_down(served, said):
    async def die():
        one = served("a")
        for _ in range(3):
            await one.ready("a")
            made[-1].die("SIGKILL")

    asyncio.run(die())
    assert [text for _, text in said].count("the engine died: SIGKILL") == 3
    (told,) = (text for level, text in said if level == "ERROR")
    assert told == said[-1][1]
    assert told.startswith("the engine died 3 times in a minute and is not started again")


def test_a_loading_tells_the_bytes_that_the_engine_says_or_that_it_has_of_files(served):
    """llama.cpp says nothing while it maps a file: the whole of a cold disk was waited for."""

    async def load():
        one, seen = served("ab"), []
        assert (one.progress, one.memory) == (None, 0)
        loading = asyncio.ensure_future(one.ready("a"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        process = made[0]
        for of_files, told in ((50, 0), (50, None), (90, None), (80, None), (80, 60), (80, 100)):
            process.of_files = of_files
            if told is not None:
                process.tell({"event": "loading", "name": "a", "bytes": told, "total": 100})
            seen.append(one.progress)
        assert one.memory == 1080
        process.of_files = 900
        seen.append(one.progress)
        await loading
        assert {each["total"] for each in seen} == {100}
        assert one.progress is None
        await one.stop()
        assert one.memory == 0
        return [each["bytes"] for each in seen]

    assert asyncio.run(load()) == [0, 0, 40, 40, 60, 100, 100]


def test_a_loading_that_fails_or_dies_is_under_way_no_more(served):
    async def load():
        one = served("a")
        loading = asyncio.ensure_future(one.ready("a"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        made[0].tell({"event": "loading", "name": "a", "bytes": 0, "total": 100})
        assert one.progress
        made[0].die("SIGKILL")
        with pytest.raises(UnservedError):
            await loading
        assert one.progress is None

    asyncio.run(load())


def test_who_wants_no_progress_is_submitted_without_and_who_does_gets_it(served):
    async def ask():
        one = served("a")
        (plain,) = await one.submit("a", [{}])
        one.forget(plain)
        (reply,) = await one.submit("a", [{}], progress=True)
        told = {"total": 9, "cache": 0, "processed": 3, "time_ms": 1.0}
        for id in (plain.id, reply.id):
            made[0].tell({"event": "progress", "id": id, "progress": told})
        assert await anext(reply.steps()) == PromptProgress(**told)
        return [values.get("progress") for do, values in made[0].sent if do == "submit"]

    assert asyncio.run(ask()) == [None, True]
