"""Which recipes are served, loaded and busy, and what becomes of them when the engine dies.

One process (`process.py`) holds all recipes that are loaded, so that they share files. It is
started when a request needs it, ended when none came for a while, and started again when it dies.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping
from itertools import count
from typing import Any, Literal

from .failure import UnservedError, failure_of
from .process import EngineProcess, Event, Memory
from .reply import PromptProgress, Reply
from .served import FilesRead, RecipeState, ServedRecipe

log = logging.getLogger(__name__)

Status = Literal["ok", "loading", "idle", "restarting", "down"]

DEATH_WINDOW = 60.0  # seconds; after max_deaths in them the process is left alone
_AT_ONCE = 1.0  # second without requests: one request may need the engine more than once


class Engine:
    """The engine as the routes see it. Made and used on one event loop.

    Args:
        recipes: in the order of the command line; the first is loaded by `start`.
        load_options: as `Emulator` takes them: n_ctx, n_threads, n_gpu_layers, n_slots.
        queue: how many requests of a recipe may wait for a slot.
        keep_alive: seconds without requests after which all is unloaded; None: never.
        max_deaths: so many deaths of the process in a minute, and it is not started again.
    """

    def __init__(
        self,
        recipes: Mapping[str, ServedRecipe],
        load_options: Mapping[str, Any],
        *,
        queue: int,
        keep_alive: float | None,
        max_deaths: int,
    ) -> None:
        self._recipes = {name: RecipeState(served) for name, served in recipes.items()}
        self._load_options = dict(load_options)
        self.n_slots = int(load_options.get("n_slots") or 1)
        self.queue = queue
        self._keep_alive, self._max_deaths = keep_alive, max_deaths
        self._process: EngineProcess | None = None
        self._ids = count(1)
        self._replies: dict[str, Reply] = {}
        self._answers: dict[str, asyncio.Future[Any]] = {}
        self._deaths: deque[float] = deque(maxlen=max_deaths)
        self._idle_timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self.n_deaths, self.last_words = 0, ""  # of the process
        self.down = False
        self._started = False

    # -- what is going on ------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """The recipes, in the order of the command line."""
        return list(self._recipes)

    @property
    def status(self) -> Status:
        """What a health check is told."""
        if self.down:
            return "down"
        if any(one.loaded for one in self._recipes.values()):
            return "ok"
        if any(one.loading and not one.loading.done() for one in self._recipes.values()):
            return "restarting" if self._deaths else "loading"
        return "idle" if self._started else "loading"

    @property
    def progress(self) -> dict[str, int] | None:
        """How far a loading is, in bytes of files, if one is under way: "bytes" of "total"."""
        files = next((one.files for one in self._recipes.values() if one.files), None)
        return files.note(0, self._memory().of_files) if files else None

    @property
    def memory(self) -> int:
        """Bytes of the engine's process that are in memory; 0 while there is none."""
        return self._memory().resident

    def _memory(self) -> Memory:
        return self._process.memory() if self._process else Memory(0, 0)

    def served(self, name: str) -> ServedRecipe:
        """Return a recipe as it was given."""
        return self._recipes[name].served

    def facts(self, name: str) -> dict[str, Any] | None:
        """Return what the engine said of a recipe when it was last loaded; None before."""
        return self._recipes[name].facts

    def is_loaded(self, name: str) -> bool:
        """Return whether a recipe is loaded."""
        return self._recipes[name].loaded

    def replies(self, name: str) -> list[Reply]:
        """Return a recipe's requests in work, the oldest first."""
        return sorted(self._recipes[name].replies, key=lambda reply: reply.begun)

    # -- life ------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load the first recipe. Raises UnservedError if it cannot be."""
        try:
            await self.ready(self.names[0])
        finally:
            self._started = True

    async def stop(self) -> None:
        """End the process; what is in work fails."""
        self._set_idle_timer(None)
        await self._end("the server is stopping")
        for task in self._tasks:
            task.cancel()

    async def ready(self, name: str) -> dict[str, Any]:
        """Return a recipe's facts once it is loaded, loading it if it is not.

        Raises:
            UnservedError: it cannot be loaded.
        """
        recipe = self._recipes[name]
        recipe.used = time.monotonic()
        self._set_idle_timer(None)
        try:
            if self.down:
                raise UnservedError("EngineDown", self.why_down())
            if recipe.loading is None or (recipe.loading.done() and not recipe.loaded):
                recipe.loading = asyncio.ensure_future(self._load(recipe))
            # A client that goes away while it waits must not take the others' loading along.
            return await asyncio.shield(recipe.loading)
        finally:
            self._watch_idle()

    async def _load(self, recipe: RecipeState) -> dict[str, Any]:
        """Load a recipe, and make room for it by unloading others, the longest unused first.

        What is to be said of it is logged when it is loaded for the first time.
        """
        name, begun = recipe.served.name, time.monotonic()
        while True:
            process = self._process = self._process or EngineProcess(self._take, self._died)
            answer = self._expect(f"load {name}")
            process.send(
                "load",
                name=name,
                toml=recipe.served.toml,
                path=recipe.served.path,
                options=self._load_options,
            )
            try:
                facts: dict[str, Any] = await answer
            except UnservedError as failure:
                others = [one for one in self._recipes.values() if one.loaded and not one.replies]
                if failure.cause != "NotEnoughMemoryError" or not others:
                    raise
                await self._unload(min(others, key=lambda one: one.used))
            else:
                log.info("%s is loaded, in %.1f s", name, time.monotonic() - begun)
                if recipe.facts is None:
                    for warning in facts["warnings"]:
                        log.warning("%s: %s", name, warning)
                recipe.facts = facts
                return facts
            finally:
                recipe.files = None

    async def _unload(self, recipe: RecipeState) -> None:
        assert self._process is not None
        name = recipe.served.name
        recipe.loading = None
        answer = self._expect(f"unload {name}")
        self._process.send("unload", name=name)
        await answer
        log.info("%s is unloaded", name)

    def _expect(self, id: str) -> asyncio.Future[Any]:
        """Return what the process will answer."""
        answer = self._answers[id] = asyncio.get_running_loop().create_future()
        return answer

    async def _end(self, why: str) -> None:
        """End the process on purpose."""
        process, self._process = self._process, None
        self._drop_all(UnservedError("EngineStopped", why))
        if process:
            await process.stop()

    def _drop_all(self, failure: UnservedError) -> None:
        """Let all that waits for the process fail: nothing more will come."""
        for recipe in self._recipes.values():
            if recipe.loading is not None and recipe.loading.done():
                recipe.loading = None
        for future in self._answers.values():
            if not future.done():
                future.set_exception(failure)
                future.exception()  # nobody may be waiting any more
        self._answers.clear()
        for reply in list(self._replies.values()):
            reply.fail(failure)

    def _died(self, reason: str) -> None:
        was_loaded = [name for name, one in self._recipes.items() if one.loaded or one.replies]
        self._process, self.last_words = None, reason
        self.n_deaths += 1
        self._deaths.append(time.monotonic())
        log.warning("the engine died: %s", reason)
        if len(self._deaths) == self._max_deaths:
            self.down = self._deaths[-1] - self._deaths[0] < DEATH_WINDOW
        again = "it is being started again; ask again"
        if self.down:
            again = self.why_down()
            log.error("%s", again)
        self._drop_all(UnservedError("EngineDied", f"the engine died: {reason}; {again}"))
        if not self.down:
            for name in was_loaded:
                self._run(self._reload(name))

    async def _reload(self, name: str) -> None:
        try:
            await self.ready(name)
        except UnservedError as failure:
            log.warning("%s could not be loaded again: %s", name, failure)

    def why_down(self) -> str:
        """Return why the engine is not started again, and what to do."""
        return (
            f"the engine died {self._max_deaths} times in a minute and is not started again; its "
            f"last words: {self.last_words}; mend that, and start the server again"
        )

    def _run(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _set_idle_timer(self, seconds: float | None) -> None:
        if self._idle_timer:
            self._idle_timer.cancel()
            self._idle_timer = None
        if seconds is not None:
            loop = asyncio.get_running_loop()
            self._idle_timer = loop.call_later(seconds, lambda: self._run(self._rest()))

    def _watch_idle(self) -> None:
        """Begin to count the time without requests, if there are none."""
        if not self._replies and not self._answers and self._process is not None:
            after = self._keep_alive
            self._set_idle_timer(None if after is None else max(after, _AT_ONCE))

    @property
    def idle_left(self) -> float | None:
        """Seconds until all is unloaded if no request comes; None: it never is."""
        if self._idle_timer is None:
            return self._keep_alive
        return max(0.0, self._idle_timer.when() - asyncio.get_running_loop().time())

    async def unload(self, name: str) -> None:
        """Unload a recipe, unless something is in work on it; the last one ends the process."""
        recipe = self._recipes[name]
        if not recipe.loaded or recipe.replies:
            return
        if any(one.loading for one in self._recipes.values() if one is not recipe):
            await self._unload(recipe)
            self._watch_idle()
        else:
            await self._rest()

    async def _rest(self) -> None:
        if not self._replies and not self._answers:
            names = [name for name, one in self._recipes.items() if one.loaded]
            await self._end("the models were unloaded")
            for name in names:
                log.info("%s is unloaded", name)

    # -- requests --------------------------------------------------------------------------

    async def submit(
        self, name: str, requests: list[dict[str, Any]], *, progress: bool = False
    ) -> list[Reply]:
        """Submit requests to one recipe, once it is loaded. Returns their replies to come.

        Args:
            name: the recipe's.
            requests: plain data of `Request`s.
            progress: whether the replies tell how far their prompts are read.

        Raises:
            UnservedError: the recipe cannot be loaded, or too many requests wait (kind "Busy").
        """
        recipe = self._recipes[name]
        if len(recipe.replies) + len(requests) > self.n_slots + self.queue:
            raise UnservedError(
                "Busy",
                f"{len(recipe.replies)} requests are in work or wait for one of the {self.n_slots} "
                f"slots; ask again later, or start the server with a larger --queue",
            )
        # They count from here on, also while the recipe is being loaded.
        replies = [Reply(f"r{next(self._ids)}", name, self, request) for request in requests]
        recipe.replies.update(replies)
        try:
            await self.ready(name)
            assert self._process is not None
        except BaseException:
            recipe.replies.difference_update(replies)
            raise
        told = {"progress": True} if progress else {}
        for reply in replies:
            self._replies[reply.id] = reply
            self._process.send("submit", id=reply.id, name=name, request=reply.request, **told)
        self._set_idle_timer(None)
        return replies

    async def ask(self, name: str, what: str, **arguments: Any) -> Any:
        """Return the engine's answer to a question, see `engine/host.py`; raises UnservedError."""
        await self.ready(name)
        assert self._process is not None
        id = f"a{next(self._ids)}"
        answer = self._expect(id)
        self._process.send("ask", id=id, name=name, what=what, **arguments)
        try:
            return await answer
        finally:
            self._answers.pop(id, None)
            self._watch_idle()

    def tell(self, reply: Reply, do: str, **values: Any) -> None:
        """Send a command about a request, if it is still in work."""
        if reply.id in self._replies and self._process is not None:
            self._process.send(do, id=reply.id, **values)

    def find(self, known_as: str) -> list[Reply]:
        """Return the replies in work, of all choices, by the id that a client knows."""
        return [reply for reply in self._replies.values() if reply.known_as == known_as]

    def forget(self, reply: Reply) -> None:
        """Take a reply that has ended out of work."""
        self._recipes[reply.recipe].replies.discard(reply)
        self._recipes[reply.recipe].used = time.monotonic()
        if self._replies.pop(reply.id, None):
            self._watch_idle()

    def _note_loading(self, name: str, bytes: int, total: int, **_: Any) -> None:
        recipe, of_files = self._recipes[name], self._memory().of_files
        recipe.files = recipe.files or FilesRead(total, of_files)
        recipe.files.note(bytes, of_files)

    def _take(self, event: Event) -> None:
        """Give an event to whom it concerns."""
        what = event["event"]
        if what == "steps":
            for step in event["steps"]:
                if reply := self._replies.get(step["request_id"]):
                    reply.take(step)
            return
        if what == "loading":
            self._note_loading(**event)
            return
        if what == "progress":
            if reply := self._replies.get(event["id"]):
                reply.read(PromptProgress(**event["progress"]))
            return
        failure = failure_of(event)
        do = {"loaded": "load", "failed": "load", "unloaded": "unload"}.get(what)
        future = self._answers.pop(f"{do} {event['name']}" if do else event["id"], None)
        if future and not future.done():
            if failure:
                future.set_exception(failure)
            else:
                future.set_result(event.get("answer", event.get("facts")))
        elif reply := self._replies.get(event.get("id", "")):
            if failure:
                reply.fail(failure)
            else:
                reply.accept(event["tail"], event["prefix"])
