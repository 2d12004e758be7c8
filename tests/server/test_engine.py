"""engine: when the process is started and ended."""

import asyncio

import pytest

from edge_eft.server import engine
from edge_eft.server.engine import Engine
from edge_eft.server.served import ServedRecipe


@pytest.fixture
def done(monkeypatch):
    """What is done with processes, which load and accept at once."""

    class Process:
        def __init__(self, on_event, on_death):
            self.tell = on_event

        def send(self, do, **values):
            events = {
                "load": {"event": "loaded", "facts": {}},
                "submit": {"event": "accepted", "tail": ""},
            }
            told = {**events[do], **{k: v for k, v in values.items() if k in ("id", "name")}}
            asyncio.get_running_loop().call_soon(self.tell, told)
            done.append(do)

        async def stop(self):
            done.append("stop")

    done = []
    monkeypatch.setattr(engine, "EngineProcess", Process)
    return done


def test_a_model_that_is_unloaded_at_once_is_loaded_once_for_a_request(done, monkeypatch):
    """It was unloaded between the reading of a body and the submission, and loaded again."""
    monkeypatch.setattr(engine, "_AT_ONCE", 0.2)

    async def ask():
        recipes = {"a": ServedRecipe("a", "", "")}
        one = Engine(recipes, {"n_slots": 1}, queue=0, keep_alive=0, max_deaths=3)
        await asyncio.ensure_future(one.ready("a"))
        await asyncio.sleep(0.05)
        (reply,) = await asyncio.ensure_future(one.submit("a", [{}]))
        await reply.accepted()
        await asyncio.sleep(0.3)
        assert done == ["load", "submit"]
        one.forget(reply)
        await asyncio.sleep(0.3)

    asyncio.run(ask())
    assert done == ["load", "submit", "stop"]
