"""Emulators behind pipes: the program of the child process that the server keeps for native code.

Commands are lines of JSON on stdin, events are lines of JSON on stdout; both are named below and
nowhere else. One thread owns all emulators: it takes the commands that have come, goes one block
forward with every emulator that has work, and tells the steps. Long texts become tokens on another,
and recipes are loaded on a third, so that nobody's reply waits for them. When stdin ends, because
the parent is done or dead, so does this process, even in the middle of native code.

    {"do": "load", "name": N, "toml": T, "path": P, "options": {…}}  → loaded N facts | failed N
      meanwhile                                                      → loading N bytes total
    {"do": "unload", "name": N}                                      → unloaded N
    {"do": "submit", "id": R, "name": N, "request": {…}}             → accepted R | error R
      with "progress": true, while its prompt is read                → progress R progress
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
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO, TypeVar

from ..backend import Grammar
from ..errors import EdgeEftError, EngineError, RequestError
from ..files.recipe_toml import parse_recipe
from ..logits.weights import Weights
from .contexts import Told
from .deadline import Deadline
from .emulator import Emulator
from .facts import facts
from .loader import ModelPool
from .prefix import prefix_parts
from .progress import Loading, Reading
from .request import Request

T = TypeVar("T")
_LONG = 16 << 10  # bytes of a command
_LOAD = "load "  # before the name of a recipe that is being loaded, as an id
_LONGEST_CALL = 10.0  # seconds of llama.cpp with a grammar, which nothing else ends
_TAIL = 48  # tokens of a prompt's end, in which a template opens a mark


class Host:
    """Emulators, the requests that are in work on them, and the commands that steer both."""

    def __init__(self, events: TextIO) -> None:
        self.commands: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._events, self._one_by_one = events, threading.Lock()
        self._pool = ModelPool()
        self._emulators: dict[str, Emulator] = {}
        self._requests: dict[str, tuple[str, int]] = {}  # id → emulator's name, its own id
        self._ids: dict[tuple[str, int], str] = {}
        self._readings: dict[str, Reading] = {}  # of those who want to know
        self._aside: dict[str, _Aside] = {}
        self._reader, self._loader = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._is_long = False  # the command that is being done

    @property
    def has_work(self) -> bool:
        """Whether any request can go on."""
        return any(emulator.busy for emulator in self._emulators.values())

    def emit(self, event: str, **values: Any) -> None:
        """Tell the parent, from any thread; end the process if it is gone."""
        line = json.dumps({"event": event, **values}) + "\n"
        try:
            with self._one_by_one:
                self._events.write(line)
                self._events.flush()
        except OSError:
            os._exit(1)

    def do(self, line: str) -> None:
        """Do one command; what goes wrong becomes an event."""
        command, self._is_long = json.loads(line), len(line) > _LONG
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
        id = command.get("id", "")
        if id.startswith(_LOAD):
            self.emit("failed", name=id.removeprefix(_LOAD), kind=kind, message=message)
        elif id:
            self.emit("error", id=id, kind=kind, message=message, **numbers)
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
                if id in self._readings and (ended := self._readings[id].end()):
                    self.emit("progress", id=id, progress=ended)
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
        self._readings.pop(id, None)

    def _reads(self, name: str, own: int, done: int, total: int) -> None:
        """Tell how far a prompt is, where its reader wants to know."""
        id = self._ids.get((name, own), "")
        if reading := self._readings.get(id):
            self.emit("progress", id=id, progress=reading.at(done, total))

    # -- commands --------------------------------------------------------------------------

    def _do_load(self, name: str, toml: str, path: str, options: dict[str, Any]) -> None:
        recipe = parse_recipe(toml.encode(), Path(path))

        def told(done: int, total: int) -> None:
            self.emit("loading", name=name, bytes=done, total=total)

        def made() -> tuple[Emulator, dict[str, Any]]:
            emulator = Emulator(recipe, pool=self._pool, on_load=Loading(told), **options)
            emulator.prefill.on_progress = partial(self._reads, name)
            return emulator, facts(emulator)

        def loaded(one: tuple[Emulator, dict[str, Any]]) -> None:
            self._emulators[name], about = one
            self.emit("loaded", name=name, facts=about)

        loading = any(id.startswith(_LOAD) for id in self._aside)  # and they share a pool
        thread = self._loader if self._emulators or loading else None
        self._make(_LOAD + name, name, made, loaded, thread)

    def _do_unload(self, name: str) -> None:
        for id in [one for one, (where, _) in self._requests.items() if where == name]:
            self._do_cancel(id)
        # Nobody may be reading its vocabulary, or sharing its files with what is being loaded.
        aside = self._aside.items()
        wait([one.made for id, one in aside if one.name == name or id.startswith(_LOAD)])
        if emulator := self._emulators.pop(name, None):
            emulator.close()
        self.emit("unloaded", name=name)

    def _emulator(self, name: str) -> Emulator:
        if name not in self._emulators:
            raise RequestError(f"{name} is not loaded")
        return self._emulators[name]

    def _do_submit(
        self, id: str, name: str, request: dict[str, Any], progress: bool = False
    ) -> None:
        asked = Request.from_dict(request)
        make = partial(self._emulator(name).encode, asked)
        thread = self._reader if self._is_long else None

        def submit(told: Told) -> None:
            self._submit(id, name, asked, told)
            if progress:
                self._readings[id] = Reading()

        self._make(id, name, make, submit, thread)

    def _make(
        self,
        id: str,
        name: str,
        make: Callable[[], T],
        go_on: Callable[[T], object],
        thread: ThreadPoolExecutor | None,
    ) -> None:
        """Go on with what `make` makes of a command: on this thread, or beside it on another."""
        if thread is None:
            go_on(make())
            return
        made = thread.submit(make)
        self._aside[id] = _Aside(name, made, go_on)
        made.add_done_callback(lambda _: self.commands.put(json.dumps({"do": "go_on", "id": id})))

    def _do_go_on(self, id: str) -> None:
        found = self._aside.pop(id)
        if found.go_on:
            found.go_on(found.made.result())

    def _submit(self, id: str, name: str, request: Request, told: Told) -> None:
        emulator = self._emulator(name)
        own = emulator.submit(request, told=told)
        self._requests[id] = name, own
        self._ids[name, own] = id
        piece = emulator.contexts.pieces(emulator.vocabulary.adopters)
        prefix = prefix_parts(request, piece)
        self.emit("accepted", id=id, tail=self._tail(emulator, own), prefix=prefix)

    def _tail(self, emulator: Emulator, own: int) -> str:
        """Return the end of the tuned model's prompt as text: a mark may be open there."""
        prompts = emulator.prompt_of(own)
        role = next((role for role in prompts if role.startswith("tuned")), next(iter(prompts)))
        return self._ask_detokenize(emulator, prompts[role][-_TAIL:].tolist())

    def _do_cancel(self, id: str) -> None:
        if aside := self._aside.get(id):  # it stays there until the other thread is done with it
            aside.made.cancel()
            aside.go_on = None
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
        # To set weights is quick, and changes the emulator.
        thread = self._reader if self._is_long and what != "set_weights" else None
        make = partial(getattr(self, f"_ask_{what}"), self._emulator(name), **arguments)
        self._make(id, name, make, lambda answer: self.emit("answer", id=id, answer=answer), thread)

    # -- questions; long ones on another thread ---------------------------------------------

    def _ask_tokenize(
        self,
        emulator: Emulator,
        parts: list[str | int],
        add_special: bool,
        parse_special: bool,
        with_pieces: bool,
        is_prompt: bool,
    ) -> list[Any]:
        """Return the ids of texts and ids, or [id, piece as latin-1] of each.

        A BOS only goes before a text. A prompt that cannot fit is not tokenised.
        """
        base, ids = emulator.contexts[0], list[int]()
        if is_prompt:
            n = sum(1 if isinstance(one, int) else base.model.fewest_tokens(one) for one in parts)
            emulator.contexts.check_room(base.name, 0, n, least=True)
        for i, part in enumerate(parts):
            if isinstance(part, int):
                ids.append(part)
                continue
            first = add_special and i == 0
            ids += base.model.tokenize(part, add_special=first, parse_special=parse_special)
        if not with_pieces:
            return ids
        return [[i, base.model.piece(i, special=True).decode("latin-1")] for i in ids]

    def _ask_set_weights(
        self, emulator: Emulator, request: str, weights: dict[str, Any]
    ) -> int | None:
        """Change the weights of a request in work. Returns how many tokens came before that.

        None if it has ended meanwhile.
        """
        if found := self._requests.get(request):
            return emulator.set_weights(found[1], Weights.from_dict(weights))
        return None

    def _ask_detokenize(self, emulator: Emulator, tokens: list[int]) -> str:
        """Return the text of tokens, with the texts of control tokens."""
        model = emulator.contexts[0].model
        return b"".join(model.piece(i, special=True) for i in tokens).decode("utf-8", "replace")

    def _ask_prompts(self, emulator: Emulator, request: dict[str, Any]) -> dict[str, Any]:
        """Return role → text and token ids of a request's prompt, without answering it."""
        told = emulator.encode(Request.from_dict(request))
        return {
            emulator.contexts[i].name: {"text": self._ask_detokenize(emulator, ids), "tokens": ids}
            for i, ids in told.items()
        }


@dataclass
class _Aside:
    """What another thread makes for a command on an emulator, and how it goes on, if it does."""

    name: str
    made: Future[Any]
    go_on: Callable[[Any], object] | None


def main() -> None:
    """Do what stdin says until it ends."""
    # A terminal's Ctrl-C and a service manager's end are for the parent, which closes stdin.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # native code that prints must not break the protocol
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    Grammar.guard = Deadline(
        _LONGEST_CALL,
        f"a request's grammar kept llama.cpp busy for more than {_LONGEST_CALL:g} seconds; let its "
        "alternatives begin with different characters",
    )
    host = Host(events)
    threading.Thread(target=_read_commands, args=(host.commands,), daemon=True).start()
    while True:
        while not (host.has_work and host.commands.empty()):
            host.do(host.commands.get())
        host.step()


def _read_commands(commands: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        commands.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
