"""engine: when the process is started and ended."""

import asyncio
import logging
import re

import pytest

from edge_eft.server import engine
from edge_eft.server.engine import Engine
from edge_eft.server.served import ServedRecipe


class Process:
    """Does at once what it is told; notes it."""

    def __init__(self, on_event, on_death):
        self.tell, self.die = on_event, on_death
        made.append(self)
        self.done, self.held = [], None  # what is not done until it is let go
        self.is_full = False

    def send(self, do, **values):
        self.done.append(do)
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
