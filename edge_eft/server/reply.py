"""A reply as it comes from the engine: steps in a bounded queue, and how it ended.

A reader that is slow lets the queue fill; the engine then pauses the request until it is read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..engine.reply import Step
from .failure import UnservedError

if TYPE_CHECKING:
    from .engine import Engine

PAUSE_AT = 1024  # numbers in the steps that wait for the reader, which may tell of many tokens
_STEP = 8  # of a step without the likeliest tokens
_EXPLAINED = 12  # for each of a role's likeliest: in its list, and in a candidate's for all roles


@dataclass(frozen=True)
class PromptProgress:
    """How far a prompt is read, as llama-server tells it.

    Attributes:
        total: its tokens.
        cache: of these, how many there were when it began.
        processed: how many there are.
        time_ms: since it began.
    """

    total: int
    cache: int
    processed: int
    time_ms: float


class Reply:
    """One request in work, and its steps as they come.

    Attributes:
        id: that the engine knows it by; `known_as`: that the client does.
        recipe: its name.
        choices: the replies of all choices of the same answer, this one included.
        prefix: its `prefix_ids` as text, as of `engine.prefix.prefix_parts`.
        request: plain data of the `Request`.
        begun: when it was submitted, by time.monotonic.
        n_decoded: tokens so far.
    """

    def __init__(self, id: str, recipe: str, engine: Engine, request: dict[str, Any]) -> None:
        self.id, self.recipe, self.request = id, recipe, request
        self.known_as = ""
        self.choices: list[Reply] = [self]
        self.prefix: list[str] = []
        self.begun = time.monotonic()
        self.n_decoded = 0
        self._engine = engine
        self._steps: list[Step] = []
        self._progress: PromptProgress | None = None
        self._news = asyncio.Event()
        self._tail: str | None = None
        self._failure: UnservedError | None = None
        self._ended = False
        self._paused = False
        n_explained = request.get("explain", 0)
        per_step = _STEP + request.get("top_logprobs", 0) + _EXPLAINED * n_explained
        self._pause_at = PAUSE_AT // per_step

    # -- the engine's side -----------------------------------------------------------------

    def accept(self, tail: str, prefix: list[str]) -> None:
        """Note that the request is in work; `tail` is the end of the tuned model's prompt."""
        self._tail, self.prefix = tail, prefix
        self._news.set()

    def take(self, step: dict[str, Any]) -> None:
        """Add a step."""
        self._steps.append(Step.from_dict(step))
        self.n_decoded += 1
        if step.get("finish_reason"):
            self._ended = True
            self._engine.forget(self)
        elif len(self._steps) > self._pause_at and not self._paused:
            self._paused = True
            self._engine.tell(self, "pause")
        self._news.set()

    def read(self, progress: PromptProgress) -> None:
        """Note how far its prompt is read; a reader who is late gets the newest alone."""
        self._progress = progress
        self._news.set()

    def fail(self, failure: UnservedError) -> None:
        """End it by a failure, after the steps that have come."""
        self._failure, self._ended = failure, True
        self._engine.forget(self)
        self._news.set()

    # -- the reader's side -----------------------------------------------------------------

    async def accepted(self) -> str:
        """Return the end of the tuned model's prompt, once the request is in work.

        Raises:
            UnservedError: it was refused.
        """
        while self._tail is None:
            if self._failure:
                raise self._failure
            await self._wait()
        return self._tail

    async def steps(self) -> AsyncIterator[list[Step] | PromptProgress]:
        """Yield what has come, until the last step; raise UnservedError after it, if it failed."""
        while True:
            while not (self._steps or self._progress or self._ended):
                await self._wait()
            if progress := self._progress:
                self._progress = None
                yield progress
                continue
            steps, self._steps = self._steps, []
            if steps:
                yield steps
            if self._paused and len(self._steps) <= self._pause_at // 4:
                self._paused = False
                self._engine.tell(self, "unpause")
            if self._ended and not self._steps:
                if self._failure:
                    raise self._failure
                return

    async def _wait(self) -> None:
        self._news.clear()
        await self._news.wait()

    def cancel(self) -> None:
        """End it, if it has not: what has come is the answer."""
        self._engine.tell(self, "cancel")
        self._ended = True
        self._engine.forget(self)
        self._news.set()
