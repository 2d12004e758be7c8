"""Emulators behind pipes: the program of the child process that the server keeps for native code.

Commands are lines of JSON on stdin, events are lines of JSON on stdout; both are named below and
nowhere else. One thread owns all emulators: it takes the commands that have come, goes one block
forward with every emulator that has work, and tells the steps. When stdin ends, because the parent
is done or dead, so does this process, even in the middle of native code.

    {"do": "load", "name": N, "toml": T, "path": P, "options": {…}}  → loaded N facts | failed N
    {"do": "unload", "name": N}                                      → unloaded N
    {"do": "submit", "id": R, "name": N, "request": {…}}             → accepted R | error R
    {"do": "cancel" | "pause" | "unpause", "id": R}
    {"do": "ask", "id": R, "name": N, "what": W, …}                  → answer R | error R
    at any time                                                      → steps, error R

An error says its `kind`, the class of `errors` it is of, or "Defect" for a fault of ours.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, TextIO

from ..errors import EdgeEftError, EngineError, RequestError
from ..files.recipe_toml import parse_recipe
from ..logits.weights import Weights
from .emulator import Emulator
from .facts import facts
from .loader import ModelPool
from .request import Request

_TAIL = 48  # tokens of a prompt's end, in which a template opens a mark


class Host:
    """Emulators, the requests that are in work on them, and the commands that steer both."""

    def __init__(self, events: TextIO) -> None:
        self._events = events
        self._pool = ModelPool()
        self._emulators: dict[str, Emulator] = {}
        self._requests: dict[str, tuple[str, int]] = {}  # id → emulator's name, its own id
        self._ids: dict[tuple[str, int], str] = {}

    @property
    def has_work(self) -> bool:
        """Whether any request can go on."""
        return any(emulator.busy for emulator in self._emulators.values())

    def emit(self, event: str, **values: Any) -> None:
        """Tell the parent; end the process if it is gone."""
        try:
            self._events.write(json.dumps({"event": event, **values}) + "\n")
            self._events.flush()
        except OSError:
            os._exit(1)

    def do(self, command: dict[str, Any]) -> None:
        """Do one command; what goes wrong becomes an event."""
        name = command.pop("do")
        try:
            getattr(self, f"_do_{name}")(**command)
        except EdgeEftError as error:
            numbers = vars(error)  # of a ContextLengthError
            self._say_error(name, command, type(error).__name__, str(error), **numbers)
        except Exception as error:  # a fault of ours must not take the others' replies along
            traceback.print_exc()
            self._say_error(name, command, "Defect", f"{type(error).__name__}: {error}")

    def _say_error(
        self, done: str, command: dict[str, Any], kind: str, message: str, **numbers: int
    ) -> None:
        if "id" in command:
            self.emit("error", id=command["id"], kind=kind, message=message, **numbers)
        else:
            event = "failed" if done == "load" else "unloaded"
            self.emit(event, name=command["name"], kind=kind, message=message)

    def step(self) -> None:
        """Go one block forward with every emulator that has work, and tell the steps."""
        for name, emulator in list(self._emulators.items()):
            if not emulator.busy:
                continue
            try:
                steps = emulator.step()
            except EngineError as error:
                self._fail(name, error)
                continue
            told = []
            for step in steps:
                id = self._ids[name, step.request_id]
                told.append({**step.to_dict(), "request_id": id})
                if step.finish_reason:
                    self._forget(id)
            if told:
                self.emit("steps", steps=told)

    def _fail(self, name: str, error: EngineError) -> None:
        """Tell an error of one request, or of all of an emulator where llama.cpp failed."""
        own = error.request_id
        for id in [one for one, (where, i) in self._requests.items() if where == name]:
            if own is None or self._requests[id][1] == own:
                self._do_cancel(id)
                self.emit("error", id=id, kind=type(error).__name__, message=str(error))

    def _forget(self, id: str) -> None:
        self._ids.pop(self._requests.pop(id), None)

    # -- commands --------------------------------------------------------------------------

    def _do_load(self, name: str, toml: str, path: str, options: dict[str, Any]) -> None:
        recipe = parse_recipe(toml.encode(), Path(path))
        self._emulators[name] = Emulator(recipe, pool=self._pool, **options)
        self.emit("loaded", name=name, facts=facts(self._emulators[name]))

    def _do_unload(self, name: str) -> None:
        for id in [one for one, (where, _) in self._requests.items() if where == name]:
            self._do_cancel(id)
        if emulator := self._emulators.pop(name, None):
            emulator.close()
        self.emit("unloaded", name=name)

    def _emulator(self, name: str) -> Emulator:
        if name not in self._emulators:
            raise RequestError(f"{name} is not loaded")
        return self._emulators[name]

    def _do_submit(self, id: str, name: str, request: dict[str, Any]) -> None:
        emulator = self._emulator(name)
        own = emulator.submit(Request.from_dict(request))
        self._requests[id] = name, own
        self._ids[name, own] = id
        self.emit("accepted", id=id, tail=self._tail(emulator, own))

    def _tail(self, emulator: Emulator, own: int) -> str:
        """Return the end of the tuned model's prompt as text: a mark may be open there."""
        prompts = emulator.prompt_of(own)
        role = next((role for role in prompts if role.startswith("tuned")), next(iter(prompts)))
        return self._ask_detokenize(emulator, prompts[role][-_TAIL:].tolist())

    def _do_cancel(self, id: str) -> None:
        if found := self._requests.get(id):
            self._emulators[found[0]].cancel(found[1])
            self._forget(id)

    def _do_pause(self, id: str) -> None:
        if found := self._requests.get(id):
            self._emulators[found[0]].pause(found[1])

    def _do_unpause(self, id: str) -> None:
        if found := self._requests.get(id):
            self._emulators[found[0]].unpause(found[1])

    def _do_ask(self, id: str, name: str, what: str, **arguments: Any) -> None:
        answer = getattr(self, f"_ask_{what}")(self._emulator(name), **arguments)
        self.emit("answer", id=id, answer=answer)

    # -- questions -------------------------------------------------------------------------

    def _ask_tokenize(
        self, emulator: Emulator, text: str, add_special: bool, parse_special: bool
    ) -> list[list[Any]]:
        """Return [id, piece as latin-1] of every token of a text."""
        model = emulator.contexts[0].model
        ids = model.tokenize(text, add_special=add_special, parse_special=parse_special)
        return [[i, model.piece(i, special=True).decode("latin-1")] for i in ids]

    def _ask_set_weights(self, emulator: Emulator, request: str, weights: dict[str, Any]) -> None:
        """Change the weights of a request in work; it may have ended meanwhile."""
        if found := self._requests.get(request):
            emulator.set_weights(found[1], Weights.from_dict(weights))

    def _ask_detokenize(self, emulator: Emulator, tokens: list[int]) -> str:
        """Return the text of tokens, with the texts of control tokens."""
        model = emulator.contexts[0].model
        return b"".join(model.piece(i, special=True) for i in tokens).decode("utf-8", "replace")

    def _ask_prompts(self, emulator: Emulator, request: dict[str, Any]) -> dict[str, Any]:
        """Return role → text and token ids of a request's prompt, without answering it."""
        own = emulator.submit(Request.from_dict(request))
        try:
            prompts = emulator.prompt_of(own)
        finally:
            emulator.cancel(own)
        return {
            role: {"text": self._ask_detokenize(emulator, ids.tolist()), "tokens": ids.tolist()}
            for role, ids in prompts.items()
        }


def main() -> None:
    """Do what stdin says until it ends."""
    # A terminal's Ctrl-C and a service manager's end are for the parent, which closes stdin.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # native code that prints must not break the protocol
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    commands: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read_commands, args=(commands,), daemon=True).start()
    host = Host(events)
    while True:
        while not (host.has_work and commands.empty()):
            host.do(json.loads(commands.get()))
        host.step()


def _read_commands(commands: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        commands.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
