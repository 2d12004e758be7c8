"""How far what takes long is, for whoever waits in another process: files, and prompts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

_EVERY = 0.1  # seconds; llama.cpp tells of every tensor


class Loading:
    """The `on_load` of an emulator, of which only some moments are told on.

    Args:
        tell: called with the bytes that are read and the bytes that there are.
    """

    def __init__(self, tell: Callable[[int, int], object]) -> None:
        self._tell, self._told = tell, -math.inf

    def __call__(self, file: Path, done: int, total: int) -> None:
        """Tell on how far it is, if that was not told just now, or is the end."""
        now = time.monotonic()
        if done == total or now >= self._told + _EVERY:
            self._told = now
            self._tell(done, total)


class Reading:
    """How far one request's prompt is read, in llama-server's numbers of `prompt_progress`.

    `total` are its tokens, `cache` those that were there when it began, `processed` these and
    those that were decoded, and `time_ms` the milliseconds since then.
    """

    def __init__(self) -> None:
        self._begun: float | None = None
        self._cache = self._total = 0

    def at(self, done: int, total: int) -> dict[str, float]:
        """Return what there is to tell before a chunk, the first of which begins it."""
        now = time.monotonic()
        done = min(done, total - 1)  # the last one is decoded in any case
        if self._begun is None:
            self._begun, self._cache = now, done
        # A model that gets weight only now has less of it.
        self._cache, self._total = min(self._cache, done), total
        return self._told(done, now - self._begun)

    def end(self) -> dict[str, float] | None:
        """Return what there is to tell when a token has come, None if no chunk was before it.

        Should more have to be read in mid-reply, that begins anew.
        """
        if self._begun is None:
            return None
        told = self._told(self._total, time.monotonic() - self._begun)
        self._begun = None
        return told

    def _told(self, done: int, seconds: float) -> dict[str, float]:
        told = {"total": self._total, "cache": self._cache, "processed": done}
        return {**told, "time_ms": round(1000 * seconds, 3)}
