"""The engine's process as this one sees it: commands out, events in, and word of its death.

The other end is `engine/host.py`, which names them. What an event means is for `engine.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from ..child import Child, environment

Event = dict[str, Any]


class Memory(NamedTuple):
    """Bytes of a process in memory: in all, and of files; all where the system does not say."""

    resident: int
    of_files: int


class EngineProcess:
    """A child process with an engine; made and used on an event loop.

    Args:
        on_event: called with every event, on the loop.
        on_death: called once, on the loop, with a line on why it ended; not after `stop`.
    """

    def __init__(self, on_event: Callable[[Event], None], on_death: Callable[[str], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_event, self._on_death = on_event, on_death
        self._child = Child(["-m", "edge_eft.engine.host"], environment())
        self._ending: asyncio.Task[None] | None = None
        self._rest = b""
        self._output = self._child.stdout.fileno()
        try:
            self._loop.add_reader(self._output, self._read)
            self._watched = True
        except NotImplementedError:  # of pipes, on Windows
            self._watched = False
            threading.Thread(target=self._read_all, daemon=True).start()

    def send(self, do: str, **values: Any) -> None:
        """Give a command; if the process is dead, `on_death` tells."""
        self._child.send(json.dumps({"do": do, **values}))

    def memory(self) -> Memory:
        """Return what of it is in memory now; zeros if it has died."""
        import psutil  # not at the top: it has native code, and not everyone asks

        try:
            about = psutil.Process(self._child.pid).memory_info()
        except psutil.Error:
            return Memory(0, 0)
        return Memory(about.rss, getattr(about, "shared", about.rss))  # which Linux alone counts

    async def stop(self) -> None:
        """End the process, and all that it holds; `on_death` tells nothing any more."""
        self._on_death = lambda _: None  # by now there may be another process
        await self._end()

    def _end(self) -> asyncio.Task[None]:
        """Begin to end the process; nothing more is read of it."""
        if self._ending is None:
            self._ending = asyncio.ensure_future(self._die())
            if self._watched:
                self._loop.remove_reader(self._output)
        return self._ending

    def _read_all(self) -> None:
        with contextlib.suppress(OSError, RuntimeError):  # the pipe or the loop is closed
            while data := os.read(self._output, 1 << 18):
                self._loop.call_soon_threadsafe(self._take, data)
            self._loop.call_soon_threadsafe(self._take, b"")

    def _read(self) -> None:
        self._take(os.read(self._output, 1 << 18))

    def _take(self, data: bytes) -> None:
        """Take the events that have come; nothing comes when the process has died."""
        if not data:
            self._end()
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if not self._ending:  # by what an event brought about
                self._on_event(json.loads(line))

    async def _die(self) -> None:
        reason = await asyncio.to_thread(self._child.end)
        self._on_death(reason)
